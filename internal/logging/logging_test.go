package logging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/hermesgw/hermes/internal/logging"
	"github.com/hermesgw/hermes/internal/secret"
)

func TestTextLines(t *testing.T) {
	at := time.Date(2026, 1, 2, 16, 4, 5, 0, time.FixedZone("", 3600))
	for want, log := range map[string]func(*slog.Logger){
		"info gateway ready addr=127.0.0.1:8642 pid=7":         func(l *slog.Logger) { l.Info("gateway ready", "addr", "127.0.0.1:8642", "pid", 7) },
		`warn slow took=1.5s at=2026-01-02T15:04:05Z empty=""`: func(l *slog.Logger) { l.Warn("slow", "took", 1500*time.Millisecond, "at", at, "empty", "") },
		`error failed error="cannot open \"x\""`:               func(l *slog.Logger) { l.Error("failed", "error", errors.New(`cannot open "x"`)) },
		"info key key=<redacted> none=\"\"":                    func(l *slog.Logger) { l.Info("key", "key", secret.New("hunter2"), "none", secret.String{}) },
		`info nested key="{\"K\":\"<redacted>\"}"`:             func(l *slog.Logger) { l.Info("nested", "key", struct{ K secret.String }{secret.New("hunter2")}) },
		`info one\nline v="two\nlines" w="\x1b[31m"`:           func(l *slog.Logger) { l.Info("one\nline", "v", "two\nlines", "w", "\x1b[31m") },
		"info groups a=1 g.b=2 g.h.c=3 g.i.d=4": func(l *slog.Logger) {
			l.With("a", 1).WithGroup("g").With("b", 2).Info("groups", slog.Group("h", "c", 3), slog.Group("i", "d", 4))
		},
		"info list names=a,b":   func(l *slog.Logger) { l.Info("list", "names", []string{"a", "b"}) },
		"info grüße wer=Jürgen": func(l *slog.Logger) { l.Info("grüße", "wer", "Jürgen") },
		"":                      func(l *slog.Logger) { l.Debug("hidden") },
	} {
		var b bytes.Buffer
		log(logging.New(&b, logging.Text, slog.LevelInfo, logging.WithoutTime()))
		if got := b.String(); strings.TrimSuffix(got, "\n") != want || got != "" && strings.Count(got, "\n") != 1 {
			t.Errorf("got  %swant %s", got, want)
		}
	}
}

func TestTextLinesCarryTheTime(t *testing.T) {
	var b bytes.Buffer
	logging.New(&b, "text", slog.LevelDebug).Debug("hello")
	if !regexp.MustCompile(`^\d\d:\d\d:\d\d debug hello\n$`).MatchString(b.String()) {
		t.Errorf("got %q", b.String())
	}
}

func TestJSONLines(t *testing.T) {
	var b bytes.Buffer
	log := logging.New(&b, logging.JSON, slog.LevelWarn)
	log.Info("hidden")
	log.Warn("seen", "key", secret.New("hunter2"), slog.Group("g", "level", "kept"))
	var line map[string]any
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, b.String())
	}
	if line["level"] != "warn" || line["msg"] != "seen" || line["key"] != "<redacted>" || !strings.HasSuffix(line["time"].(string), "Z") {
		t.Errorf("line %v", line)
	}
	if g := line["g"].(map[string]any); g["level"] != "kept" {
		t.Errorf("group %v", g)
	}
}

// Several loggers of one writer never mix their lines.
func TestLinesStayWhole(t *testing.T) {
	var b bytes.Buffer
	log := logging.New(&b, logging.Text, slog.LevelInfo, logging.WithoutTime())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				log.With("a", "x").Info("message", "b", "y")
			}
		})
	}
	wg.Wait()
	for line := range strings.Lines(b.String()) {
		if line != "info message a=x b=y\n" {
			t.Fatalf("line %q", line)
		}
	}
}

// The text handler keeps slog's own rules; its lines are turned back into maps.
func TestSlogRules(t *testing.T) {
	var b bytes.Buffer
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		b.Reset()
		return logging.New(&b, logging.Text, slog.LevelInfo).Handler()
	}, func(t *testing.T) map[string]any { return parse(b.String()) })
}

func parse(line string) map[string]any {
	m := map[string]any{}
	words := strings.Fields(line)
	if len(words) > 0 && strings.Count(words[0], ":") == 2 {
		m[slog.TimeKey], words = words[0], words[1:]
	}
	m[slog.LevelKey], m[slog.MessageKey] = words[0], words[1]
	for _, word := range words[2:] {
		key, value, _ := strings.Cut(word, "=")
		at := m
		groups := strings.Split(key, ".")
		for _, g := range groups[:len(groups)-1] {
			if _, ok := at[g]; !ok {
				at[g] = map[string]any{}
			}
			at = at[g].(map[string]any)
		}
		at[groups[len(groups)-1]] = value
	}
	return m
}
