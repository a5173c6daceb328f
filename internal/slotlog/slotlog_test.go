package slotlog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/testenv"
)

// patience is the deadline of what takes milliseconds.
const patience = 30 * time.Second

// logDir is a directory as s6-log leaves it.
type logDir struct {
	t    *testing.T
	path string
}

func newLogDir(t *testing.T) logDir { return logDir{t, t.TempDir()} }

func (d logDir) add(name, text string) {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.path, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		d.t.Fatal(err)
	}
}

func (d logDir) move(from, to string) {
	d.t.Helper()
	if err := os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to)); err != nil {
		d.t.Fatal(err)
	}
}

func (d logDir) source(name string) Source {
	return Source{Profile: name, Service: "gateway-" + name, Dir: d.path}
}

// stamped is a line of second n of a minute.
func stamped(n int, text string) string {
	return fmt.Sprintf("2026-01-01 00:00:%02d.000000000  %s\n", n, text)
}

func watch(t *testing.T, sources ...Source) *Reader {
	t.Helper()
	r := New()
	t.Cleanup(r.Close)
	r.Watch(sources)
	return r
}

func next(t *testing.T, r *Reader) []Line {
	t.Helper()
	lines, missed, err := r.Next()
	if err != nil || len(missed) > 0 {
		t.Fatalf("next: %v, missed %v", err, missed)
	}
	return lines
}

// texts joins what lines say.
func texts(lines []Line) string {
	var all []string
	for _, l := range lines {
		all = append(all, l.Text)
	}
	return strings.Join(all, " ")
}

func TestLogsOfSlotsAreMergedByTime(t *testing.T) {
	a, b := newLogDir(t), newLogDir(t)
	a.add("@400000006592ff00000000aa.s", stamped(1, "a1")+stamped(3, "a3"))
	a.add("current", stamped(6, "a6")+stamped(2, "a-clock-went-back")+stamped(8, "a8"))
	b.add("current", stamped(2, "b2")+"no stamp\n"+stamped(4, "b4")+stamped(7, "b7")+stamped(9, "b9")[:12])
	r := watch(t, a.source("a"), b.source("b"))
	lines, err := r.Last(100)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := texts(lines), "a1 b2 no stamp a3 b4 a6 a-clock-went-back b7 a8"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if l := lines[2]; l.Source.Profile != "b" || !l.Time.Equal(time.Date(2026, 1, 1, 0, 0, 2, 0, time.UTC)) || l.Raw != "no stamp" {
		t.Errorf("a line without a stamp has the time of the one before: %+v", l)
	}
	a.add("current", stamped(10, "a10"))
	b.add("current", stamped(9, "b9")[12:])
	if got := texts(next(t, r)); got != "b9 a10" {
		t.Errorf("then %q", got)
	}
	if got := texts(next(t, r)); got != "" {
		t.Errorf("nothing new, but %q", got)
	}
}

func TestLastCountsAcrossFilesAndLogs(t *testing.T) {
	a, b := newLogDir(t), newLogDir(t)
	a.add("@400000006592ff00000000aa.s", stamped(1, "a1")+stamped(2, "a2"))
	a.add("@400000006592ff00000000ab.u", stamped(3, "a3")+stamped(4, "half")[:33])
	a.add("current", stamped(5, "a5"))
	b.add("current", stamped(6, "b6"))
	for n, want := range []string{"", "b6", "a5 b6", "ha a5 b6", "a3 ha a5 b6", "a2 a3 ha a5 b6"} {
		lines, err := watch(t, a.source("a"), b.source("b")).Last(n)
		if got := texts(lines); err != nil || got != want {
			t.Errorf("last %d: %q, %v; want %q", n, got, err, want)
		}
	}
}

// Whatever moment of a rotation a look meets: no line is lost, none comes twice.
func TestRotation(t *testing.T) {
	d := newLogDir(t)
	d.add("@400000006592ff00000000aa.s", stamped(1, "old"))
	d.add("current", stamped(2, "one"))
	r := watch(t, d.source("a"))
	if lines, err := r.Last(1); err != nil || texts(lines) != "one" {
		t.Fatalf("%v, %v", lines, err)
	}
	d.add("current", stamped(3, "two"))
	d.move("current", "previous")
	if got := texts(next(t, r)); got != "two" { // between rename and create
		t.Errorf("got %q", got)
	}
	d.add("current", stamped(4, "three"))
	if got := texts(next(t, r)); got != "three" { // before previous gets its name
		t.Errorf("got %q", got)
	}
	d.move("previous", "@400000006592ff00000000ab.s")
	d.add("current", stamped(5, "four"))
	d.move("current", "@400000006592ff00000000ac.s")
	d.add("@400000006592ff00000000ad.s", stamped(6, "five")) // two rotations between two looks
	d.add("current", stamped(7, "six"))
	if got := texts(next(t, r)); got != "four five six" {
		t.Errorf("got %q", got)
	}
	d.add("current", stamped(8, "seven"))
	if got := texts(next(t, r)); got != "seven" {
		t.Errorf("got %q", got)
	}
}

// Half a line goes on in the next file, unless that begins with a new one.
func TestUnfinishedLineAtARotation(t *testing.T) {
	d := newLogDir(t)
	d.add("current", stamped(1, "first")+stamped(2, "spl it")[:34])
	r := watch(t, d.source("a"))
	if got := texts(next(t, r)); got != "first" {
		t.Fatalf("got %q", got)
	}
	d.move("current", "@400000006592ff00000000aa.s")
	d.add("current", " over\n"+stamped(3, "died")[:33])
	if got := texts(next(t, r)); got != "spl over" {
		t.Errorf("got %q", got)
	}
	d.move("current", "@400000006592ff00000000ab.u")
	d.add("current", stamped(4, "restarted"))
	if got := texts(next(t, r)); got != "di restarted" {
		t.Errorf("got %q", got)
	}
}

func TestLogsThatComeAndGo(t *testing.T) {
	a, b := newLogDir(t), newLogDir(t)
	r := watch(t, a.source("a"))
	if _, err := r.Last(5); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no log at all: %v", err)
	}
	if got := next(t, r); len(got) != 0 {
		t.Fatal(got)
	}
	a.add("current", stamped(2, "a2"))
	b.add("current", stamped(1, "b1"))
	r.Watch([]Source{a.source("a"), b.source("b")})
	if got := texts(next(t, r)); got != "b1 a2" {
		t.Errorf("got %q", got)
	}
	r.Watch([]Source{b.source("b")})
	a.add("current", stamped(3, "a3"))
	b.add("current", stamped(4, "b4"))
	if got := texts(next(t, r)); got != "b4" {
		t.Errorf("got %q", got)
	}
	if err := os.Truncate(filepath.Join(b.path, "current"), 0); err != nil {
		t.Fatal(err)
	}
	b.add("current", stamped(5, "b5"))
	if got := texts(next(t, r)); got != "b5" {
		t.Errorf("after it was emptied: %q", got)
	}
}

// What was rotated away unread is said, not passed over.
func TestRotatedAwayUnread(t *testing.T) {
	d := newLogDir(t)
	d.add("current", stamped(1, "one"))
	r := watch(t, d.source("a"))
	next(t, r)
	if err := os.Remove(filepath.Join(d.path, "current")); err != nil {
		t.Fatal(err)
	}
	d.add("@400000006592ff00000000ab.s", stamped(5, "five"))
	d.add("current", stamped(6, "six"))
	lines, missed, err := r.Next()
	if err != nil || texts(lines) != "five six" || len(missed) != 1 {
		t.Errorf("%q, missed %v, %v", texts(lines), missed, err)
	}
}

func TestLongLinesAreCut(t *testing.T) {
	d := newLogDir(t)
	d.add("current", stamped(1, strings.Repeat("x", 3*MaxLine))+stamped(2, "after"))
	lines := next(t, watch(t, d.source("a")))
	if len(lines) != 2 || len(lines[0].Raw) != MaxLine || lines[0].Cut != 2*MaxLine+31 || lines[1].Text != "after" {
		t.Errorf("%d lines, %d bytes, %d cut", len(lines), len(lines[0].Raw), lines[0].Cut)
	}
	if _, ok := lines[0].Event(); ok {
		t.Error("a cut line is taken apart")
	}
}

func TestEvents(t *testing.T) {
	for text, want := range map[string]string{
		`{"time":"2026-01-01T00:00:00Z","level":"warn","msg":"turn failed","session":"s"}`: `warn "turn failed" map[session:"s"]`,
		"error turn failed session=s":        `error "" map[]`,
		"errors happen":                      "",
		"panic: runtime error":               "",
		`{"level":"loud","msg":"x"}`:         "",
		`{"level":"info"}`:                   "",
		`{"level":"info","msg":"x"} trailer`: "",
		`["info"]`:                           "",
		"":                                   "",
	} {
		got := ""
		if e, ok := (Line{Text: text}).Event(); ok {
			got = fmt.Sprintf("%s %q %s", e.Level, e.Message, e.Fields)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

// The real writer, rotating every few lines: every line once, in order.
func TestRealRotation(t *testing.T) {
	testenv.Need(t, "s6")
	dir := t.TempDir()
	const count = 5000
	var input bytes.Buffer
	for i := range count {
		fmt.Fprintf(&input, "line %d %s\n", i, strings.Repeat("x", i%50))
	}
	logger := exec.Command("s6-log", "n1000", "s4096", "T", dir)
	logger.Env = append(os.Environ(), "TZ=UTC")
	logger.Stdin = &input
	r := watch(t, Source{Dir: dir})
	if err := logger.Start(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for deadline := time.Now().Add(patience); len(got) < count && time.Now().Before(deadline); {
		for _, l := range next(t, r) {
			number, _, _ := strings.Cut(strings.TrimPrefix(l.Text, "line "), " ")
			got = append(got, number)
			if age := time.Since(l.Time); age < -time.Minute || age > time.Hour {
				t.Fatalf("%q was stamped %s", l.Raw, l.Time)
			}
		}
	}
	if err := logger.Wait(); err != nil {
		t.Error(err)
	}
	var want []string
	for i := range count {
		want = append(want, fmt.Sprint(i))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d lines of %d, or not in their order", len(got), count)
	}
	if rotated, _ := filepath.Glob(filepath.Join(dir, "@*")); len(rotated) < 10 {
		t.Errorf("%d rotations: nothing was tested", len(rotated))
	}
}

// However the bytes come in, the same lines come out, and none is too long.
func FuzzLines(f *testing.F) {
	f.Add([]byte(stamped(1, "text")+"no stamp\r\n\x00\xff\n{\"level\":\"info\",\"msg\":\"x\"}\nhalf"), 3)
	f.Add([]byte("2026-13-01 00:00:00.000000000  x\n"), 1)
	f.Fuzz(func(t *testing.T, data []byte, step int) {
		step = max(1, min(step, len(data)))
		read := func(pieces [][]byte) (lines []Line) {
			tl := &tail{}
			for _, p := range pieces {
				tl.split.feed(p, func(raw []byte, cut int) { lines = append(lines, tl.line(raw, cut)) })
			}
			return lines
		}
		whole, parts := read([][]byte{data}), read(slices.Collect(slices.Chunk(data, step)))
		if !slices.Equal(whole, parts) || len(whole) != bytes.Count(data, []byte("\n")) {
			t.Fatalf("%d lines at once, %d in pieces", len(whole), len(parts))
		}
		for _, l := range whole {
			if len(l.Raw) > MaxLine || !strings.HasSuffix(l.Raw, l.Text) || l.order.Before(l.Time) {
				t.Fatalf("%+v", l)
			}
			l.Event()
		}
	})
}
