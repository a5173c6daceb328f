// Package lease makes sure that a profile has one holder: the process that has
// the kernel's lock on <home>/gateway.lock. The kernel releases it when that
// process dies, however it dies, so there is nothing stale to clean up.
//
// What the holder writes into the file is for people and for error messages;
// nobody decides by it. A lock file that somebody else wrote, such as the
// predecessor's in an existing home, is locked and left as it is; the holder is
// then named in a file beside it. The package does not ask a holder to leave;
// control does.
//
//	l, err := lease.TryAcquire(home, lease.Holder{Host: "web-1", PID: os.Getpid()})
//	if held := (*lease.HeldError)(nil); errors.As(err, &held) {
//		fmt.Println("held by", held.Holder.Host)
//	}
//	defer l.Release()
package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/unix"
)

// FileName is the lock's name in the home of a profile.
const FileName = "gateway.lock"

// besideName is where the holder is named when the lock file holds what is not
// ours to change.
const besideName = FileName + ".holder"

// RetryEvery is how often Acquire tries again: a quarter of the second within
// which a standby must have taken over.
const RetryEvery = 250 * time.Millisecond

// lockRetry is how often Lock tries again: the work it waits for takes milliseconds.
const lockRetry = 20 * time.Millisecond

// maxHolder bounds what is read back from the file; a holder is some 200 bytes.
const maxHolder = 4096

// Holder names who holds a profile. All but the lock itself is information: a
// file that another container wrote may be wrong about anything.
type Holder struct {
	Host       string    `json:"host"`
	PID        int       `json:"pid"` // in the holder's own pid namespace
	Since      time.Time `json:"since"`
	RunDir     string    `json:"run_dir"`
	Supervised bool      `json:"supervised"` // a slot restarts it
}

// HeldError says that another process has the lock. Holder is zero when the
// holder had not written its name yet.
type HeldError struct {
	Path   string
	Holder Holder
}

// Error names the holder as far as it is known.
func (e *HeldError) Error() string {
	if e.Holder.Host == "" {
		return fmt.Sprintf("%q is locked by another process", e.Path)
	}
	return fmt.Sprintf("%q is locked by %s (pid %d) since %s",
		e.Path, e.Holder.Host, e.Holder.PID, e.Holder.Since.UTC().Format(time.RFC3339))
}

// Lease is a held lock.
type Lease struct {
	file    *os.File
	name    *os.File // holds the holder's name: file, or the one beside a foreign file
	release sync.Once
}

// TryAcquire takes the lock in home or fails at once: with *HeldError when
// another process has it, and with ErrNoLocks (exit code 78) when the
// filesystem has none that work. It is not for two uses in one process: flock belongs
// to an open file, so the second is refused like a stranger.
func TryAcquire(home string, self Holder) (*Lease, error) {
	path := filepath.Join(home, FileName)
	f, err := take(path)
	if err != nil {
		return nil, err
	}
	l := &Lease{file: f, name: f}
	if foreign(f) {
		if l.name, err = lockBeside(home); err != nil {
			f.Close()
			return nil, err
		}
	}
	if err := write(l.name, self); err != nil {
		l.Release()
		return nil, fmt.Errorf("cannot write the holder into %q: %w", l.name.Name(), err)
	}
	return l, nil
}

// Lock takes the lock on the file at path, which is made if it is missing, and
// writes nothing into it. It tries every lockRetry until ctx ends, and then says
// who has it as *HeldError. It is for a short piece of work that two commands
// must not do at once, not for a profile: that is TryAcquire's.
func Lock(ctx context.Context, path string) (*Lease, error) {
	tick := time.NewTicker(lockRetry)
	defer tick.Stop()
	for {
		f, err := take(path)
		var held *HeldError
		switch {
		case err == nil:
			return &Lease{file: f, name: f}, nil
		case !errors.As(err, &held):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-tick.C:
		}
	}
}

// take opens and locks path, or fails at once.
func take(path string) (*os.File, error) {
	f, err := openLock(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock of the profile: %w; the data directory must be writable for this user", err)
	}
	if err := claim(f, lock); err != nil {
		defer f.Close()
		return nil, explain(f, err)
	}
	return f, nil
}

// openLock opens the lock file, for reading where it may not be written: that is
// enough to lock it. Go opens close-on-exec: a child that outlives us must not
// keep the lock.
func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, os.ErrPermission) {
		if old, readErr := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|syscall.O_NONBLOCK, 0); readErr == nil {
			return old, nil
		}
	}
	return f, err
}

// foreign says whether the locked file holds what no holder of ours wrote, or
// may not be written at all.
func foreign(f *os.File) bool {
	if mode, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err == nil && mode&unix.O_ACCMODE == unix.O_RDONLY {
		return true
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxHolder))
	return err == nil && len(data) > 0 && read(f).Host == ""
}

// lockBeside opens the file beside a foreign lock and locks it too, so that a
// name in it counts as long as its writer lives.
func lockBeside(home string) (*os.File, error) {
	path := filepath.Join(home, besideName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open %q: %w; the data directory must be writable for this user", path, err)
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %q: %w", path, err)
	}
	return f, nil
}

// Acquire takes the lock, trying every RetryEvery until ctx ends. held, when
// not nil, is called each time the holder turns out to be another one than
// before, from this goroutine.
func Acquire(ctx context.Context, home string, self Holder, held func(Holder)) (*Lease, error) {
	tick := time.NewTicker(RetryEvery)
	defer tick.Stop()
	var last *Holder
	for {
		l, err := TryAcquire(home, self)
		var taken *HeldError
		if !errors.As(err, &taken) {
			return l, err
		}
		if held != nil && (last == nil || *last != taken.Holder) {
			held(taken.Holder)
		}
		last = &taken.Holder
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// Release gives the lock back; it is idempotent. The file stays: removing it
// would let two processes lock two different files of the same name.
func (l *Lease) Release() {
	l.release.Do(func() {
		_ = l.name.Truncate(0) // it is of no use once nobody holds the lock
		_ = l.name.Close()
		_ = l.file.Close() // twice the same file is no matter
	})
}

// ErrNoLocks is a filesystem on which the lock of one holder does not keep out
// another.
var ErrNoLocks = errors.New("its filesystem has no working locks")

// Probe tries the locks of the filesystem of dir on a file of its own, which it
// removes again. An error that is ErrNoLocks says that they do not work; any
// other, that they could not be tried. other has another process run Try on the
// file; nil leaves that out.
func Probe(dir string, other func(path string) (got bool, err error)) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return fmt.Errorf("cannot try the locks of %q: %w", dir, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := claim(f, lock); err != nil {
		return explain(f, err)
	}
	if other == nil {
		return nil
	}
	got, err := other(f.Name())
	if err == nil && got {
		err = noLocks(f, ErrNoLocks)
	}
	return err
}

// Try says whether the lock on path could be had right now; it keeps nothing.
func Try(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false, fmt.Errorf("cannot try the lock: %w", err)
	}
	defer f.Close()
	err = lock(f)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// claim locks f and makes sure that the lock holds: some filesystems of shared
// folders say yes to everybody.
func claim(f *os.File, lock func(*os.File) error) error {
	if err := lock(f); err != nil {
		return err
	}
	second, err := openLock(f.Name())
	if err != nil {
		return err
	}
	defer second.Close()
	if !same(f, second) {
		return errors.New("the file was replaced meanwhile; try again")
	}
	switch err := lock(second); {
	case err == nil:
		return ErrNoLocks
	case errors.Is(err, syscall.EWOULDBLOCK):
		return nil
	default:
		return err
	}
}

func same(a, b *os.File) bool {
	one, err := a.Stat()
	if err != nil {
		return false
	}
	other, err := b.Stat()
	return err == nil && os.SameFile(one, other)
}

// lock retries a call that a signal interrupted.
func lock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// explain turns the kernel's refusal into words.
func explain(f *os.File, err error) error {
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return &HeldError{Path: f.Name(), Holder: holder(f)}
	case errors.Is(err, ErrNoLocks):
		return noLocks(f, err)
	case errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EOPNOTSUPP):
		return noLocks(f, fmt.Errorf("%w (%w)", ErrNoLocks, err))
	default:
		return fmt.Errorf("cannot lock %q: %w", f.Name(), err)
	}
}

// noLocks is final, and so carries 78: without a lock nobody can promise that
// a profile has one holder.
func noLocks(f *os.File, err error) error {
	return exitcode.With(exitcode.Config, fmt.Errorf(
		"cannot lock %q: %w, so two gateways could run at once: put the data directory on a filesystem that has them, such as a named volume", f.Name(), err))
}

func write(f *os.File, h Holder) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(append(data, '\n'), 0)
	return err
}

// holder reads who holds the locked f: from f itself, else from the file beside
// it, whose name counts only while its writer has that one locked too.
func holder(f *os.File) Holder {
	if h := read(f); h.Host != "" {
		return h
	}
	beside, err := os.OpenFile(filepath.Join(filepath.Dir(f.Name()), besideName), os.O_RDONLY|unix.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Holder{}
	}
	defer beside.Close()
	if !errors.Is(lock(beside), syscall.EWOULDBLOCK) {
		return Holder{}
	}
	return read(beside)
}

// read returns the zero Holder for a file that is empty or half written.
func read(f *os.File) Holder {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxHolder))
	if err != nil {
		return Holder{}
	}
	var h Holder
	if json.Unmarshal(data, &h) != nil {
		return Holder{}
	}
	return h
}
