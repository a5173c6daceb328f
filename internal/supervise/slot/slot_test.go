package slot

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/testenv"
)

func writeFile(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := testenv.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "-"
	}
	return strings.TrimSpace(string(b))
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	spec := supervise.Place{Home: "/data", RunDir: "/run", BackoffMax: time.Minute, StopTimeout: 9 * time.Second}.Gateway("work", nil, false)
	if err := Write(dir, spec, WriteOptions{Binary: "/usr/local/bin/hermes", Down: true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"timeout-finish": "3000", "timeout-kill": "9000", "notification-fd": "3", "max-death-tally": "10", "down": "", "down-signal": "-",
	} {
		if got := content(t, dir, name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"run", "finish", "log/run"} {
		if to, err := os.Readlink(filepath.Join(dir, name)); err != nil || to != "/usr/local/bin/hermes" {
			t.Errorf("%s leads to %q: %v", name, to, err)
		}
	}
	got, err := ReadSpec(dir)
	if err != nil || got.Name != spec.Name || got.Mark != spec.Mark || got.StopTimeout != spec.StopTimeout || !slices.Equal(got.Args, spec.Args) {
		t.Errorf("read back %+v, %v", got, err)
	}
}

// A slot of a user's own service directory has the settings that stand there.
func TestWriteAdoptsAUsersSettings(t *testing.T) {
	for name, c := range map[string]struct {
		source map[string]string
		want   map[string]string
	}{
		"nothing set": {nil, map[string]string{
			"timeout-finish": "3000", "timeout-kill": "-", "notification-fd": "-", "down": "-", "log/run": "-", "down-signal": "-",
		}},
		"everything set": {
			map[string]string{"timeout-finish": "5000", "timeout-kill": "700", "notification-fd": "4", "down-signal": "INT", "max-death-tally": "3", "down": ""},
			map[string]string{"timeout-finish": "5000", "timeout-kill": "700", "notification-fd": "4", "down-signal": "INT", "max-death-tally": "3", "down": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			source, dir := t.TempDir(), t.TempDir()
			for file, text := range c.source {
				writeFile(t, filepath.Join(source, file), text, 0o644)
			}
			if err := Write(dir, supervise.Place{}.Service("web", source), WriteOptions{Binary: "/hermes"}); err != nil {
				t.Fatal(err)
			}
			for file, want := range c.want {
				if got := content(t, dir, file); got != want {
					t.Errorf("%s holds %q, want %q", file, got, want)
				}
			}
		})
	}
	source, dir := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(source, "log", "run"), "#!/bin/sh\n", 0o755)
	if err := Write(dir, supervise.Place{}.Service("web", source), WriteOptions{Binary: "/hermes"}); err != nil {
		t.Fatal(err)
	}
	if to, _ := os.Readlink(filepath.Join(dir, "log", "run")); to != "/hermes" {
		t.Errorf("a service with a logger: log/run leads to %q", to)
	}
}

// A record that is lost or damaged costs a counter, never a start.
func TestDamagedRecord(t *testing.T) {
	for _, text := range []string{"", "{", `{"short":"many"}`, "null", "\x00"} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, RecordFile), text, 0o644)
		if r := ReadRecord(dir); r.State != "" || r.Meter.Deaths != 0 || r.Until != nil {
			t.Errorf("%q was read as %+v", text, r)
		}
	}
	if _, err := ReadSpec(t.TempDir()); err == nil || !strings.HasPrefix(err.Error(), "cannot read slot: ") {
		t.Errorf("no slot: %v", err)
	}
}

func TestAskedIsTakenOnce(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "data", "x"), "", 0o644)
	if _, ok := TakeAsked(dir); ok {
		t.Error("something was asked for")
	}
	if err := (Asked{Kind: AskedRestart, By: "test", At: time.Now()}).Write(dir); err != nil {
		t.Fatal(err)
	}
	if a, ok := TakeAsked(dir); !ok || a.Kind != AskedRestart || a.By != "test" {
		t.Errorf("took %+v, %v", a, ok)
	}
	if _, ok := TakeAsked(dir); ok {
		t.Error("it was taken twice")
	}
}

func TestDeath(t *testing.T) {
	now, up := time.Now(), 100*time.Hour
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		args    []string
		started time.Time     // as the clock said then
		lived   time.Duration // how long ago that was; 0: as long as the clock says
		ready   time.Time
		wantUp  bool
		asked   bool
		whose   int  // the pid that was asked to end, where it is known; 6 is over
		early   bool // it was not 7, which is over as well, but the run after it: that has not noted itself
		want    supervise.Death
	}{
		"exit":                   {args: []string{"42", "0", "x"}, wantUp: true, want: supervise.Death{Code: 42}},
		"signal":                 {args: []string{"256", "9", "x"}, wantUp: true, want: supervise.Death{Signal: syscall.SIGKILL}},
		"asked":                  {args: []string{"0", "0", "x"}, wantUp: true, asked: true, want: supervise.Death{Asked: true}},
		"of this run":            {args: []string{"0", "0", "x"}, wantUp: true, asked: true, whose: 7, want: supervise.Death{Asked: true}},
		"of the run before":      {args: []string{"256", "15", "x"}, wantUp: true, asked: true, whose: 6, want: supervise.Death{Signal: syscall.SIGTERM}},
		"before it noted itself": {args: []string{"256", "15", "x"}, wantUp: true, asked: true, whose: 8, early: true, want: supervise.Death{Signal: syscall.SIGTERM, Asked: true}},
		"of the run before one that did not note itself": {args: []string{"256", "15", "x"}, wantUp: true, asked: true, whose: 7, early: true, want: supervise.Death{Signal: syscall.SIGTERM}},
		"wanted down":    {args: []string{"0", "0", "x"}, want: supervise.Death{Asked: true}},
		"ready":          {args: []string{"1", "0", "x"}, wantUp: true, started: now.Add(-2 * time.Minute), ready: now.Add(-time.Minute), want: supervise.Death{Code: 1, Lived: 2 * time.Minute, ReadyFor: time.Minute}},
		"ready long ago": {args: []string{"1", "0", "x"}, wantUp: true, started: now.Add(-time.Second), ready: now.Add(-time.Hour), want: supervise.Death{Code: 1, Lived: time.Second}},
		"never started":  {args: []string{"1", "0", "x"}, wantUp: true, ready: now.Add(-time.Hour), want: supervise.Death{Code: 1}},
		"in its pause":   {args: []string{"256", "9", "x"}, wantUp: true, started: now.Add(-time.Hour), ready: now.Add(-30 * time.Minute), early: true, want: supervise.Death{Signal: syscall.SIGKILL}},
		// The clock was set while it ran, or before it was ready.
		"a day back": {
			args: []string{"1", "0", "x"}, wantUp: true, started: now.Add(day - time.Hour), lived: time.Hour, ready: now.Add(day - 59*time.Minute),
			want: supervise.Death{Code: 1, Lived: time.Hour, ReadyFor: 59 * time.Minute},
		},
		"a day ahead": {
			args: []string{"1", "0", "x"}, wantUp: true, started: now.Add(-day - 3*time.Second), lived: 3 * time.Second, ready: now.Add(-day - 2*time.Second),
			want: supervise.Death{Code: 1, Lived: 3 * time.Second, ReadyFor: 2 * time.Second},
		},
		"a day back before it was ready":  {args: []string{"1", "0", "x"}, wantUp: true, started: now.Add(day), lived: time.Hour, ready: now.Add(-59 * time.Minute), want: supervise.Death{Code: 1, Lived: time.Hour}},
		"a day ahead before it was ready": {args: []string{"1", "0", "x"}, wantUp: true, started: now.Add(-day), lived: time.Hour, ready: now.Add(-59 * time.Minute), want: supervise.Death{Code: 1, Lived: time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "data", "x"), "", 0o644)
			ended := 6
			if c.early {
				ended = 7
			}
			if c.lived == 0 {
				c.lived = now.Sub(c.started)
			}
			if err := (Record{Started: c.started, StartedUp: up - c.lived, PID: 7, Ended: ended}).Write(dir); err != nil {
				t.Fatal(err)
			}
			if c.asked {
				if err := (Asked{AskedRestart, "test", now, c.whose}).Write(dir); err != nil {
					t.Fatal(err)
				}
			}
			c.want.At = now
			got, by, err := Entry{Dir: dir, Args: c.args}.death(s6.Status{WantUp: c.wantUp, ReadySince: c.ready}, now, up)
			if err != nil || got != c.want || (by == "test") != got.Asked && c.asked {
				t.Errorf("%+v by %q, %v; want %+v", got, by, err, c.want)
			}
		})
	}
	for _, args := range [][]string{nil, {"1"}, {"x", "0", "n"}, {"256", "x", "n"}} {
		if _, _, err := (Entry{Dir: t.TempDir(), Args: args}).death(s6.Status{}, now, up); err == nil {
			t.Errorf("%q was understood", args)
		}
	}
}

// A clock that is set makes a pause neither longer nor shorter, and what the record
// says of its end is true by the new one.
func TestClockThatIsSetMovesThePause(t *testing.T) {
	for name, jump := range map[string]time.Duration{"a day back": 24 * time.Hour, "a day ahead": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "data", "x"), "", 0o644)
			const pause = 300 * time.Millisecond
			began := time.Now()
			r := Record{State: supervise.Backoff, At: began, Until: after(began, pause)}
			if err := r.Write(dir); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- (Entry{Dir: dir}).servePause(t.Context()) }()
			moved := false
			for set := false; ; {
				select {
				case err := <-done:
					if took := time.Since(began); err != nil || !set || took < pause || took > pause+5*time.Second {
						t.Errorf("the pause of %s took %s: %v", pause, took, err)
					}
					if r := ReadRecord(dir); !moved || r.Until != nil || r.State != "" {
						t.Errorf("its end was told by the new clock: %v; the record after it: %+v", moved, r)
					}
					return
				case <-time.After(time.Millisecond):
				}
				r := ReadRecord(dir)
				switch {
				case r.Until == nil:
				case !set && time.Since(began) > pausePoll: // servePause has begun
					set = true
					r.At, r.Until = r.At.Add(jump), after(*r.Until, jump)
					if err := r.Write(dir); err != nil {
						t.Fatal(err)
					}
				case set:
					moved = moved || r.Until.Sub(began.Add(pause)).Abs() < clockSet && r.Until.Sub(r.At) == pause
				}
			}
		})
	}
}

// Nor does one that was set before the pause is begun to be served.
func TestClockSetBeforeThePause(t *testing.T) {
	now := time.Now()
	for ahead, want := range map[time.Duration]time.Duration{
		0: time.Minute, time.Second: 59 * time.Second, time.Hour: -59 * time.Minute, -24 * time.Hour: time.Minute,
	} {
		r := Record{At: now, Until: after(now, time.Minute)}
		if got := r.pause(now.Add(ahead)); got != want {
			t.Errorf("%s after the death: %s left of a minute, want %s", ahead, got, want)
		}
	}
	if got := (Record{}).pause(now); got != 0 {
		t.Errorf("no pause: %s", got)
	}
}

// Root's finish believes no link and no pipe in the place of the last words.
func TestLastWordsThatAreNoFile(t *testing.T) {
	dir := t.TempDir()
	spec := supervise.Spec{Name: "gateway-default", RunDir: dir}
	path := LastWordsPath(spec)
	target := filepath.Join(dir, "secret")
	writeFile(t, target, "secret", 0o600)
	for name, make := range map[string]func() error{
		"nothing":     func() error { return nil },
		"a link":      func() error { return os.Symlink(target, path) },
		"a hard link": func() error { return os.Link(target, path) },
		"a FIFO":      func() error { return syscall.Mkfifo(path, 0o600) },
		"a directory": func() error { return os.Mkdir(path, 0o700) },
	} {
		writeFile(t, path, "", 0o644) // and its directory
		if err := errors.Join(os.RemoveAll(path), make()); err != nil {
			t.Fatal(err)
		}
		if got := takeLastWords(spec); got != "" {
			t.Errorf("%s says %q", name, got)
		}
		_ = os.RemoveAll(path)
	}
	writeFile(t, path, strings.Repeat("x", 5000)+"ÿ", 0o644)
	if got := takeLastWords(spec); len(got) != maxLastWords || exists(path) {
		t.Errorf("took %d bytes, still there: %v", len(got), exists(path))
	}
}

func TestLastLines(t *testing.T) {
	dir := t.TempDir()
	spec := supervise.Spec{Name: "gateway-x", LogDir: dir}
	if got := lastLines(spec); got != nil {
		t.Errorf("no file: %q", got)
	}
	text := strings.Repeat("2026-01-02 03:04:05.123456789  filler\n", 1000) +
		"2026-01-02 03:04:05.123456789  one\n" +
		"2026-01-02 03:04:05.123456789  \x1b[31mtwo\x07\n" +
		"2026-01-02 03:04:05.123456789  hermes: gateway-x: exit code 1; next start in 4.0s\n" +
		"\n" + strings.Repeat("long", 100) + "\n"
	writeFile(t, filepath.Join(dir, "current"), text, 0o644)
	got := lastLines(spec)
	if len(got) != 3 || got[0] != "one" || got[1] != "?[31mtwo?" || got[2] != strings.Repeat("long", 50)+"…" {
		t.Errorf("last lines: %q", got)
	}
	if err := os.Remove(filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
	if got := lastLines(spec); got != nil {
		t.Errorf("a link was followed: %q", got)
	}
}

// A TMPDIR of the container's own is the operator's.
func TestOwnTemporaryDirectoryStays(t *testing.T) {
	spec := supervise.Place{Home: "/h", RunDir: t.TempDir()}.Gateway("work", nil, false)
	env, own, _ := Environment([]string{"TMPDIR=/big"}, spec)
	if got := makeTemp(spec, env); !slices.Contains(got, "TMPDIR=/big") || slices.Contains(own, "TMPDIR") {
		t.Errorf("%q, own %q", got, own)
	}
	if _, own, _ = Environment([]string{"TMPDIR="}, spec); !slices.Contains(own, "TMPDIR") {
		t.Errorf("an empty one is none: own %q", own)
	}
	if got := makeTemp(spec, nil); len(got) != 0 {
		t.Errorf("without a run directory: %q", got)
	}
}

// The logger's script: prefixed lines to stdout, and files where they can be written.
func TestLogScript(t *testing.T) {
	home := t.TempDir()
	spec := supervise.Place{Home: home, RunDir: t.TempDir()}.Gateway("default", nil, true)
	want := "p[default] 1 p n10 s1000000 T " + home + "/logs/gateways/default"
	if got := strings.Join(logScript(spec), " "); got != want {
		t.Errorf("script %q, want %q", got, want)
	}
	writeFile(t, filepath.Join(home, "file"), "in its place", 0o644)
	spec.LogDir = filepath.Join(home, "file")
	if got, want := logScript(spec), []string{"p[default]", "1"}; !slices.Equal(got, want) {
		t.Errorf("script %q, want %q: stdout only", got, want)
	}
}
