package s6

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/unix"
)

// Event is a byte that s6-supervise sends to the subscribers of its service.
type Event byte

// The events. The status file was written before each of them.
const (
	SupervisorStarted Event = 's'
	Started           Event = 'u' // run was started
	BecameReady       Event = 'U'
	Died              Event = 'd' // run ended; finish is next
	Finished          Event = 'D' // finish ended
	FailedForever     Event = 'O' // finish exited 125; a D follows
	SupervisorExited  Event = 'x'
)

// Subscription receives the events of one service. Events are hints: a reader
// that lags by 64 KiB loses some, so look at the status after each. Not safe
// for concurrent use, except that Close may interrupt a wait.
type Subscription struct {
	dir     string   // the service directory
	events  *os.File // its event directory, which stays ours when dir is renamed
	name    string   // of the FIFO in there
	fifo    *os.File
	pending []byte // read and not handed out
	close   func() error
}

// Subscribe starts to collect the events of the service directory dir, also
// before its supervisor runs (the directory event must exist). Close ends it; a
// FIFO left by a killed process is removed by the supervisor's next event.
//
// Errors: ErrNotService, ErrNotSupervised (no event directory), ErrDenied.
func Subscribe(dir string) (*Subscription, error) {
	s, err := subscribe(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot subscribe to service %q: %w", dir, classify(dir, err))
	}
	return s, nil
}

// subscribe follows the protocol of a fifodir: the FIFO gets a reader under a
// hidden name first, because a notifier removes what nobody reads.
func subscribe(dir string) (*Subscription, error) {
	// O_PATH: a subscriber may have no right to list the directory.
	fd, err := unix.Open(filepath.Join(dir, "event"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	events := os.NewFile(uintptr(fd), "event")
	name := fifoName(time.Now())
	fifo, err := makeFIFO(events, "."+name)
	if err == nil {
		if err = unix.Renameat(fd, "."+name, fd, name); err != nil {
			fifo.Close()
		}
	}
	if err != nil {
		_ = unix.Unlinkat(fd, "."+name, 0) // nothing, if it was never made
		events.Close()
		return nil, err
	}
	s := &Subscription{dir: dir, events: events, name: name, fifo: fifo}
	s.close = sync.OnceValue(s.release)
	return s, nil
}

// fifoName is exactly 39 characters: "ftrig1:", "@", the time as 24 hex
// digits, ":" and 6 random ones. The notifier ignores every other form.
func fifoName(now time.Time) string {
	return "ftrig1:@" + hex.EncodeToString(appendTime(nil, now)) + ":" + rand.Text()[:6]
}

// makeFIFO makes the FIFO name in dir and opens it. Opened for reading and
// writing it never reports an end of file when a notifier closes it.
func makeFIFO(dir *os.File, name string) (*os.File, error) {
	fd := int(dir.Fd())
	if err := unix.Mkfifoat(fd, name, 0o600); err != nil {
		return nil, err
	}
	got, err := unix.Openat(fd, name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := admitNotifier(fd, got); err != nil {
		unix.Close(got)
		return nil, err
	}
	return os.NewFile(uintptr(got), name), nil
}

// admitNotifier lets the supervisor write to the open FIFO fifo in dir. It runs as the owner of the
// event directory, or it could not list it. As root we give the FIFO to that
// user; any other user can only open the FIFO to writers, all of whom must know
// its random name in a directory that only members list.
func admitNotifier(dir, fifo int) error {
	var d, f unix.Stat_t
	if err := unix.Fstat(dir, &d); err != nil {
		return err
	}
	if err := unix.Fstat(fifo, &f); err != nil {
		return err
	}
	if f.Mode&unix.S_IFMT != unix.S_IFIFO || f.Nlink != 1 || int(f.Uid) != os.Geteuid() {
		return unix.EACCES // somebody put a file of theirs in its place
	}
	if d.Uid == f.Uid {
		return nil
	}
	if os.Geteuid() == 0 && unix.Fchown(fifo, int(d.Uid), -1) == nil {
		return nil
	}
	return unix.Fchmod(fifo, 0o622)
}

// Next waits for one event. Errors: ctx.Err(), os.ErrClosed.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	if len(s.pending) == 0 {
		if err := s.fill(ctx); err != nil {
			return 0, err
		}
	}
	e := Event(s.pending[0])
	s.pending = s.pending[1:]
	return e, nil
}

// fill reads what is there, or waits until there is something.
func (s *Subscription) fill(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.fifo.SetReadDeadline(time.Time{}); err != nil {
		return os.ErrClosed // nothing else can be wrong with a FIFO's deadline
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = s.fifo.SetReadDeadline(time.Unix(1, 0))
	})
	buf := make([]byte, 64)
	n, err := s.fifo.Read(buf)
	if !stop() {
		<-interrupted // or it would end the next read instead
	}
	s.pending = buf[:n]
	if n > 0 {
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ctx.Err()
	}
	return err
}

// Close ends the subscription and removes its FIFO. Idempotent.
func (s *Subscription) Close() error { return s.close() }

func (s *Subscription) release() error {
	err := unix.Unlinkat(int(s.events.Fd()), s.name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the whole service is gone
	}
	return errors.Join(err, s.fifo.Close(), s.events.Close())
}

// resyncEvery is how often a wait looks at the state without an event. It is a
// safety net: the notifier drops bytes that it cannot write at once, and says
// nothing when it is killed or when only what is wanted changes.
const resyncEvery = 500 * time.Millisecond

// follow calls check at first (with event 0), after each event, and every
// resyncEvery (0 again), until it is done or fails.
func (s *Subscription) follow(ctx context.Context, check func(Event) (done bool, err error)) error {
	var event Event
	for {
		if done, err := check(event); done || err != nil {
			return err
		}
		var err error
		if event, err = s.nextOrResync(ctx); err != nil {
			return err
		}
	}
}

func (s *Subscription) nextOrResync(ctx context.Context) (Event, error) {
	short, cancel := context.WithTimeout(ctx, resyncEvery)
	defer cancel()
	e, err := s.Next(short)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		return 0, nil
	}
	return e, err
}

// awaitSupervisor waits for the first supervisor of a new service: for its
// event, which comes after lock and status exist, or finds it alive if that
// event was lost.
func (s *Subscription) awaitSupervisor(ctx context.Context) error {
	for {
		event, err := s.nextOrResync(ctx)
		if err != nil || event == SupervisorStarted {
			return err
		}
		alive, _, err := Supervised(s.dir)
		if err != nil {
			return err
		}
		if _, err = ReadStatus(s.dir); alive && err == nil {
			return nil
		}
	}
}

// supervisorGap is how long a supervisor may be missing: s6-svscan starts a
// killed one again after a second.
const supervisorGap = 2500 * time.Millisecond

// Wait blocks until done says yes to a status of the service, and returns that
// status. To be sure of the effect of a command, subscribe, Send, then Wait: no
// change in between is missed.
//
// Errors: ctx.Err(); ErrNotSupervised at once; ErrPermanentFailure and
// ErrSupervisorGone when that happens while waiting and done still says no.
func (s *Subscription) Wait(ctx context.Context, done func(Status) bool) (Status, error) {
	w := waiter{dir: s.dir, done: done}
	if err := s.follow(ctx, w.check); err != nil {
		return w.status, fmt.Errorf("cannot wait for service %q: %w", s.dir, err)
	}
	return w.status, nil
}

// Wait subscribes to the service directory dir and waits, see Subscription.Wait.
func Wait(ctx context.Context, dir string, done func(Status) bool) (Status, error) {
	s, err := Subscribe(dir)
	if err != nil {
		return Status{}, err
	}
	defer s.Close()
	return s.Wait(ctx, done)
}

// waiter decides after each event whether a wait is over.
type waiter struct {
	dir    string
	done   func(Status) bool
	status Status
	seen   time.Time // when the supervisor was alive last
	lost   bool      // it was missing at the last look
}

func (w *waiter) check(e Event) (bool, error) {
	alive, _, err := Supervised(w.dir)
	if err != nil {
		return false, err
	}
	if !alive && e != SupervisorExited {
		w.lost = true
		return false, w.missing() // its status is a dead one's
	}
	w.seen = time.Now()
	if w.lost && e != SupervisorStarted {
		w.lost = false
		return false, nil // a new supervisor, maybe still with the status of the one before: look again
	}
	w.lost = false
	w.status, err = ReadStatus(w.dir)
	switch {
	case errors.Is(err, ErrNotSupervised):
		return false, nil // it starts right now for the first time
	case err != nil:
		return false, err
	case w.done(w.status):
		return true, nil
	case e == FailedForever:
		return false, ErrPermanentFailure
	case e == SupervisorExited:
		return false, ErrSupervisorGone
	}
	return false, nil
}

// missing says how bad it is that there is no supervisor.
func (w *waiter) missing() error {
	switch {
	case w.seen.IsZero():
		return ErrNotSupervised
	case time.Since(w.seen) > supervisorGap:
		return ErrSupervisorGone
	}
	return nil
}
