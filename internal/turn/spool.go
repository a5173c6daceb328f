package turn

import (
	"fmt"
	"os"
)

// spoolAfter is how many bytes of an answer are held in memory; nearly all are
// shorter. Five hundred long ones at once must not be five hundred megabytes.
const spoolAfter = 32 << 10

// spool holds the text of an answer as it grows: in memory, and beyond
// spoolAfter in a file without a name, which ends with the process.
type spool struct {
	buf  []byte
	file *os.File
	size int
}

func (s *spool) write(text string) error {
	if s.file == nil && s.size+len(text) <= spoolAfter {
		s.buf = append(s.buf, text...)
		s.size += len(text)
		return nil
	}
	if s.file == nil {
		if err := s.spill(); err != nil {
			return err
		}
	}
	n, err := s.file.WriteAt([]byte(text), int64(s.size))
	if err != nil {
		return fmt.Errorf("cannot spool a long answer: %w", err)
	}
	s.size += n
	return nil
}

// spill moves what there is to a file.
func (s *spool) spill() error {
	f, err := os.CreateTemp("", "hermes-answer-*")
	if err != nil {
		return fmt.Errorf("cannot spool a long answer: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return fmt.Errorf("cannot spool a long answer: %w", err)
	}
	if _, err := f.WriteAt(s.buf, 0); err != nil {
		f.Close()
		return fmt.Errorf("cannot spool a long answer: %w", err)
	}
	s.file, s.buf = f, nil
	return nil
}

// from returns the text from offset on; nothing beyond its end.
func (s *spool) from(offset int) string {
	if offset >= s.size {
		return ""
	}
	if s.file == nil {
		return string(s.buf[offset:])
	}
	b := make([]byte, s.size-offset)
	n, _ := s.file.ReadAt(b, int64(offset)) // written by us, to a file that nobody else has
	return string(b[:n])
}

// clear empties the spool.
func (s *spool) clear() {
	if s.file != nil {
		s.file.Close()
	}
	*s = spool{}
}
