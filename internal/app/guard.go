package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/guard"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/s6slots"
	"github.com/hermesgw/hermes/internal/unix"
)

// guardGC keeps the garbage of the guard at a tenth of what lives, which is
// next to nothing: it runs beside every fleet and must cost none of its memory.
const guardGC = 10 // percent

// GuardOptions says how the guard runs. All but Reconcile and Leave are required.
type GuardOptions struct {
	Supervision *Supervision
	// Reconcile has it follow what changes on the volume too.
	Reconcile bool
	// Leave names the profile that runs in the foreground, if one does: its slot
	// is left alone.
	Leave string
	// Ready is called once, when the guard watches.
	Ready func()
	Log   *slog.Logger
}

// RunGuard watches the gateways of the live tree until ctx ends.
func RunGuard(ctx context.Context, o GuardOptions) error {
	debug.SetGCPercent(guardGC)
	runtime.GOMAXPROCS(1)
	m, err := o.Supervision.Manager(supervise.GuardName)
	if err != nil {
		return err
	}
	dir, home := o.Supervision.Found.Dir, o.Supervision.Home
	shooter := guard.Shooter{
		Stacks: dir.Stacks, Dir: filepath.Join(home, "logs", "stacks"),
		Condemn: m.Condemn, Log: o.Log,
	}
	lister := o.Supervision.lister()
	runs := s6slots.NewRuns(dir, lister.Files)
	var turn sync.Mutex
	ears := &ears{said: map[string]saying{}}
	lister.Heard = ears.heard
	g := guard.New(guard.Options{
		Runs: runs.List,
		Ask: func(ctx context.Context, profile string) (control.Status, error) {
			return control.DialInTurn(control.SocketPath(string(dir), profile), &turn).Status(ctx)
		},
		Heard: ears.hear,
		Load:  proc.ReadLoad, End: shooter.End, Log: o.Log,
	})
	var beside sync.WaitGroup
	defer beside.Wait()
	if o.Reconcile {
		r := guard.Reconciler{Home: home, Leave: o.Leave, Fleet: fleet{o.Supervision, m}, Log: o.Log}
		beside.Go(func() { _ = r.Run(ctx) }) // it ends with ctx alone
	}
	beside.Go(func() { retryChanged(ctx, s6slots.NewRetrier(m), o.Log) })
	beside.Go(func() { remember(ctx, lister) })
	notifier := newNotifier(lister, o.Supervision, o.Log)
	beside.Go(func() { _ = notifier.Run(ctx) }) // it ends with ctx alone
	debug.FreeOSMemory()                        // what the start left
	o.Ready()
	return g.Run(ctx)
}

// retryEvery is how soon a configuration that changed is tried.
const retryEvery = time.Second

// retryChanged tries gateways that are parked for their configuration again
// when that changes, until ctx ends.
func retryChanged(ctx context.Context, r *s6slots.Retrier, log *slog.Logger) {
	every(ctx, retryEvery, func() {
		names, err := r.Look(ctx)
		if err != nil {
			log.Warn("cannot try a changed configuration", "error", err)
		}
		for _, name := range names {
			log.Info("the configuration changed; the parked gateway is tried again", "slot", name)
		}
	})
}

// rememberEvery is how long a listing of the services may have to read what is new
// of them itself.
const rememberEvery = 5 * time.Second

// remember reads what there is of the services for everybody who lists them, until
// ctx ends.
func remember(ctx context.Context, l s6slots.Lister) {
	every(ctx, rememberEvery, func() {
		_ = l.Remember() // the guard says what keeps it from seeing the slots
	})
}

// every calls f at each tick until ctx ends; the first one is a period from now.
func every(ctx context.Context, period time.Duration, f func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// fleet implements guard.Fleet. It writes no intent: it follows them.
type fleet struct {
	s *Supervision
	m *s6slots.Manager
}

// Stopping implements guard.Fleet.
func (f fleet) Stopping() bool { return f.m.Dir.Stopping() }

// Wanted implements guard.Fleet.
func (f fleet) Wanted() (map[string]bool, error) { return f.m.WantedProfiles() }

// Apply implements guard.Fleet.
func (f fleet) Apply(ctx context.Context, p profile.Profile, a guard.Action) error {
	name := supervise.GatewayName(p.Name)
	switch a {
	case guard.Register:
		return f.s.changing(ctx, func() error { return f.register(ctx, p) })
	case guard.Start:
		if err := f.s.RefuseBesideForeground(ctx, p); err != nil {
			return err
		}
		return f.m.Start(ctx, name, false)
	case guard.Stop:
		return f.m.Stop(ctx, name, true)
	case guard.Remove:
		return f.m.Unregister(ctx, name)
	}
	return fmt.Errorf("cannot %q a slot", a)
}

// register gives p its slot. The caller is changing: a command that renames or
// deletes p meanwhile would leave a slot, and logs, of a name that is no more.
func (f fleet) register(ctx context.Context, p profile.Profile) error {
	if _, err := os.Lstat(p.Home); errors.Is(err, os.ErrNotExist) {
		return nil // gone since it was seen
	}
	spec, err := f.s.GatewaySpec(p, nil, f.s.owns(f.m, p))
	if err != nil || f.m.Registered(spec.Name) {
		return err
	}
	return f.m.Ensure(ctx, spec)
}

// KeepStacks has a crash of this process, and a QUIT, write the stacks of every
// goroutine into the run directory besides stderr, also out of a deadlock. A
// new file each time: the guard may still read the last run's.
func KeepStacks(dir rundir.Dir, profileName string) error {
	path := dir.Stacks(supervise.GatewayName(profileName))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cannot keep stacks: %w", err)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("cannot keep stacks: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("cannot keep stacks: %w", err)
	}
	defer f.Close() // the runtime has its own descriptor
	if err := debug.SetCrashOutput(f, debug.CrashOptions{}); err != nil {
		return fmt.Errorf("cannot keep stacks: %w", err)
	}
	return nil
}
