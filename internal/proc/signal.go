package proc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hermesgw/hermes/internal/unix"
)

// endPoll is how often End looks whether its processes are gone. There is no
// event for "the last of a changing set ended"; 10 ms costs one scan of /proc.
const endPoll = 10 * time.Millisecond

// Signal sends sig to this very process. A process that is gone is no error.
// The pidfd is opened before the start time is compared, so that a reused pid
// can never be hit.
func (p Process) Signal(sig unix.Signal) error {
	if err := unix.NeedLinux(); err != nil {
		return fmt.Errorf("cannot signal process %d: %w", p.PID, err)
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // gVisor, old seccomp profiles
		return p.kill(sig)
	}
	if err != nil {
		return gone(p, err)
	}
	defer unix.Close(fd)
	if !p.Alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig); err != nil {
		return gone(p, err)
	}
	return nil
}

func (p Process) kill(sig unix.Signal) error {
	if !p.Alive() {
		return nil
	}
	return gone(p, unix.Kill(p.PID, sig))
}

func gone(p Process, err error) error {
	if err == nil || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return fmt.Errorf("cannot signal process %d: %w", p.PID, err)
}

// End makes every process that find returns end: TERM once to each, KILL to
// what is left after grace (0: KILL at once), again and again until find
// returns none, because a process may fork while it is being killed. It
// returns how many it signalled, and an error when ctx ends first.
func End(ctx context.Context, find func() []Process, grace time.Duration) (int, error) {
	if err := unix.NeedLinux(); err != nil {
		return 0, fmt.Errorf("cannot find what to end: %w", err)
	}
	told := map[Process]bool{}
	killAt := time.Now().Add(grace)
	tick := time.NewTicker(endPoll)
	defer tick.Stop()
	for {
		left := find()
		if len(left) == 0 {
			return len(told), nil
		}
		for _, p := range left {
			signalOnce(identity(p), told, time.Now().Before(killAt))
		}
		select {
		case <-ctx.Done():
			return len(told), fmt.Errorf("cannot end %d processes: %w", len(left), ctx.Err())
		case <-tick.C:
		}
	}
}

// identity drops what may change while a process lives.
func identity(p Process) Process { return Process{PID: p.PID, Start: p.Start} }

func signalOnce(p Process, told map[Process]bool, gentle bool) {
	if !gentle {
		_ = p.Signal(unix.SIGKILL) // a failure shows as a process that stays
		told[p] = true
		return
	}
	if !told[p] {
		_ = p.Signal(unix.SIGTERM)
		told[p] = true
	}
}

// BecomeSubreaper makes orphans among our descendants our children instead of
// init's. The flag survives exec (prctl(2), PR_SET_CHILD_SUBREAPER).
func BecomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot become a subreaper: %w", err)
	}
	return nil
}
