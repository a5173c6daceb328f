package proc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// As Linux 6.1 writes them.
const (
	eventsV2  = "low 0\nhigh 0\nmax 37\noom 4\noom_kill 3\noom_group_kill 0\n"
	controlV1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"
	oldV1     = "oom_kill_disable 0\nunder_oom 0\n" // before 4.13
)

func TestParseOOMKills(t *testing.T) {
	for text, want := range map[string]uint64{eventsV2: 3, controlV1: 5, "oom_kill 0\n": 0, "oom_kill 18446744073709551615": 1<<64 - 1} {
		if n, ok := parseOOMKills(text); !ok || n != want {
			t.Errorf("%q: %d, %v; want %d", text, n, ok, want)
		}
	}
	for _, text := range []string{"", oldV1, "oom_kill", "oom_kill \n", "oom_kill -1\n", "oom_kill x", "oom_kill_disable 1\n", "oom_kill 18446744073709551616"} {
		if n, ok := parseOOMKills(text); ok {
			t.Errorf("%q was read as %d", text, n)
		}
	}
}

func FuzzParseOOMKills(f *testing.F) {
	for _, text := range []string{eventsV2, controlV1, oldV1, "", "oom_kill \x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, ok := parseOOMKills(text); ok && !strings.Contains(text, "oom_kill ") {
			t.Errorf("%q has no count", text)
		}
		if path := cgroupPath(text); !filepath.IsAbs(path) || strings.Contains(path+"/", "/../") {
			t.Errorf("%q leads to %q", text, path)
		}
	})
}

func TestCgroupPath(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/docker-4f1c.scope\n":  "/system.slice/docker-4f1c.scope",
		"12:memory:/docker/4f\n0::/x\n":         "/x",
		"0::/../../escape\n":                    "/escape",
		"0::/\n":                                "/",
		"12:memory:/docker/4f\n3:cpu:/docker\n": "/",
		"":                                      "/",
	} {
		if got := cgroupPath(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestOOMKills(t *testing.T) {
	for name, c := range map[string]struct {
		path, text string
		want       uint64
		ok         bool
	}{
		"v2":      {"memory.events", eventsV2, 3, true},
		"v1":      {"memory/memory.oom_control", controlV1, 5, true},
		"old v1":  {"memory/memory.oom_control", oldV1, 0, false},
		"neither": {"cpu.stat", "", 0, false},
	} {
		root := t.TempDir()
		path := filepath.Join(root, c.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if n, ok := OOMKills(root); n != c.want || ok != c.ok {
			t.Errorf("%s: %d, %v; want %d, %v", name, n, ok, c.want, c.ok)
		}
	}
}
