package s6_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/s6/s6test"
)

func unregister(t *testing.T, scandir s6.Scandir, name string) {
	t.Helper()
	if err := scandir.Unregister(within(t), name); err != nil {
		t.Fatal(err)
	}
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestUnregisterLeavesNoProcess(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	dir := up(t, scandir, "svc", s6test.LoggedService(sleeper, "exec cat >/dev/null"))
	log := filepath.Join(dir, "log")
	if _, err := s6.Wait(within(t), log, s6.Status.Running); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, d := range []string{dir, log} {
		_, supervisor, err1 := s6.Supervised(d)
		st, err2 := s6.ReadStatus(d)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, supervisor, st.PID)
	}
	unregister(t, scandir, "svc")
	for _, pid := range pids {
		s6test.Eventually(t, fmt.Sprintf("process %d is gone", pid), func() bool { return gone(pid) })
	}
	noHiddenEntries(t, scandir)
	if err := scandir.Unregister(within(t), "svc"); !errors.Is(err, s6.ErrNotService) {
		t.Errorf("a second time: %v, want %v", err, s6.ErrNotService)
	}
}

// The last words of a service are logged: its logger ends by the end of its
// input, not by a signal.
func TestUnregisterDrainsTheLogger(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	for i := range 10 {
		out := filepath.Join(t.TempDir(), "out")
		up(t, scandir, "svc", s6test.LoggedService(
			"trap 'echo last; exit' TERM; echo first; while :; do sleep 0.01; done",
			"while read l; do echo $l; done >"+out+"; echo end >>"+out))
		s6test.Eventually(t, "the first line is logged", func() bool {
			b, _ := os.ReadFile(out)
			return strings.HasPrefix(string(b), "first\n")
		})
		unregister(t, scandir, "svc")
		if b, err := os.ReadFile(out); string(b) != "first\nlast\nend\n" || err != nil {
			t.Fatalf("round %d: the logger wrote %q, %v", i, b, err)
		}
	}
}

func TestUnregisterEndsADeafLogger(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	dir := up(t, scandir, "svc", s6test.LoggedService(sleeper, "trap '' TERM; "+sleeper))
	if _, err := s6.Wait(within(t), filepath.Join(dir, "log"), s6.Status.Running); err != nil {
		t.Fatal(err)
	}
	unregister(t, scandir, "svc")
}

// A service that ignores TERM stays registered, and can be removed later.
func TestUnregisterCanBeRepeated(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	build := withFile(s6test.Service("trap '' TERM; echo >&3; "+sleeper), "notification-fd", "3")
	dir := register(t, scandir, "svc", build)
	if _, err := s6.Wait(within(t), dir, s6.Status.Serving); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := scandir.Unregister(ctx, "svc"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Unregister: %v, want %v", err, context.DeadlineExceeded)
	}
	if st, err := s6.ReadStatus(dir); err != nil || !st.Up || st.WantUp {
		t.Errorf("status %+v, %v; want up and not wanted so", st, err)
	}
	send(t, dir, s6.Kill)
	unregister(t, scandir, "svc")
}

// Neither a link in the scan directory nor one in a service is followed.
func TestUnregisterFollowsNoLink(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	register(t, scandir, "svc", func(dir string) error {
		return errors.Join(s6test.Service(sleeper)(dir), os.Symlink(outside, filepath.Join(dir, "data")))
	})
	unregister(t, scandir, "svc")

	real := filepath.Join(t.TempDir(), "real")
	err := errors.Join(os.Mkdir(real, 0o755), s6test.Service(sleeper)(real), os.Symlink(real, scandir.Dir("linked")), scandir.Control(s6.Scan))
	if err != nil {
		t.Fatal(err)
	}
	s6test.Eventually(t, "the linked service runs", func() bool {
		st, err := s6.ReadStatus(real)
		return err == nil && st.Up
	})
	unregister(t, scandir, "linked")
	for _, path := range []string{precious, filepath.Join(real, "run")} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("removed beyond a link: %v", err)
		}
	}
	if s6.Answers(nil, real) {
		t.Error("somebody answers where no supervisor is left")
	}
	if alive, _, err := s6.Supervised(real); alive || err != nil {
		t.Errorf("Supervised = %v, %v; want false", alive, err)
	}
}

// s6-svscan forgets what is removed: more services pass through it than it
// takes at once.
func TestNothingLeaksInSvscan(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t, "-c", "2")
	for i := range 8 {
		name := fmt.Sprintf("svc-%d", i)
		register(t, scandir, name, s6test.LoggedService(sleeper, "exec cat >/dev/null"))
		unregister(t, scandir, name)
	}
}

// Without an answer from s6-svscan, as over its limit, nothing stays behind.
func TestFailedRegistrationLeavesNothing(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t, "-c", "2")
	register(t, scandir, "a", s6test.Service(sleeper))
	register(t, scandir, "b", s6test.Service(sleeper))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := scandir.Register(ctx, "c", s6test.Service(sleeper)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("over the limit: %v, want %v", err, context.DeadlineExceeded)
	}
	broken := errors.New("broken")
	if err := scandir.Register(within(t), "d", func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a build that fails: %v, want %v", err, broken)
	}
	if names, err := scandir.Services(); len(names) != 2 || err != nil {
		t.Errorf("Services() = %q, %v; want a and b", names, err)
	}
	noHiddenEntries(t, scandir)
}

func TestRegisterRefuses(t *testing.T) {
	t.Parallel()
	never := func(string) error { t.Error("build was called"); return nil }
	scandir := s6test.Start(t)
	for _, name := range []string{"", ".", "..", ".a", "a/b", "a\nb", "s6-svscan-log", strings.Repeat("a", 201)} {
		if err := scandir.Register(within(t), name, never); err == nil {
			t.Errorf("%q was registered", name)
		}
		if err := scandir.Unregister(within(t), name); err == nil {
			t.Errorf("%q was unregistered", name)
		}
	}
	for i := range s6.MaxServices { // s6-svscan is not told to look at them
		if err := os.Mkdir(scandir.Dir(fmt.Sprintf("x%d", i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := scandir.Register(within(t), "more", never); !errors.Is(err, s6.ErrTooMany) {
		t.Errorf("over the limit: %v, want %v", err, s6.ErrTooMany)
	}
	if err := scandir.Register(within(t), "x1", never); !errors.Is(err, s6.ErrExists) {
		t.Errorf("a taken name: %v, want %v", err, s6.ErrExists)
	}
	nobody := s6.Scandir(t.TempDir())
	if err := nobody.Register(within(t), "svc", never); !errors.Is(err, s6.ErrNoScanner) {
		t.Errorf("without s6-svscan: %v, want %v", err, s6.ErrNoScanner)
	}
}

func TestAlive(t *testing.T) {
	t.Parallel()
	scandir := startPublicOrOwn(t)
	if err := scandir.Alive(); err != nil {
		t.Error(err)
	}
	if err := s6.Scandir(t.TempDir() + "/no").Alive(); !errors.Is(err, s6.ErrNoScanner) {
		t.Errorf("no directory: %v, want %v", err, s6.ErrNoScanner)
	}
	t.Run("another user's", func(t *testing.T) {
		asUser(t, 65534, func() {
			if err := scandir.Alive(); !errors.Is(err, s6.ErrDenied) {
				t.Errorf("Alive: %v, want %v", err, s6.ErrDenied)
			}
		})
	})
}

func TestAliveKnowsADeadScanner(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	if err := scandir.Control(s6.Stop); err != nil {
		t.Fatal(err)
	}
	s6test.Eventually(t, "nobody reads", func() bool { return errors.Is(scandir.Alive(), s6.ErrNoScanner) })
}
