// Package logging makes the process's logger: one line an event, constant
// message, facts as attributes. It writes to one writer and rotates nothing;
// s6-log or the container engine does.
//
//	log := logging.New(os.Stderr, logging.Text, slog.LevelInfo)
//	log.Info("gateway ready", "addr", addr) // 15:04:05 info gateway ready addr=127.0.0.1:8642
package logging

import (
	"io"
	"log/slog"
)

// Formats that New knows.
const (
	Text = "text"
	JSON = "json"
)

// Option changes how New's lines look.
type Option func(*textHandler)

// WithoutTime leaves the time out of text lines: s6-log puts its own before
// each. JSON lines always carry it.
func WithoutTime() Option { return func(h *textHandler) { h.noTime = true } }

// New returns a logger that writes lines of at least level to w, one Write a
// line. Any format but JSON is text.
func New(w io.Writer, format string, level slog.Level, options ...Option) *slog.Logger {
	if format == JSON {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: contractWords}))
	}
	h := &textHandler{out: &lockedWriter{w: w}, level: level}
	for _, o := range options {
		o(h)
	}
	return slog.New(h)
}

// contractWords writes levels in lower case and times in UTC, as the text
// format and the status JSON do.
func contractWords(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.LevelKey:
		if level, ok := a.Value.Any().(slog.Level); ok {
			a.Value = slog.StringValue(levelWord(level))
		}
	case slog.TimeKey:
		if a.Value.Kind() == slog.KindTime {
			a.Value = slog.TimeValue(a.Value.Time().UTC())
		}
	}
	return a
}
