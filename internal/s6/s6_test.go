package s6_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/s6/s6test"
	"github.com/hermesgw/hermes/internal/testenv"
	"golang.org/x/sys/unix"
)

// asUser runs f on a thread of its own that is user uid, and ends the thread.
// It skips the test unless root runs it.
func asUser(t *testing.T, uid int, f func()) {
	t.Helper()
	testenv.Need(t, "root")
	var errno syscall.Errno
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if errno = becomeUser(uid); errno == 0 {
			f()
		}
	}()
	<-done
	if errno != 0 {
		t.Fatalf("cannot become user %d: %v", uid, errno)
	}
}

// becomeUser changes the calling thread only, as the functions of package
// syscall would not.
func becomeUser(uid int) syscall.Errno {
	const same = ^uintptr(0)
	_, _, err1 := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
	_, _, err2 := unix.RawSyscall(unix.SYS_SETRESGID, same, uintptr(uid), same)
	_, _, err3 := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same)
	return max(err1, err2, err3)
}

// startPublic starts an s6-svscan whose directory other users may enter, as
// they may not below t.TempDir.
func startPublic(t *testing.T) s6.Scandir {
	t.Helper()
	return s6test.StartAs(t, 0)
}

// every calls the functions that look at a service or command it.
func every(dir string) map[string]error {
	_, errStatus := s6.ReadStatus(dir)
	_, errDeaths := s6.ReadDeaths(dir)
	_, _, errSupervised := s6.Supervised(dir)
	_, errSubscribe := s6.Subscribe(dir)
	return map[string]error{
		"Send": s6.Send(dir, s6.Up), "ReadStatus": errStatus, "ReadDeaths": errDeaths,
		"Supervised": errSupervised, "Subscribe": errSubscribe,
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	scandir := startPublicOrOwn(t)
	dir := register(t, scandir, "svc", s6test.Service(sleeper))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, dir string, want error) {
		t.Helper()
		for name, err := range every(dir) {
			if !errors.Is(err, want) || (err != nil && !strings.Contains(err.Error(), dir)) {
				t.Errorf("%s: %v; want %v, naming %q", name, err, want, dir)
			}
		}
	}
	t.Run("no directory", func(t *testing.T) { check(t, filepath.Join(t.TempDir(), "no"), s6.ErrNotService) })
	t.Run("a file", func(t *testing.T) { check(t, file, s6.ErrNotService) })
	t.Run("never supervised", func(t *testing.T) { checkNever(t, t.TempDir()) })
	t.Run("another user's", func(t *testing.T) {
		asUser(t, 65534, func() { check(t, dir, s6.ErrDenied) })
	})
}

// startPublicOrOwn is startPublic as root and Start as anybody else.
func startPublicOrOwn(t *testing.T) s6.Scandir {
	t.Helper()
	if os.Geteuid() == 0 {
		return startPublic(t)
	}
	return s6test.Start(t)
}

func checkNever(t *testing.T, dir string) {
	t.Helper()
	for name, err := range every(dir) {
		want := s6.ErrNotSupervised
		if name == "Supervised" {
			want = nil // the answer is no, which is no error
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", name, err, want)
		}
	}
}

func TestSendToADeadSupervisor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	control := filepath.Join(dir, "supervise", "control")
	if err := errors.Join(os.Mkdir(filepath.Dir(control), 0o700), unix.Mkfifo(control, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s6.Send(dir, s6.Up); !errors.Is(err, s6.ErrNotSupervised) {
		t.Errorf("Send: %v, want %v", err, s6.ErrNotSupervised)
	}
}

func TestSendToAHangingSupervisor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	control := filepath.Join(dir, "supervise", "control")
	if err := errors.Join(os.Mkdir(filepath.Dir(control), 0o700), unix.Mkfifo(control, 0o600)); err != nil {
		t.Fatal(err)
	}
	deaf, err := os.OpenFile(control, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	for err == nil {
		err = s6.Send(dir, s6.Command(strings.Repeat("u", 60)))
	}
	if !errors.Is(err, s6.ErrBusy) {
		t.Errorf("Send: %v, want %v", err, s6.ErrBusy)
	}
}

func TestSendWritesToNothingButAFIFO(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	control := filepath.Join(dir, "supervise", "control")
	if err := errors.Join(os.Mkdir(filepath.Dir(control), 0o700), os.WriteFile(control, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := s6.Send(dir, s6.Up); !errors.Is(err, s6.ErrNotService) {
		t.Errorf("Send: %v, want %v", err, s6.ErrNotService)
	}
	if b, err := os.ReadFile(control); len(b) != 0 || err != nil {
		t.Errorf("the file got %q, %v", b, err)
	}
	if err := s6.Send(dir, s6.Command(strings.Repeat("u", 64))); err == nil {
		t.Error("64 commands were accepted")
	}
}

func TestDeathsAreCounted(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	dir := up(t, scandir, "svc", s6test.Service(sleeper))
	sub := subscribe(t, dir)
	send(t, dir, s6.Kill)
	await(t, sub, func(st s6.Status) bool { return st.LastExit.Signal() == syscall.SIGKILL })
	s6test.Eventually(t, "the death is in the tally", func() bool {
		deaths, err := s6.ReadDeaths(dir)
		return err == nil && len(deaths) == 1 && deaths[0].Signal == syscall.SIGKILL && deaths[0].Code == 137
	})
}
