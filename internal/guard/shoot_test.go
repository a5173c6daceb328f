package guard_test

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/guard"
	"github.com/hermesgw/hermes/internal/proc"
)

// victimVar makes this test binary a process that can be ended; its value is
// the file for its stacks, and behind a space what it does.
const victimVar = "GUARD_TEST_VICTIM"

func TestMain(m *testing.M) {
	if plan, ok := os.LookupEnv(victimVar); ok {
		victim(plan)
	}
	os.Exit(m.Run())
}

func victim(plan string) {
	stacks, habit, _ := strings.Cut(plan, " ")
	f, err := os.Create(stacks)
	if err == nil {
		err = debug.SetCrashOutput(f, debug.CrashOptions{})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if habit == "ignores" {
		signal.Ignore(unix.SIGQUIT)
	}
	thisOneIsDeadlocked()
}

// thisOneIsDeadlocked has a name that is looked for among the stacks.
func thisOneIsDeadlocked() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR1) // else the runtime itself would notice
	var mu sync.Mutex
	mu.Lock()
	fmt.Println("here")
	mu.Lock()
}

// prey is a process that a Shooter ends.
type prey struct {
	run    guard.Run
	dir    string
	ended  chan error
	reason string
}

func newPrey(t *testing.T, habit string) *prey {
	t.Helper()
	p := &prey{dir: t.TempDir(), ended: make(chan error, 1)}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), victimVar+"="+p.stacks("gateway-work")+" "+habit, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "here\n" {
		t.Fatalf("the victim says %q: %v", line, err)
	}
	found, err := proc.Read(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	p.run = guard.Run{Slot: "gateway-work", Profile: "work", Process: proc.Process{PID: found.PID, Start: found.Start}}
	go func() { p.ended <- cmd.Wait() }()
	return p
}

func (p *prey) stacks(string) string { return filepath.Join(p.dir, "stacks") }

// shoot ends it and returns how it ended and what was kept.
func (p *prey) shoot(t *testing.T) (how, kept string) {
	t.Helper()
	s := guard.Shooter{
		Stacks: p.stacks, Dir: filepath.Join(p.dir, "kept"), Log: slog.New(slog.DiscardHandler),
		Condemn: func(_, reason string) error { p.reason = reason; return nil },
	}
	s.End(t.Context(), p.run, "guard: did not answer for 15 s")
	if p.run.Process.Alive() {
		t.Error("it lives")
	}
	how = fmt.Sprint(<-p.ended)
	files, err := filepath.Glob(filepath.Join(p.dir, "kept", "*-gateway-work.txt"))
	if err != nil || len(files) != 1 {
		t.Fatalf("kept %q, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return how, string(text)
}

func TestStacksOfTheDeafAreKept(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		p := newPrey(t, "")
		if stopped {
			if err := p.run.Process.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		how, kept := p.shoot(t)
		if how != "exit status 2" || p.reason != "guard: did not answer for 15 s" {
			t.Errorf("it ended with %s, condemned because %q", how, p.reason)
		}
		if !strings.Contains(kept, "thisOneIsDeadlocked") || !strings.Contains(kept, "): did not answer for 15 s\n") {
			t.Errorf("kept:\n%s", kept)
		}
	}
}

func TestWhoIgnoresQuitIsKilled(t *testing.T) {
	t.Parallel()
	how, kept := newPrey(t, "ignores").shoot(t)
	if how != "signal: killed" || strings.Contains(kept, "goroutine") {
		t.Errorf("%s, kept:\n%s", how, kept)
	}
}

// What another process died with before is none of this one's; a gateway that
// has no file for its stacks is ended all the same.
func TestStacksOfAnotherDeathAreNotKept(t *testing.T) {
	t.Parallel()
	p := newPrey(t, "ignores")
	if err := os.WriteFile(p.stacks("gateway-work"), []byte("goroutine of another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, kept := p.shoot(t); strings.Contains(kept, "another") {
		t.Errorf("kept:\n%s", kept)
	}
	p = newPrey(t, "")
	if err := os.Remove(p.stacks("gateway-work")); err != nil {
		t.Fatal(err)
	}
	if how, kept := p.shoot(t); how != "exit status 2" || !strings.Contains(kept, "There are no stacks") {
		t.Errorf("%s, kept:\n%s", how, kept)
	}
}

func TestOldStacksAreRemoved(t *testing.T) {
	t.Parallel()
	p := newPrey(t, "")
	kept := filepath.Join(p.dir, "kept")
	if err := os.Mkdir(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 15 {
		if err := os.WriteFile(filepath.Join(kept, fmt.Sprintf("20260101T0000%02d.000000000Z-gateway-old.txt", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.shoot(t)
	left, err := filepath.Glob(filepath.Join(kept, "*"))
	if err != nil || len(left) != 10 {
		t.Errorf("%d files are left: %v", len(left), err)
	}
	if _, err := os.Stat(filepath.Join(kept, "20260101T000014.000000000Z-gateway-old.txt")); errors.Is(err, os.ErrNotExist) {
		t.Error("the newest of the old ones is gone")
	}
}
