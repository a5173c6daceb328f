package s6slots

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gofrs/flock"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
)

const (
	busyFile = "data/busy"
	// lockPatience is how long a command waits for the one before it: a stop
	// takes the stop budget, 9 s by default, and no start is waited for.
	lockPatience = 30 * time.Second
	lockPoll     = 10 * time.Millisecond
	// wishPatience is how long s6-supervise may take to note a command.
	wishPatience = 2 * time.Second
	wishPoll     = 2 * time.Millisecond
)

// busy names the command that has a slot's lock. It is for messages only; the
// lock is the kernel's.
type busy struct {
	Doing string    `json:"doing"`
	By    string    `json:"by"`
	UID   int       `json:"uid"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

// serialize waits until no other command works on the slot: one after the
// other, each finds what the last one left. It locks a directory, which nobody
// has to make. Where locks do not work, or there is no slot, it does nothing.
func (m *Manager) serialize(ctx context.Context, name, doing string, patience time.Duration) (unlock func(), err error) {
	dir := m.dir(name)
	lock := flock.New(filepath.Join(dir, filepath.Dir(busyFile)), flock.SetFlag(os.O_RDONLY))
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	locked, err := lock.TryLockContext(limited, lockPoll)
	if !locked {
		if err == nil || limited.Err() == nil {
			return func() {}, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("cannot %s %s: %w", doing, name, ctx.Err())
		}
		return nil, conflict("cannot %s %s: %s, not done within %s; try again", doing, name, readBusy(dir), patience)
	}
	b, err := json.Marshal(busy{doing, m.By, m.uid(), os.Getpid(), time.Now().UTC()})
	if err == nil {
		_ = atomicfile.WriteVolatile(filepath.Join(dir, busyFile), b, 0o644)
	}
	return func() {
		_ = os.Remove(filepath.Join(dir, busyFile))
		_ = lock.Close()
	}, nil
}

// readBusy says in words who works on the slot in dir.
func readBusy(dir string) string {
	var b busy
	text, err := os.ReadFile(filepath.Join(dir, busyFile))
	if err != nil || json.Unmarshal(text, &b) != nil || b.Doing == "" {
		return "another command is at work on it"
	}
	return fmt.Sprintf("%s by %s (uid %d, pid %d) is at work on it since %s", b.Doing, b.By, b.UID, b.PID, b.Since.Format(time.RFC3339))
}

// conflictError says which command came between; it is a supervise.ErrConflict.
type conflictError struct{ error }

// Is implements what errors.Is asks.
func (conflictError) Is(target error) bool { return target == supervise.ErrConflict }

func conflict(format string, args ...any) error {
	return exitcode.With(exitcode.Failed, conflictError{fmt.Errorf(format, args...)})
}

// awaitWish waits until s6 has noted what the slot in dir was told, so that
// who looks next sees it. A supervisor that is slow or gone is not waited for.
func awaitWish(ctx context.Context, dir string, up bool) {
	ctx, cancel := context.WithTimeout(ctx, wishPatience)
	defer cancel()
	tick := time.NewTicker(wishPoll)
	defer tick.Stop()
	for {
		if st, err := s6.ReadStatus(dir); err != nil || st.WantUp == up {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ask notes in the audit log that somebody asked for something.
func (m *Manager) ask(name, what, signal string) {
	if spec, err := slot.ReadSpec(m.dir(name)); err == nil {
		m.Asked(spec, what, signal)
	}
}

// Asked notes in the audit log what somebody asked for, of a slot that need not
// be there.
func (m *Manager) Asked(spec supervise.Spec, what, signal string) {
	slot.AuditLine(spec, "ask", what, "by", m.By, "uid", strconv.Itoa(m.uid()), "pid", strconv.Itoa(os.Getpid()), "signal", signal, "why", m.Why)
}

func (m *Manager) uid() int {
	if m.UID != nil {
		return *m.UID
	}
	return os.Getuid()
}

// Inside says whether this very command was started by the slot's own service,
// from one of its turns: to wait for the end of that turn would be to wait for
// itself.
func (m *Manager) Inside(name string) bool {
	spec, err := slot.ReadSpec(m.dir(name))
	return err == nil && m.Mark != "" && spec.Mark == supervise.MarkVar+"="+m.Mark
}

// before is what every command does first: it waits for its turn and notes the
// operator's wish. unlock is safe to call twice.
func (m *Manager) before(ctx context.Context, name, doing string) (unlock func(), err error) {
	release, err := m.serialize(ctx, name, doing, lockPatience)
	if err != nil {
		return nil, err
	}
	done := false
	unlock = func() {
		if !done {
			done = true
			release()
		}
	}
	if m.Note != nil {
		if err := m.Note(); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}
