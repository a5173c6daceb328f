// Package s6 speaks the protocol of the s6 supervision suite: it reads the
// state of a service, sends it commands, waits for its events without a race,
// and adds services to a scan directory or removes them.
//
// It starts no process and forks no s6 tool: s6-svscan and s6-supervise run
// elsewhere, and their files, FIFOs and locks are the interface (s6 2.11 to
// 2.15). What a service is for, and whether it ought to run, is decided above.
//
//	sub, err := s6.Subscribe(dir)
//	defer sub.Close()
//	err = s6.Send(dir, s6.Up)
//	status, err := sub.Wait(ctx, s6.Status.Serving)
package s6

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hermesgw/hermes/internal/smallfile"
	"github.com/hermesgw/hermes/internal/unix"
)

// What can be wrong with a service or a scan directory. Functions wrap these
// with the name of the object.
var (
	// ErrNotService: the directory is missing, or is no directory.
	ErrNotService = errors.New("not a service directory")
	// ErrNotSupervised: no s6-supervise watches the directory now; maybe none ever did.
	ErrNotSupervised = errors.New("not supervised")
	// ErrDenied: this user may not look or command there.
	ErrDenied = errors.New("permission denied")
	// ErrBusy: the supervisor took nothing from its full control FIFO within a second.
	ErrBusy = errors.New("the supervisor does not read its commands")
	// ErrNoScanner: no s6-svscan serves the scan directory.
	ErrNoScanner = errors.New("no s6-svscan is running there")
	// ErrPermanentFailure: the service's finish asked for no restart (exit 125).
	ErrPermanentFailure = errors.New("the service failed permanently")
	// ErrSupervisorGone: s6-supervise ended while its service was waited for.
	ErrSupervisorGone = errors.New("the supervisor is gone")
	// ErrExists: the name is registered already.
	ErrExists = errors.New("the service exists already")
	// ErrTooMany: s6-svscan would ignore one more service.
	ErrTooMany = errors.New("too many services")
)

// Command is one or more bytes for s6-supervise, executed in order. Add
// constants to combine them: Down + Exit. A supervisor ignores bytes unknown
// to its version.
type Command string

// The commands of s6-svc; those of newer versions do nothing in older ones.
const (
	Up            Command = "u" // start, and restart after each death
	Down          Command = "d" // stop: the down-signal, then CONT; KILL after timeout-kill
	UpStored      Command = "U" // Up, and remove the file ./down
	DownStored    Command = "D" // Down, and make the file ./down
	Once          Command = "o" // start if down; no restart after the death
	AtMostOnce    Command = "O" // no restart after the death
	Exit          Command = "x" // the supervisor exits when the service is down
	Restart       Command = "r" // the down-signal; lost if the service is down, so use Restart + Up
	Pause         Command = "p"
	Continue      Command = "c"
	Hangup        Command = "h"
	Alarm         Command = "a"
	Interrupt     Command = "i"
	Quit          Command = "q"
	User1         Command = "1"
	User2         Command = "2"
	Terminate     Command = "t"
	Kill          Command = "k"
	Abort         Command = "b"
	WindowChange  Command = "y"
	PauseGroup    Command = "P" // to the process group, s6 2.13 and newer, as the next two
	ContinueGroup Command = "C"
	KillGroup     Command = "K"
)

// sendPatience is how long a full control FIFO may stay full. A healthy
// supervisor empties it at once, so a second means that it hangs or is stopped.
const sendPatience = time.Second

// maxCommands keeps a write atomic: below PIPE_BUF (4096 on Linux).
const maxCommands = 63

// Send writes commands (at most 63 bytes) to the supervisor of the service
// directory dir, in one atomic write. It returns when they are queued, not
// when they are done; it blocks a second at most. No command at all only asks
// whether somebody would listen.
//
// Errors: ErrNotService, ErrNotSupervised, ErrDenied, ErrBusy. Safe for
// concurrent use.
func Send(dir string, commands Command) error {
	if err := sendTo(filepath.Join(dir, "supervise", "control"), string(commands)); err != nil {
		return fmt.Errorf("cannot send %q to service %q: %w", commands, dir, classify(dir, err))
	}
	return nil
}

// sendTo writes commands to the FIFO at path.
func sendTo(path, commands string) error {
	if len(commands) > maxCommands {
		return fmt.Errorf("%d commands, at most %d go at once", len(commands), maxCommands)
	}
	f, err := openControl(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if commands == "" {
		return nil
	}
	if err := f.SetWriteDeadline(time.Now().Add(sendPatience)); err != nil {
		return err
	}
	if _, err = f.WriteString(commands); errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrBusy
	}
	return err
}

// openControl opens a control FIFO for writing. ENXIO says that nobody reads.
func openControl(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Type() != fs.ModeNamedPipe {
		err = unix.ENOTDIR // a stranger's file: what s6-svc would write into it is no command
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// classify replaces the errnos that the protocol gives a meaning by the typed
// errors of this package. A missing file in an existing directory means that
// no supervisor ever ran there.
func classify(dir string, err error) error {
	switch {
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.EPIPE):
		return ErrNotSupervised
	case errors.Is(err, fs.ErrPermission):
		return ErrDenied
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return ErrNotService
	case errors.Is(err, fs.ErrNotExist):
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return ErrNotService
		}
		return ErrNotSupervised
	}
	return err
}

// Answers says whether somebody reads the commands for dir, as its supervisor
// does all its life: the cheapest way to tell that it lives, for who looks at
// hundreds. Anything that cannot be told is false.
// dir is looked at through files, which may be nil.
func Answers(files *smallfile.Cache, dir string) bool {
	fd, err := files.Open(filepath.Join(dir, "supervise", "control"), unix.O_WRONLY)
	if err != nil { // ENXIO: nobody reads
		return false
	}
	unix.Close(fd)
	return true
}

// Supervised says whether an s6-supervise watches dir, and its pid (0 if it
// runs in a pid namespace that ours cannot see). It asks for the lock that the
// supervisor holds all its life and leaves no trace; the status file, which
// outlives a killed supervisor, proves nothing.
//
// Errors: ErrNotService, ErrDenied. Never supervised is false without an error.
func Supervised(dir string) (bool, int, error) {
	held, pid, err := lockHolder(filepath.Join(dir, "supervise", "lock"))
	if err != nil {
		if err = classify(dir, err); errors.Is(err, ErrNotSupervised) {
			return false, 0, nil
		}
		return false, 0, fmt.Errorf("cannot probe service %q: %w", dir, err)
	}
	return held, pid, nil
}

// lockHolder asks who holds the record lock on path. F_GETLK never takes the
// lock, and closing the file drops no lock of the supervisor, which is another
// process.
func lockHolder(path string) (held bool, pid int, err error) {
	fd, err := (*smallfile.Dir)(nil).Open(path, unix.O_RDONLY)
	if err != nil {
		return false, 0, err
	}
	defer unix.Close(fd)
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &lock); err != nil {
		return false, 0, err
	}
	if lock.Type == unix.F_UNLCK {
		return false, 0, nil
	}
	return true, max(int(lock.Pid), 0), nil
}
