// Package slotlog reads the rotated files that s6-log writes for a slot:
// `current`, and `@TAI64N.s` for what was rotated away. It takes the stamps
// apart, merges the logs of several slots by time and follows them across
// rotation. It writes nothing and knows no terminal.
//
//	r := slotlog.New()
//	defer r.Close()
//	r.Watch([]slotlog.Source{{Profile: "work", Service: "gateway-work", Dir: dir}})
//	lines, err := r.Last(50) // then again and again: r.Next()
package slotlog

import (
	"bytes"
	"encoding/json"
	"time"
)

// MaxLine bounds what is kept of a line, in bytes. s6-log cuts at 8 KiB by
// itself, so only a file that something else wrote has longer ones.
const MaxLine = 64 << 10

// Source is the log of one slot.
type Source struct {
	Profile string // "" for a service that is no profile's
	Service string // name of the slot
	Dir     string // where current and the rotated files are
}

// Line is one line of a log.
type Line struct {
	Source Source
	Time   time.Time // UTC; that of the line before where there is no stamp, zero where none was yet
	Raw    string    // as it stands in the file, its beginning if Cut
	Text   string    // Raw without the stamp
	Cut    int       // bytes left out at the end, because the line is longer than MaxLine

	order time.Time // Time, but never before that of an earlier line of its log
}

// stampLayout is s6-log's directive T: ISO 8601 with nanoseconds and two
// blanks behind it (https://skarnet.org/software/s6/s6-log.html). The slots'
// loggers run with TZ=UTC.
const stampLayout = "2006-01-02 15:04:05.000000000"

const stampEnd = "  "

// cutStamp takes the stamp off a line; ok is false where there is none.
func cutStamp(line []byte) (at time.Time, text []byte, ok bool) {
	n := len(stampLayout)
	if len(line) < n+len(stampEnd) || string(line[n:n+len(stampEnd)]) != stampEnd {
		return time.Time{}, line, false
	}
	at, err := time.ParseInLocation(stampLayout, string(line[:n]), time.UTC)
	if err != nil {
		return time.Time{}, line, false
	}
	return at, line[n+len(stampEnd):], true
}

// Event is what our own log handler said in a line.
type Event struct {
	Level   string                     // debug, info, warn, error
	Message string                     // "" of a line in the text format: it has no end there
	Fields  map[string]json.RawMessage // nil of a line in the text format
}

// Event takes apart a line that has the form of our own log handler's: all of
// a JSON line, the level of a text line. ok is false for any other line.
func (l Line) Event() (e Event, ok bool) {
	if l.Cut > 0 {
		return Event{}, false
	}
	if word, _, blank := bytes.Cut([]byte(l.Text), []byte(" ")); blank && isLevel(string(word)) {
		return Event{Level: string(word)}, true
	}
	if len(l.Text) == 0 || l.Text[0] != '{' || json.Unmarshal([]byte(l.Text), &e.Fields) != nil {
		return Event{}, false
	}
	if !take(e.Fields, "level", &e.Level) || !take(e.Fields, "msg", &e.Message) || !isLevel(e.Level) {
		return Event{}, false
	}
	delete(e.Fields, "time")
	return e, true
}

func isLevel(word string) bool {
	switch word {
	case "debug", "info", "warn", "error":
		return true
	}
	return false
}

// take moves a string out of fields.
func take(fields map[string]json.RawMessage, name string, to *string) bool {
	raw, ok := fields[name]
	delete(fields, name)
	return ok && json.Unmarshal(raw, to) == nil
}

// splitter makes lines of what is read in pieces, and keeps the unfinished
// last one.
type splitter struct {
	line []byte
	cut  int
}

// feed gives emit every line that p finishes; emit must not keep it.
func (s *splitter) feed(p []byte, emit func(line []byte, cut int)) {
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			s.add(p)
			return
		}
		s.add(p[:end])
		s.flush(emit)
		p = p[end+1:]
	}
}

// flush ends the unfinished line.
func (s *splitter) flush(emit func(line []byte, cut int)) {
	line := s.line
	if s.cut == 0 {
		line = bytes.TrimSuffix(line, []byte("\r"))
	}
	emit(line, s.cut)
	s.line, s.cut = s.line[:0], 0
}

func (s *splitter) unfinished() bool { return len(s.line) > 0 }

func (s *splitter) add(p []byte) {
	fits := min(len(p), MaxLine-len(s.line))
	s.line = append(s.line, p[:fits]...)
	s.cut += len(p) - fits
}
