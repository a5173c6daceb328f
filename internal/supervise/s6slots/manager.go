// Package s6slots manages the slots of a live s6 tree: it registers, starts, stops
// and lists them. What a slot looks like on disk, and what s6-supervise executes
// in it, is slot's; the protocol is s6's.
//
//	m := &s6slots.Manager{Dir: run, Binary: "/usr/local/bin/hermes", By: "docs"}
//	err := m.Start(ctx, "gateway-default", true)
package s6slots

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
	"github.com/hermesgw/hermes/internal/unix"
)

const (
	registerTimeout = 10 * time.Second      // svscan answers in milliseconds; a loaded machine in seconds
	killGrace       = 2 * time.Second       // from KILL to gone
	supervisorPoll  = 20 * time.Millisecond // it takes a few; without a directory for events there is nothing to subscribe to
	standbyPoll     = 300 * time.Millisecond
	askTimeout      = 500 * time.Millisecond // a gateway that is not deaf answers in one or two
)

// Manager runs slots in one live scan directory.
type Manager struct {
	Dir    rundir.Dir
	Binary string // absolute path of hermes, for the links of new slots
	By     string // who asks, for the record: cli, main-program, dashboard, guard
	Why    string // in the operator's words; may be empty
	// UID is who asked, where this process became another user since. Default:
	// the process's.
	UID *int
	// Mark is the value of the slot's mark in our environment, "" outside a slot.
	Mark string
	// Note, if set, stores the operator's wish. It is called once a command's
	// turn has come and before anything is asked of s6; its error ends the command.
	Note func() error
}

// Ensure registers the slot of spec, wanted down, or brings the data of a
// registered one up to date. It does not start it.
func (m *Manager) Ensure(ctx context.Context, spec supervise.Spec) error {
	if m.Dir.Stopping() {
		return fmt.Errorf("cannot register %q: %w", spec.Name, supervise.ErrStopping)
	}
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	err := m.Dir.Scan().Register(ctx, spec.Name, func(dir string) error {
		return slot.Write(dir, spec, slot.WriteOptions{Binary: m.Binary, Down: true})
	})
	if errors.Is(err, s6.ErrExists) {
		return slot.WriteSpec(m.dir(spec.Name), spec)
	}
	return err
}

// awaitSupervisor waits until the slot in dir takes commands. A slot that boot
// wrote is there before its supervisor is: s6-svscan says that it is ready once
// it has started that, not once it serves.
func awaitSupervisor(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	tick := time.NewTicker(supervisorPoll)
	defer tick.Stop()
	for {
		alive, _, err := s6.Supervised(dir)
		if err == nil && alive {
			_, err = s6.ReadStatus(dir) // written last, before the first event
		}
		switch {
		case err != nil && !errors.Is(err, s6.ErrNotSupervised):
			return err
		case err == nil && alive:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot reach the supervisor of %q within %s: %w", dir, registerTimeout, ctx.Err())
		case <-tick.C:
		}
	}
}

// Up asks s6 to run the slot, without waiting for ready or for its turn. It
// ends a pause or a parking and clears the meter, unless it is the main
// program's doing: each start of a container would forgive all, and a loop would
// have no end. Being up already is success.
func (m *Manager) Up(name string) error {
	if m.Dir.Stopping() {
		return fmt.Errorf("cannot start %q: %w", name, supervise.ErrStopping)
	}
	dir := m.dir(name)
	// A stop that is over may have left its mark, which would excuse a later
	// death; one that is being overruled ends the present run, as was asked.
	st, err := s6.ReadStatus(dir)
	if err != nil || st.Stopped() {
		_, _ = slot.TakeAsked(dir)
	}
	if m.By != intent.ByMainProgram {
		err = m.forgive(dir, st)
	} else if st.Stopped() {
		err = slot.ChangeRecord(dir, func(r *slot.Record) { r.By = m.By })
	}
	if err != nil {
		return fmt.Errorf("cannot start %q: %w", name, err)
	}
	return s6.Send(dir, s6.UpStored)
}

// Start is Up in its turn and, with wait, waits until the slot is ready or has
// failed; a failure says why.
func (m *Manager) Start(ctx context.Context, name string, wait bool) error {
	unlock, err := m.before(ctx, name, "start")
	if err != nil {
		return err
	}
	defer unlock()
	return m.start(ctx, name, "start", wait, unlock)
}

// start gives the turn away as soon as s6 runs the slot: the wait for ready
// changes nothing, and a stop need not wait for it.
func (m *Manager) start(ctx context.Context, name, what string, wait bool, unlock func()) error {
	dir := m.dir(name)
	if err := awaitSupervisor(ctx, dir); err != nil {
		return err
	}
	m.ask(name, what, "")
	ending, err := endingPID(dir)
	if err != nil {
		return err
	}
	var sub *s6.Subscription
	if wait {
		if sub, err = s6.Subscribe(dir); err != nil {
			return err
		}
		defer sub.Close()
	}
	before := slot.ReadRecord(dir).LastExit
	if err := m.Up(name); err != nil {
		return err
	}
	awaitWish(ctx, dir, true)
	unlock()
	if !wait {
		return nil
	}
	return m.waitReady(ctx, name, sub, before, ending)
}

// endingPID is the pid of a run that was told to stop and has not left yet: it
// may still look ready, and is not what a start waits for. 0: there is none.
func endingPID(dir string) (int, error) {
	st, err := s6.ReadStatus(dir)
	if err != nil || st.WantUp || !st.Running() {
		return 0, err
	}
	return st.PID, nil
}

// Stop asks s6 to end the slot and waits until it is down; s6 sends KILL when
// the slot's stop timeout has passed. Being down already is success.
func (m *Manager) Stop(ctx context.Context, name string, wait bool) error {
	dir := m.dir(name)
	unlock, err := m.before(ctx, name, "stop")
	if err != nil {
		return err
	}
	defer unlock()
	sub, err := s6.Subscribe(dir)
	if err != nil {
		return err
	}
	defer sub.Close()
	m.ask(name, "stop", "TERM")
	if err := m.noteStop(dir); err != nil {
		return err
	}
	if err := s6.Send(dir, s6.DownStored); err != nil {
		return err
	}
	// Whose end this is shows only now: the run before may have been leaving, and
	// its finish have taken the note. A start that overrules this stop waits for us.
	awaitWish(ctx, dir, false)
	if err := m.noteStop(dir); err != nil || !wait {
		return err
	}
	if _, err := sub.Wait(ctx, func(s s6.Status) bool { return s.Stopped() && !s.WantUp }); err != nil {
		return err
	}
	// A stop that came while finish ran finds what that decided; nothing follows it.
	_, _ = slot.TakeAsked(dir)
	return forgetPause(dir)
}

// noteStop notes that the end of the run in dir was asked for. The pause of one
// that has not begun is its finish's to clear; a parked slot has no finish to come.
func (m *Manager) noteStop(dir string) error {
	status, err := s6.ReadStatus(dir)
	if err != nil {
		return err
	}
	if !status.Stopped() {
		return slot.Asked{Kind: slot.AskedStop, By: m.By, At: time.Now().UTC()}.Write(dir)
	}
	return forgetPause(dir)
}

// forgetPause takes a pause or a parking out of the record.
func forgetPause(dir string) error {
	if slot.ReadRecord(dir).State == "" {
		return nil
	}
	return slot.ChangeRecord(dir, func(r *slot.Record) { *r = r.Cleared() })
}

// forgive is forgetPause, and no earlier death counts any more. The run that
// follows is ours.
func (m *Manager) forgive(dir string, st s6.Status) error {
	if spec, err := slot.ReadSpec(dir); err == nil {
		slot.KeepMeter(spec, supervise.Meter{})
	}
	return slot.ChangeRecord(dir, func(r *slot.Record) {
		if r.State != "" || !st.Running() {
			r.By = m.By
		}
		*r = r.Cleared()
	})
}

// Restart drains the slot's service and starts it again; a slot that is down,
// parked or pausing is started. A service that does not leave within the
// slot's stop timeout is killed. A slot that restarts itself from inside a turn
// is only told to.
func (m *Manager) Restart(ctx context.Context, name string, wait bool) error {
	dir := m.dir(name)
	unlock, err := m.before(ctx, name, "restart")
	if err != nil {
		return err
	}
	defer unlock()
	status, run, err := lookAtRun(ctx, dir)
	if err != nil {
		return err
	}
	if !status.Running() || !status.WantUp || slot.ReadRecord(dir).State != "" {
		return m.start(ctx, name, "restart", wait, unlock)
	}
	spec, err := slot.ReadSpec(dir)
	if err != nil {
		return err
	}
	sub, err := s6.Subscribe(dir)
	if err != nil {
		return err
	}
	defer sub.Close()
	if spec.Kind == supervise.KindService { // it may want a signal of its own, and its deaths are not counted
		run = proc.Process{PID: run.PID}
	}
	before := slot.ReadRecord(dir).LastExit
	m.ask(name, "restart", "TERM")
	if err := (slot.Asked{Kind: slot.AskedRestart, By: m.By, At: time.Now().UTC(), PID: status.PID}).Write(dir); err != nil {
		return err
	}
	if err := s6.Send(dir, s6.UpStored); err != nil {
		return err
	}
	if err := tellRun(dir, run, s6.Restart+s6.Continue, unix.SIGTERM, unix.SIGCONT); err != nil || m.Inside(name) {
		return err
	}
	if err := awaitEnd(ctx, dir, sub, run, spec.StopTimeout); err != nil {
		return err
	}
	unlock()
	if !wait {
		return nil
	}
	return m.waitReady(ctx, name, sub, before, status.PID)
}

// lookAtRun returns the slot's status and the process of the run that it tells of:
// the same before and after the look at the process. One that this user is not shown
// has no more than its pid.
func lookAtRun(ctx context.Context, dir string) (s6.Status, proc.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, wishPatience)
	defer cancel()
	tick := time.NewTicker(wishPoll)
	defer tick.Stop()
	for {
		status, err := s6.ReadStatus(dir)
		if err != nil || !status.Running() {
			return status, proc.Process{}, err
		}
		run, unseen := proc.Read(status.PID)
		again, err := s6.ReadStatus(dir)
		if err != nil || unseen == nil && again.Running() && again.PID == status.PID {
			return status, run, err
		}
		select {
		case <-ctx.Done():
			return status, proc.Process{PID: status.PID}, nil
		case <-tick.C:
		}
	}
}

// tellRun sends signals to this very run. s6-supervise sends what it is told to
// whichever run there is when it reads the command: where this one ends at the same
// moment, to the next one, and that death would count as a crash. It is told only
// if the process is not ours to signal.
func tellRun(dir string, run proc.Process, otherwise s6.Command, signals ...unix.Signal) error {
	for _, sig := range signals {
		if run.Start == 0 || run.Signal(sig) != nil {
			return s6.Send(dir, otherwise)
		}
	}
	return nil
}

// awaitEnd waits until the run is gone and kills it at the timeout: s6 arms its
// own timeout-kill for a stop only, not for a restart.
func awaitEnd(ctx context.Context, dir string, sub *s6.Subscription, run proc.Process, timeout time.Duration) error {
	left := func(s s6.Status) bool { return s.PID != run.PID }
	polite, cancel := context.WithTimeout(ctx, timeout)
	_, err := sub.Wait(polite, left)
	cancel()
	if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if err := tellRun(dir, run, s6.Kill, unix.SIGKILL); err != nil {
		return err
	}
	last, cancel := context.WithTimeout(ctx, killGrace)
	defer cancel()
	_, err = sub.Wait(last, left)
	return err
}

// waitReady waits until the slot is ready, or says why it is not: it died
// once more than before, was parked or stopped, or stands by for another holder.
// The run with the pid ending is not the one.
func (m *Manager) waitReady(ctx context.Context, name string, sub *s6.Subscription, before *supervise.Exit, ending int) error {
	for {
		done, err := m.settled(ctx, name, before, ending)
		if done || err != nil {
			return err
		}
		// An event or, for standby (of which s6 knows nothing), the next look.
		next, cancel := context.WithTimeout(ctx, standbyPoll)
		_, err = sub.Next(next)
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("%s is not ready yet (%w); it goes on in the background, see: hermes gateway status", name, ctx.Err())
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// settled says whether the slot is ready (true), failed (error), or neither.
func (m *Manager) settled(ctx context.Context, name string, before *supervise.Exit, ending int) (bool, error) {
	dir := m.dir(name)
	status, err := s6.ReadStatus(dir)
	if err != nil {
		return false, err
	}
	r := slot.ReadRecord(dir)
	died := r.LastExit != nil && (before == nil || !r.LastExit.At.Equal(before.At)) // also when the clock was set
	failed := died && !r.LastExit.Asked
	switch {
	case status.Serving() && status.PID != ending:
		return true, nil
	case r.State == supervise.Parked:
		return false, notReady("%s is parked: %s; see: %s", name, r.Reason, logsCommand(name))
	case failed:
		return false, notReady("%s died before it was ready: %s; it is tried again, see: %s", name, r.LastExit.Reason, logsCommand(name))
	}
	if !status.WantUp {
		return false, conflict("%s was stopped before it was ready: another command, or the end of the container, overruled the start", name)
	}
	if profileName, ok := supervise.ProfileOf(name); ok {
		if s := ask(ctx, m.Dir, profileName); s != nil && s.State == supervise.Standby {
			return false, notReady("%s stands by: the profile is held by %s", name, holderText(s.Holder))
		}
	}
	return false, nil
}

// logsCommand is what an operator types to see why.
func logsCommand(name string) string {
	if p, ok := supervise.ProfileOf(name); ok && p != profile.Default {
		return "hermes -p " + p + " gateway logs"
	}
	return "hermes gateway logs"
}

func notReady(format string, args ...any) error {
	return exitcode.With(exitcode.Failed, fmt.Errorf(format, args...))
}

func holderText(h *supervise.Holder) string {
	if h == nil {
		return "somebody"
	}
	return fmt.Sprintf("%s since %s; stop it there", h.Host, h.Since.UTC().Format(time.RFC3339))
}

// Withdraw makes sure that the slot is wanted down and confirms it: after a
// redirect that failed nothing may start later beside a foreground gateway. A
// slot that is not there needs nothing.
func (m *Manager) Withdraw(ctx context.Context, name string) error {
	if _, err := os.Lstat(m.dir(name)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := s6.Send(m.dir(name), s6.DownStored); errors.Is(err, s6.ErrNotSupervised) {
		// No supervisor yet: the one that comes must find the slot down.
		return os.WriteFile(filepath.Join(m.dir(name), "down"), nil, 0o644)
	}
	return m.Stop(ctx, name, true)
}

// Unregister stops the slot and removes it, with its supervisor and its logger.
// A slot that is not there needs nothing.
func (m *Manager) Unregister(ctx context.Context, name string) error {
	if err := m.Dir.Scan().Unregister(ctx, name); !errors.Is(err, s6.ErrNotService) {
		return err
	}
	return nil
}

// Want is what the slot was told; down when there is none.
func (m *Manager) Want(name string) supervise.Want {
	status, err := s6.ReadStatus(m.dir(name))
	return observation{registered: err == nil, status: status, record: slot.ReadRecord(m.dir(name))}.want()
}

// Registered says whether the slot is there.
func (m *Manager) Registered(name string) bool {
	_, err := os.Lstat(filepath.Join(m.dir(name), slot.SpecFile))
	return err == nil
}

func (m *Manager) dir(name string) string { return m.Dir.Scan().Dir(name) }

// ask returns what the gateway of a profile says of itself, nil when none
// answers in time.
func ask(ctx context.Context, dir rundir.Dir, profileName string) *control.Status {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := control.Dial(control.SocketPath(string(dir), profileName)).Status(ctx)
	if err != nil {
		return nil
	}
	return &s
}
