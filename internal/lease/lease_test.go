package lease_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/lease"
)

// holderVar makes this test binary a holder that never lets go.
const holderVar = "LEASE_TEST_HOLD"

func TestMain(m *testing.M) {
	if home := os.Getenv(holderVar); home != "" {
		l, err := lease.TryAcquire(home, lease.Holder{Host: "first", PID: os.Getpid(), Since: time.Now()})
		if err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		// A process that waits for nothing at all ends as a deadlock.
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGTERM)
		os.Stdout.WriteString("held\n")
		<-end
		l.Release()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func hold(t *testing.T, home string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holderVar+"="+home)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("the holder says %q", line)
	}
	return cmd
}

func TestSecondIsRefusedAndToldWhoHolds(t *testing.T) {
	home := t.TempDir()
	self := lease.Holder{Host: "a", PID: 7, Since: time.Now().UTC().Truncate(time.Second), RunDir: "/run", Supervised: true}
	l, err := lease.TryAcquire(home, self)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lease.TryAcquire(home, lease.Holder{Host: "b"})
	var held *lease.HeldError
	if !errors.As(err, &held) || held.Holder != self {
		t.Fatalf("got %v, want a HeldError naming %+v", err, self)
	}
	l.Release()
	l.Release()
	again, err := lease.TryAcquire(home, lease.Holder{Host: "b"})
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	again.Release()
	if fi, err := os.Stat(filepath.Join(home, lease.FileName)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the lock file: %v, %v", fi, err)
	}
}

func TestKilledHolderIsFollowedWithinASecond(t *testing.T) {
	home := t.TempDir()
	cmd := hold(t, home)
	waiting, got := make(chan lease.Holder, 8), make(chan error, 1)
	go func() {
		l, err := lease.Acquire(t.Context(), home, lease.Holder{Host: "second"}, func(h lease.Holder) { waiting <- h })
		if err == nil {
			l.Release()
		}
		got <- err
	}()
	if h := <-waiting; h.Host != "first" || h.PID != cmd.Process.Pid {
		t.Errorf("held by %+v, want the first, pid %d", h, cmd.Process.Pid)
	}
	killed := time.Now()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(killed); took > time.Second {
		t.Errorf("took over after %s", took)
	}
	if len(waiting) != 0 {
		t.Errorf("the same holder was reported twice: %+v", <-waiting)
	}
}

// A child that outlives the holder must not keep the lock.
func TestChildrenDoNotInheritTheLock(t *testing.T) {
	home := t.TempDir()
	l, err := lease.TryAcquire(home, lease.Holder{})
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	l.Release()
	again, err := lease.TryAcquire(home, lease.Holder{})
	if err != nil {
		t.Fatal(err)
	}
	again.Release()
}

func TestAcquireEndsWithItsContext(t *testing.T) {
	home := t.TempDir()
	hold(t, home)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := lease.Acquire(ctx, home, lease.Holder{}, func(lease.Holder) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestGarbageInTheFileIsNoHolder(t *testing.T) {
	for _, garbage := range []string{"", "{", "[]", strings.Repeat("x", 1<<20)} {
		home := t.TempDir()
		path := filepath.Join(home, lease.FileName)
		hold(t, home)
		if err := os.WriteFile(path, []byte(garbage), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := lease.TryAcquire(home, lease.Holder{})
		var held *lease.HeldError
		if !errors.As(err, &held) || held.Holder != (lease.Holder{}) {
			t.Errorf("got %v", err)
		}
	}
}

func TestMissingHomeIsAnErrorWithAdvice(t *testing.T) {
	_, err := lease.TryAcquire(filepath.Join(t.TempDir(), "none"), lease.Holder{})
	if err == nil || !strings.Contains(err.Error(), "must be writable") {
		t.Errorf("got %v", err)
	}
}

// Lock waits its turn, and says so when it does not come.
func TestLockWaitsItsTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := lease.Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var held *lease.HeldError
	if _, err := lease.Lock(ctx, path); !errors.As(err, &held) {
		t.Errorf("while it is held: %v", err)
	}
	second := make(chan error, 1)
	go func() {
		l, err := lease.Lock(t.Context(), path)
		if err == nil {
			l.Release()
		}
		second <- err
	}()
	first.Release()
	if err := <-second; err != nil {
		t.Errorf("after it was released: %v", err)
	}
}

// A lock file of an existing home is locked and left as it is; who holds it is
// known all the same.
func TestForeignLockFileIsLockedAndLeftAsItIs(t *testing.T) {
	for _, mode := range []os.FileMode{0o644, 0o444} {
		home := t.TempDir()
		path := filepath.Join(home, lease.FileName)
		const record = `{"pid": 7, "kind": "somebody-else"}`
		if err := os.WriteFile(path, []byte(record), mode); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		self := lease.Holder{Host: "a", PID: 7, RunDir: "/run"}
		l, err := lease.TryAcquire(home, self)
		if err != nil {
			t.Fatal(err)
		}
		_, err = lease.TryAcquire(home, lease.Holder{Host: "b"})
		var held *lease.HeldError
		if !errors.As(err, &held) || held.Holder != self {
			t.Errorf("mode %o: got %v, want a HeldError naming %+v", mode, err, self)
		}
		l.Release()
		again, err := lease.TryAcquire(home, lease.Holder{Host: "b"})
		if err != nil {
			t.Fatalf("after the release: %v", err)
		}
		again.Release()
		after, err := os.Stat(path)
		if data, _ := os.ReadFile(path); err != nil || string(data) != record || !after.ModTime().Equal(before.ModTime()) {
			t.Errorf("mode %o: the file holds %q, changed %s (%v)", mode, data, after.ModTime(), err)
		}
	}
}

// The name beside a foreign lock is no holder once its writer is gone.
func TestNameBesideAForeignLockDiesWithItsWriter(t *testing.T) {
	home := t.TempDir()
	path := filepath.Join(home, lease.FileName)
	if err := os.WriteFile(path, []byte("123\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := hold(t, home)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	_, err = lease.TryAcquire(home, lease.Holder{Host: "b"})
	var held *lease.HeldError
	if !errors.As(err, &held) || held.Holder != (lease.Holder{}) {
		t.Errorf("got %v, want a HeldError that names nobody", err)
	}
}
