package logging

import (
	"bytes"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// repeatWindow is how often a line that repeats itself is written. A minute
	// makes 1,440 lines of a day's worst, where a log once had 24,000.
	repeatWindow = time.Minute
	// closeLimit is how long the end of a process waits for a reader.
	closeLimit = 500 * time.Millisecond
)

// Sink stands between the loggers of a process that serves and its stderr. It
// collapses what repeats itself: the second and every further copy of a line
// within a minute is only counted, and written once more, with repeated=N, at
// the end of the minute or before the next line that differs. And it never
// makes its callers wait for a reader that is stuck: see relay. All methods are
// safe for concurrent use.
type Sink struct {
	relay *relay

	mu       sync.Mutex
	last     []byte // what the latest line says, without its time
	since    time.Time
	repeats  int
	repeated []byte // the latest copy
	window   *time.Timer
	closed   bool
}

// Open returns a logger like New's for a process that serves, and its sink,
// which is to be closed at the end.
func Open(w io.Writer, format string, level slog.Level, options ...Option) (*slog.Logger, *Sink) {
	note := func(count int) []byte {
		var b bytes.Buffer
		New(&b, format, slog.LevelWarn, options...).Warn("log lines dropped: nobody took them", "count", count)
		return b.Bytes()
	}
	s := &Sink{relay: startRelay(w, note)}
	return New(s, format, level, options...), s
}

// Write takes one line. It always succeeds.
func (s *Sink) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return len(line), nil
	}
	says := withoutTime(line)
	if bytes.Equal(says, s.last) && (s.repeats > 0 || time.Since(s.since) < repeatWindow) {
		s.repeats++
		s.repeated = append(s.repeated[:0], line...)
		if s.repeats == 1 {
			s.window = time.AfterFunc(repeatWindow-time.Since(s.since), s.windowEnds)
		}
		return len(line), nil
	}
	s.tellRepeats()
	s.last = append(s.last[:0], says...)
	s.since = time.Now()
	s.relay.put(line)
	return len(line), nil
}

func (s *Sink) windowEnds() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tellRepeats()
}

// tellRepeats writes the latest copy with the count of all; the next window
// begins with it.
func (s *Sink) tellRepeats() {
	if s.repeats == 0 {
		return
	}
	s.window.Stop()
	s.relay.put(withCount(s.repeated, s.repeats))
	s.repeats, s.since = 0, time.Now()
}

// Close writes what is left, for half a second at most.
func (s *Sink) Close() {
	s.mu.Lock()
	s.tellRepeats()
	s.closed = true
	s.mu.Unlock()
	s.relay.close(closeLimit)
}

// jsonTime is how a JSON line begins; slog writes the time first.
const jsonTime = `{"time":"`

// withoutTime is what a line says: two of the same are repeats.
func withoutTime(line []byte) []byte {
	if rest, ok := bytes.CutPrefix(line, []byte(jsonTime)); ok {
		if _, rest, ok = bytes.Cut(rest, []byte(`",`)); ok {
			return rest
		}
	}
	if n := len(time.TimeOnly); len(line) > n && line[0] <= '9' { // else it is a level's first letter
		return line[n+1:]
	}
	return line
}

// withCount adds repeated=count to a line of either format.
func withCount(line []byte, count int) []byte {
	line = bytes.TrimSuffix(line, []byte("\n"))
	n := slog.IntValue(count).String()
	if body, ok := bytes.CutSuffix(line, []byte("}")); ok && line[0] == '{' {
		return append(bytes.Clone(body), `,"repeated":`+n+"}\n"...)
	}
	return append(bytes.Clone(line), " repeated="+n+"\n"...)
}
