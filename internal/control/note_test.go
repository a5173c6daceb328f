package control_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/supervise"
)

// noted is a socket beside which this process has left a note.
func noted(t testing.TB) (socket string, ln *control.Listener) {
	t.Helper()
	socket = control.SocketPath(t.TempDir(), "work")
	ln, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	at := time.Unix(100, 0).UTC()
	err = ln.Publish(control.Note{
		State: supervise.Degraded, Reason: "telegram: token", Since: at,
		Platforms: []supervise.Platform{{Name: "telegram", State: supervise.Degraded, Reason: "token", Since: at}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return socket, ln
}

// doubted fails if the note beside socket is believed.
func doubted(t testing.TB, what, socket string) {
	t.Helper()
	if n, _, err := control.ReadNote(nil, socket); err == nil {
		t.Errorf("%s: the note is believed: %+v", what, n)
	}
}

// age sets when the note was last confirmed.
func age(t testing.TB, socket string, d time.Duration) {
	t.Helper()
	at := time.Now().Add(-d)
	if err := errors.Join(os.Chtimes(socket+".note", at, at), os.Chtimes(socket, at, at)); err != nil {
		t.Fatal(err)
	}
}

// rewrite changes one key of the note.
func rewrite(t *testing.T, socket, key string, value any) {
	t.Helper()
	var n map[string]any
	b, err := os.ReadFile(socket + ".note")
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	n[key] = value
	if value == nil {
		delete(n, key)
	}
	if b, _ = json.Marshal(n); err == nil {
		err = os.WriteFile(socket+".note", b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestNoteTellsWhatWasPublished(t *testing.T) {
	socket, ln := noted(t)
	n, p, err := control.ReadNote(nil, socket)
	if err != nil || n.State != supervise.Degraded || n.Reason != "telegram: token" || n.Since != time.Unix(100, 0).UTC() ||
		len(n.Platforms) != 1 || n.Platforms[0].Name != "telegram" {
		t.Fatalf("%+v, %v", n, err)
	}
	if n.PID != os.Getpid() || p.PID != n.PID || p.Resident < 1<<20 {
		t.Errorf("note of %d, process %+v", n.PID, p)
	}
	if err := ln.Publish(control.Note{State: supervise.Ready, Platforms: []supervise.Platform{}}); err != nil {
		t.Fatal(err)
	}
	if n, _, err := control.ReadNote(nil, socket); err != nil || n.State != supervise.Ready {
		t.Errorf("after a change: %+v, %v", n, err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ln.Publish(n); err != nil {
		t.Error(err)
	}
	ln.Beat()
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(socket), "*")); len(left) != 1 { // the lock
		t.Errorf("after the end there are %q", left)
	}
}

// A heartbeat is what a note lives on; a clock that was set only costs a question.
func TestNoteWithoutAHeartbeatIsDoubted(t *testing.T) {
	socket, ln := noted(t)
	for name, d := range map[string]time.Duration{"13 seconds old": 13 * time.Second, "of tomorrow": -24 * time.Hour} {
		age(t, socket, d)
		doubted(t, name, socket)
		ln.Beat()
		if _, _, err := control.ReadNote(nil, socket); err != nil {
			t.Errorf("%s, then confirmed: %v", name, err)
		}
	}
}

func TestNoteOfAnotherProcessIsDoubted(t *testing.T) {
	socket, _ := noted(t)
	rewrite(t, socket, "start", 1)
	doubted(t, "the pid was given to another", socket)

	sleeper := exec.Command("sleep", "60")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := proc.Read(sleeper.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, socket, "pid", p.PID)
	rewrite(t, socket, "start", p.Start)
	if _, _, err := control.ReadNote(nil, socket); err != nil {
		t.Fatalf("of a living process: %v", err)
	}
	stop := func(what string, s syscall.Signal, state byte) {
		if err := sleeper.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if now, err := proc.Read(p.PID); err != nil || now.State == state {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("it is not %s", what)
			}
		}
		doubted(t, what, socket)
	}
	stop("stopped", syscall.SIGSTOP, 'T')
	stop("a zombie", syscall.SIGKILL, 'Z')
	_ = sleeper.Wait()
	doubted(t, "gone", socket)
}

func TestForgedNotesAreDoubted(t *testing.T) {
	for name, forge := range map[string]func(t *testing.T, path string){
		"a link": func(t *testing.T, path string) {
			if err := errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)); err != nil {
				t.Fatal(err)
			}
		},
		"a FIFO": func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
				t.Fatal(err)
			}
		},
		"huge": func(t *testing.T, path string) {
			if err := os.Truncate(path, 1<<30); err != nil {
				t.Fatal(err)
			}
		},
		"half": func(t *testing.T, path string) {
			if err := os.Truncate(path, 40); err != nil {
				t.Fatal(err)
			}
		},
		"none": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		socket, _ := noted(t)
		forge(t, socket+".note")
		doubted(t, name, socket)
	}
	for key, value := range map[string]any{"state": "parked", "schema": 2, "more": 1, "platforms": nil, "pid": -1} {
		socket, _ := noted(t)
		rewrite(t, socket, key, value)
		doubted(t, fmt.Sprintf("%s is %v", key, value), socket)
	}
}

// A note that cannot be replaced must not stay: it tells of a state that is over.
func TestNoteThatCannotBeReplacedGoes(t *testing.T) {
	socket, ln := noted(t)
	err := ln.Publish(control.Note{State: supervise.Ready, Reason: strings.Repeat("x", 1<<20), Platforms: []supervise.Platform{}})
	if err == nil {
		t.Error("a note longer than anybody reads was left")
	}
	if _, err := os.Lstat(socket + ".note"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the note of before is there: %v", err)
	}
}

func TestListenRemovesTheNoteOfTheDead(t *testing.T) {
	socket := control.SocketPath(t.TempDir(), "work")
	if err := errors.Join(os.MkdirAll(filepath.Dir(socket), 0o700), os.WriteFile(socket+".note", []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	ln, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := os.Lstat(socket + ".note"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is there still: %v", err)
	}
}

func FuzzReadNote(f *testing.F) {
	socket, _ := noted(f)
	b, err := os.ReadFile(socket + ".note")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}"))
	f.Add([]byte(`{"schema":1,"pid":1,"state":"ready","platforms":[]}{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(socket+".note", b, 0o600); err != nil {
			t.Fatal(err)
		}
		n, p, err := control.ReadNote(nil, socket)
		if err == nil && (p.PID != n.PID || p.Start != n.Start || n.Platforms == nil || n.State == "") {
			t.Errorf("%q is believed as %+v", b, n)
		}
	})
}
