package s6

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/hermesgw/hermes/internal/unix"
)

// Unregister stops the service name, ends its supervisor and its logger's,
// and removes its directory. It waits for as long as the service takes to stop,
// which a timeout-kill file bounds. If ctx ends before that the service is
// still registered, told to stay down, and Unregister may be called again.
//
// A symbolic link in the scan directory is removed, what it points to is not.
//
// Errors: ErrNotService (no such service), ErrDenied, ctx.Err(). Safe for
// concurrent use, in other processes too: one call does it, the others get
// ErrNotService. No s6-svscan is needed.
func (s Scandir) Unregister(ctx context.Context, name string) error {
	if err := s.unregister(ctx, name); err != nil {
		return fmt.Errorf("cannot unregister service %q: %w", name, err)
	}
	return nil
}

// unregister works in this order: the service goes down, the name goes away,
// s6-svscan notices that, and only then the supervisors end. Seen in another
// order s6-svscan would start a supervisor again, or keep the logger's pipe open
// so that it never sees an end. (Its own command "n" would also end every
// service whose directory it failed to read in that moment.)
func (s Scandir) unregister(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := stopService(ctx, s.Dir(name)); err != nil {
		return err
	}
	hidden := "." + name + ".old." + rand.Text()[:10]
	if err := os.Rename(s.Dir(name), s.Dir(hidden)); err != nil {
		return classify(s.Dir(name), err)
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	if err := endSupervisor(ctx, s.Dir(hidden), Down+Exit); err != nil {
		return err
	}
	if err := endLogger(ctx, filepath.Join(s.Dir(hidden), "log")); err != nil {
		return err
	}
	return s.removeTree(hidden)
}

// stopService brings the service down, if anything supervises it.
func stopService(ctx context.Context, dir string) error {
	sub, err := Subscribe(dir)
	if errors.Is(err, ErrNotSupervised) {
		return nil // it was never supervised
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := Send(dir, Down); err != nil {
		return ignore(err, ErrNotSupervised)
	}
	_, err = sub.Wait(ctx, func(st Status) bool { return st.Stopped() && !st.WantUp })
	return ignore(ignore(err, ErrNotSupervised), ErrSupervisorGone)
}

// ignore is err, or nil if it is the one expected.
func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// pollEvery paces the three waits that s6 sends no event for; each lasts well
// under a millisecond unless the machine is overloaded.
const pollEvery = time.Millisecond

// settle makes s6-svscan scan, and returns when it has read that command. As
// it looks at deaths before commands, it will have scanned before it learns of
// any death that comes later. Without an s6-svscan there is nothing to do.
func (s Scandir) settle(ctx context.Context) error {
	f, err := openControl(s.control())
	if err != nil {
		return ignore(ignore(err, unix.ENXIO), fs.ErrNotExist)
	}
	defer f.Close()
	if err := s.Control(Scan); err != nil {
		return ignore(err, ErrNoScanner)
	}
	return poll(ctx, func() (bool, error) {
		unread, err := unix.IoctlGetInt(int(f.Fd()), unix.TIOCINQ)
		return unread == 0, err
	})
}

// endSupervisor sends commands to the supervisor of dir and waits for its end.
func endSupervisor(ctx context.Context, dir string, commands Command) error {
	if err := Send(dir, commands); err != nil {
		return ignore(ignore(err, ErrNotSupervised), ErrNotService)
	}
	return poll(ctx, func() (bool, error) {
		alive, _, err := Supervised(dir)
		return !alive, err
	})
}

// loggerPatience is what a logger gets for each of: writing what is left
// (until the end of its input), TERM. Loggers need milliseconds; one on a full
// disk was seen to ignore both for minutes.
const loggerPatience = time.Second

// endLogger ends the logger in dir, if there is one. s6-svscan closed the pipe
// when the service's supervisor ended, so it should go by itself.
func endLogger(ctx context.Context, dir string) error {
	for _, commands := range []Command{Exit, Down + Exit} {
		short, cancel := context.WithTimeout(ctx, loggerPatience)
		err := endSupervisor(short, dir, commands)
		late := short.Err() != nil && ctx.Err() == nil
		cancel()
		if !late {
			return err
		}
	}
	return endSupervisor(ctx, dir, Down+Exit+Kill)
}

// poll calls check until it is done, fails, or ctx is over.
func poll(ctx context.Context, check func() (done bool, err error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if done, err := check(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
