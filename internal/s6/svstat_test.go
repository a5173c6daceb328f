package s6_test

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/s6/s6test"
	"pgregory.net/rapid"
)

// svstat is what s6-svstat says about dir.
func svstat(t *rapid.T, dir string) string {
	out, err := exec.Command("s6-svstat", "-o", "up,wantedup,ready,paused,pid,exitcode,signum,updownsince,readysince", dir).Output()
	if err != nil {
		t.Fatalf("s6-svstat: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// asSvstat says it in the words of s6-svstat, which prints -1 for what it does
// not know or finds meaningless now.
func asSvstat(s s6.Status) string {
	pid, code, signal := s.PID, s.LastExit.Code(), int(s.LastExit.Signal())
	if pid == 0 || s.Finishing {
		pid = -1
	}
	if s.Up {
		code, signal = -1, -1
	}
	if signal == 0 {
		signal = -1
	}
	return fmt.Sprintf("%t %t %t %t %d %d %d %s %s", s.Up, s.WantUp, s.Serving(), s.Paused,
		pid, code, signal, tai64n(s.Since), tai64n(s.ReadySince))
}

func tai64n(t time.Time) string { return fmt.Sprintf("@%x", appendTAI64N(nil, t)) }

// same compares one moment: the file must not change while s6-svstat looks.
func same(t *rapid.T, dir string) s6.Status {
	for range 100 {
		before, err := s6.ReadStatus(dir)
		if err != nil {
			t.Fatal(err)
		}
		said := svstat(t, dir)
		after, err := s6.ReadStatus(dir)
		if err != nil {
			t.Fatal(err)
		}
		if before != after {
			continue
		}
		if got := asSvstat(after); got != said {
			t.Fatalf("%s:\ndecoded  %s\ns6-svstat %s\n(%+v)", dir, got, said, after)
		}
		return after
	}
	t.Fatalf("%s never holds still", dir)
	return s6.Status{}
}

// commands that a service may get in any state, with what they do to WantUp
// (nil: nothing).
var commands = map[s6.Command]*bool{
	s6.Up: ptr(true), s6.Down: ptr(false), s6.Once: ptr(false), s6.AtMostOnce: ptr(false),
	s6.Terminate: nil, s6.Kill: nil, s6.Hangup: nil, s6.Interrupt: nil, s6.Restart: nil,
	s6.Pause: nil, s6.Continue: nil, s6.Alarm: nil, s6.WindowChange: nil, "?": nil,
}

func ptr(b bool) *bool { return &b }

func TestAgainstSvstat(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	services := map[string]string{
		"plain":  register(t, scandir, "plain", s6test.Service(sleeper)),
		"ready":  register(t, scandir, "ready", withFile(s6test.Service("echo >&3; "+sleeper), "notification-fd", "3")),
		"logged": register(t, scandir, "logged", s6test.LoggedService(sleeper, "exec cat >/dev/null")),
		"loop":   register(t, scandir, "loop", withFile(s6test.Service("exit 3"), "finish", "#!/bin/sh\nexit 0\n")),
	}
	services["log"] = filepath.Join(services["logged"], "log")
	rapid.Check(t, func(t *rapid.T) {
		want := map[string]bool{}
		n := rapid.IntRange(1, 6).Draw(t, "n")
		for range n {
			name := rapid.SampledFrom(keys(services)).Draw(t, "service")
			command := rapid.SampledFrom(keys(commands)).Draw(t, "command")
			if err := s6.Send(services[name], command); err != nil {
				t.Fatal(err)
			}
			if w := commands[command]; w != nil {
				want[name] = *w
			}
			same(t, services[name])
		}
		for name, up := range want {
			settle(t, services[name], up)
			same(t, services[name])
		}
	})
}

// settle waits until the last wish has been heard.
func settle(t *rapid.T, dir string, up bool) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		st, err := s6.ReadStatus(dir)
		if err == nil && st.WantUp == up {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %+v, %v; want WantUp %t", dir, st, err, up)
		}
		time.Sleep(time.Millisecond)
	}
}

func keys[K ~string, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
