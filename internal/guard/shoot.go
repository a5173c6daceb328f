package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/unix"
)

const (
	// dumpTime is what a gateway gets to write its stacks and leave, after
	// QUIT, before KILL.
	dumpTime = 2 * time.Second
	// killTime is long for the kernel to end a process that was sent KILL; one
	// that waits for a dead disk stays.
	killTime  = 5 * time.Second
	deathPoll = 20 * time.Millisecond
	// maxDump and maxDumps bound what stacks may take of the volume: a stack
	// has about 1 KB.
	maxDump  = 1 << 20
	maxDumps = 10
)

// Shooter ends deaf runs and keeps their stacks.
type Shooter struct {
	// Stacks is the file into which the gateway of a slot writes its stacks
	// when it crashes.
	Stacks func(slot string) string
	// Dir is where they are kept; made when it is needed.
	Dir string
	// Condemn notes why a run is about to be ended, so that its slot can say so.
	Condemn func(slot, reason string) error
	Log     *slog.Logger
}

// End sends QUIT, on which a Go program writes every stack and dies, also in a
// deadlock; CONT, for one that was stopped; and KILL to what is left 2 s later.
// It returns when the process is gone, or cannot be ended.
func (s Shooter) End(ctx context.Context, r Run, reason string) {
	if err := s.Condemn(r.Slot, reason); err != nil {
		s.Log.Warn("cannot note the reason", "slot", r.Slot, "error", err)
	}
	state := "unknown"
	if now, err := proc.Read(r.Process.PID); err == nil {
		state = string(now.State)
	}
	// Opened before: the next run replaces the file, what was written into this
	// one is still read.
	dump, err := openDump(s.Stacks(r.Slot))
	if err != nil {
		s.Log.Warn("there will be no stacks", "slot", r.Slot, "error", err)
	}
	s.signal(r, unix.SIGQUIT, unix.SIGCONT)
	if !awaitDeath(ctx, r.Process, dumpTime) {
		s.signal(r, unix.SIGKILL)
		if !awaitDeath(ctx, r.Process, killTime) {
			s.Log.Error("a gateway cannot be ended: it waits in the kernel", "slot", r.Slot, "pid", r.Process.PID)
		}
	}
	header := fmt.Sprintf("%s pid %d (process state %s): %s\n\n", r.Slot, r.Process.PID, state, strings.TrimPrefix(reason, "guard: "))
	path, err := s.keep(r.Slot, header, dump)
	if err != nil {
		s.Log.Warn("cannot keep the stacks", "slot", r.Slot, "error", err)
		return
	}
	s.Log.Info("stacks kept", "slot", r.Slot, "file", path)
}

func (s Shooter) signal(r Run, signals ...unix.Signal) {
	for _, sig := range signals {
		if err := r.Process.Signal(sig); err != nil {
			s.Log.Warn("cannot end the gateway", "slot", r.Slot, "error", err)
		}
	}
}

// awaitDeath says whether p ended within the time. A pidfd would tell without
// polling, but not on every kernel that we run on.
func awaitDeath(ctx context.Context, p proc.Process, within time.Duration) bool {
	limit := time.NewTimer(within)
	defer limit.Stop()
	poll := time.NewTicker(deathPoll)
	defer poll.Stop()
	for p.Alive() {
		select {
		case <-poll.C:
		case <-limit.C:
			return !p.Alive()
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// openDump opens what a gateway writes its stacks into, at its present end: what
// is there already is of another death.
func openDump(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// keep writes the file of one death and removes the oldest beyond maxDumps. It
// closes dump, which may be nil.
func (s Shooter) keep(slot, header string, dump *os.File) (path string, err error) {
	body := io.Reader(strings.NewReader("There are no stacks: it had not come far enough to leave any.\n"))
	if dump != nil {
		defer dump.Close()
		body = io.LimitReader(dump, maxDump)
	}
	if err := os.MkdirAll(s.Dir, 0o750); err != nil {
		return "", err
	}
	// The name sorts by time, and no clock that jumps makes two of one.
	path = filepath.Join(s.Dir, time.Now().UTC().Format("20060102T150405.000000000Z")+"-"+slot+".txt")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, io.MultiReader(strings.NewReader(header), body))
	return path, errors.Join(err, f.Close(), s.prune())
}

func (s Shooter) prune() error {
	files, err := filepath.Glob(filepath.Join(s.Dir, "*.txt"))
	if err != nil || len(files) <= maxDumps {
		return err
	}
	slices.Sort(files)
	var errs []error
	for _, old := range files[:len(files)-maxDumps] {
		errs = append(errs, os.Remove(old))
	}
	return errors.Join(errs...)
}
