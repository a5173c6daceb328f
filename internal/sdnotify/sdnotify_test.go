package sdnotify_test

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/sdnotify"
)

func take(env map[string]string) *sdnotify.Manager {
	return sdnotify.Take(
		func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		func(name string) error { delete(env, name); return nil }, 42)
}

func TestSendReachesTheSocketAndTheVariablesAreGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	env := map[string]string{"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "42", "OTHER": "stays"}
	m := take(env)
	if len(env) != 1 || m.Watchdog() != 3*time.Second {
		t.Errorf("left %v, watchdog %s", env, m.Watchdog())
	}
	if err := m.Send(sdnotify.Ready, sdnotify.Status("two\nlines")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := ln.Read(buf)
	if err != nil || string(buf[:n]) != "READY=1\nSTATUS=two lines" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	ln.Close()
	if m.Send(sdnotify.Alive) == nil {
		t.Error("a manager that is gone was reached")
	}
}

func TestWithoutAManager(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"none":         {},
		"a watchdog":   {"WATCHDOG_USEC": "3000000"},
		"no path":      {"NOTIFY_SOCKET": "vsock:2:1234"},
		"empty socket": {"NOTIFY_SOCKET": ""},
	} {
		m := take(env)
		if m != nil || m.Watchdog() != 0 || m.Send(sdnotify.Ready) != nil {
			t.Errorf("%s: %+v", name, m)
		}
	}
	for usec, want := range map[string]time.Duration{"": 0, "x": 0, "-1": 0, "0": 0, "500000": 500 * time.Millisecond} {
		if got := take(map[string]string{"NOTIFY_SOCKET": "@abstract", "WATCHDOG_USEC": usec}).Watchdog(); got != want {
			t.Errorf("%q: %s", usec, got)
		}
	}
	if got := take(map[string]string{"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "9", "WATCHDOG_PID": "43"}).Watchdog(); got != 0 {
		t.Errorf("another's watchdog: %s", got)
	}
}
