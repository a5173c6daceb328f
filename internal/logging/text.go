package logging

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// textHandler writes `15:04:05 level message key=value`. A value with blanks,
// quotes, = or control characters is quoted, so that a line stays a line.
type textHandler struct {
	out    *lockedWriter // shared by all handlers derived from one
	level  slog.Level
	noTime bool
	prefix string // open groups, each with its dot
	attrs  []byte // attributes of With, already written out
}

// lockedWriter keeps lines of concurrent loggers whole.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Enabled says whether level is written.
func (h *textHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level
}

// Handle writes one line.
func (h *textHandler) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	if !h.noTime && !r.Time.IsZero() {
		b.WriteString(r.Time.Format(time.TimeOnly))
		b.WriteByte(' ')
	}
	b.WriteString(levelWord(r.Level))
	b.WriteByte(' ')
	b.WriteString(oneLine(r.Message))
	b.Write(h.attrs)
	r.Attrs(func(a slog.Attr) bool { appendAttr(&b, h.prefix, a); return true })
	b.WriteByte('\n')

	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(b.Bytes())
	return err
}

// WithAttrs returns a handler that adds attrs to every line.
func (h *textHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	b := bytes.NewBuffer(bytes.Clone(h.attrs))
	for _, a := range attrs {
		appendAttr(b, h.prefix, a)
	}
	derived := *h
	derived.attrs = b.Bytes()
	return &derived
}

// WithGroup returns a handler that writes later keys as name.key.
func (h *textHandler) WithGroup(name string) slog.Handler {
	derived := *h
	if name != "" {
		derived.prefix += name + "."
	}
	return &derived
}

func appendAttr(b *bytes.Buffer, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			appendAttr(b, prefix, inner)
		}
		return
	}
	if a.Key == "" {
		return
	}
	b.WriteByte(' ')
	b.WriteString(quoteIfNeeded(prefix + a.Key))
	b.WriteByte('=')
	b.WriteString(quoteIfNeeded(valueText(v)))
}

func valueText(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339)
	case slog.KindDuration:
		return v.Duration().Round(time.Microsecond).String()
	case slog.KindAny:
		return anyText(v.Any())
	default:
		return v.String()
	}
}

// anyText prefers a value's own words to Go syntax.
func anyText(v any) string {
	switch x := v.(type) {
	case error:
		return x.Error()
	case fmt.Stringer:
		return x.String()
	case []string:
		return strings.Join(x, ",")
	}
	var b strings.Builder
	e := json.NewEncoder(&b) // JSON, so that a secret inside stays hidden
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func quoteIfNeeded(s string) string {
	if s == "" || strings.ContainsFunc(s, needsQuote) || !utf8.ValidString(s) {
		return strconv.Quote(s)
	}
	return s
}

func needsQuote(r rune) bool { return r == '"' || r == '=' || r == ' ' || !unicode.IsPrint(r) }

// oneLine leaves a message readable and escapes what would break its line.
func oneLine(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

// levelWord is the level in the words of HERMES_LOG_LEVEL.
func levelWord(l slog.Level) string { return strings.ToLower(l.String()) }
