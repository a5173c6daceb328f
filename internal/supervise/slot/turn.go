package slot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

// EnvStarting tells a gateway which descriptor is its turn to start: a lock that
// it gives back when it is ready, and soon in any case.
const EnvStarting = "HERMES_STARTING_FD"

const (
	// turnLimit is how long a gateway waits for its turn; then it starts all the
	// same. Who has a turn and keeps it can make others late, no more.
	turnLimit = 10 * time.Second
	turnPoll  = 2 * time.Millisecond
)

// Turns is how many gateways of a container start at a time: enough to keep the
// processors busy, and few enough that the first ones serve long before the last
// one of a large fleet, and that they do not all want memory at once.
func Turns() int { return max(4, 2*runtime.NumCPU()) }

// takeTurn waits until fewer than Turns other gateways of the container are between
// their spawn and ready, and returns the lock that says so, nil if it waited for
// too long or there can be none. The kernel takes the lock back when its holder
// dies. Those who wait stand in line for a lock of their own; the first of them
// looks for a turn that is free. The caller is the service's user.
func takeTurn(ctx context.Context, spec supervise.Spec) *os.File {
	ctx, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	dir := rundir.Dir(spec.RunDir).Hermes()
	line, err := openLock(filepath.Join(dir, "starting.line"))
	if err != nil {
		return nil
	}
	defer line.Close()
	first := make(chan error, 1)
	go func() { first <- lock(line, unix.LOCK_EX) }()
	select {
	case err = <-first:
	case <-ctx.Done(): // exec, or the end, takes the waiting thread along
		return nil
	}
	if err != nil {
		return nil
	}
	tick := time.NewTicker(turnPoll)
	defer tick.Stop()
	for {
		for n := range Turns() {
			turn, err := openLock(filepath.Join(dir, "starting."+strconv.Itoa(n)))
			if err != nil {
				return nil
			}
			if err := lock(turn, unix.LOCK_EX|unix.LOCK_NB); err == nil {
				return turn
			}
			turn.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// openLock opens a file that only its lock matters of. The flock module keeps its
// descriptor to itself, and this one is inherited.
func openLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
}

func lock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// inherit has the program that this one becomes keep f, and returns the variable
// that says where.
func inherit(name string, f *os.File) (string, error) {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
		return "", fmt.Errorf("cannot keep descriptor %d for %s: %w", f.Fd(), name, err)
	}
	return name + "=" + strconv.Itoa(int(f.Fd())), nil
}
