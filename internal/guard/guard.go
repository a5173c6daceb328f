// Package guard finds the gateways that are alive but deaf. From outside, over
// the control socket, it asks each one that ought to serve how it is; one that
// does not answer three times in a row, or is not ready long after its start, is
// ended so that its supervisor starts another, and leaves its stacks in a file.
// Beside that it keeps the slots as the volume wants them (Reconciler).
//
// It starts nothing itself and decides no restart: a death by its hand is one
// like any other to the crash policy. Silence that is not the gateway's own
// fault never counts: that of a guard which did not run itself (a paused
// container, a machine that stood still), and that of a process which had, or
// waited for, its share of the machine. Only the monotonic clock is read.
//
//	g := guard.New(guard.Options{Runs: slots, Ask: ask, Load: proc.ReadLoad, End: shooter.End, Log: log})
//	err := g.Run(ctx)
package guard

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/proc"
)

// The guard's numbers. A gateway that turns deaf is asked for the first time
// at most askEvery later, and its third silence ends at most three times
// askDeadline and a tick after that: 23 s. One that never gets ready has
// startLimit more and two looks instead of three: 34 s.
const (
	// tick is how often the guard looks at what runs, and at itself.
	tick = time.Second
	// gapLimit is how late a tick may come before the guard must assume that
	// it did not run: nothing that it saw before counts any more.
	gapLimit = 3 * time.Second
	askEvery = 5 * time.Second
	// askDeadline is long for an answer that takes a millisecond.
	askDeadline = 5 * time.Second
	// shots is how many looks in a row must have gone wrong.
	shots = 3
	// startLimit is from the spawn to ready; after it, only progress excuses.
	startLimit = 15 * time.Second
	// patience is how long a gateway may be excused for being busy.
	patience = 5 * time.Minute
	// drainSlack is what a drain may take beyond the slot's stop budget.
	drainSlack = 5 * time.Second
)

// Run is one run of a gateway that ought to serve.
type Run struct {
	Slot        string
	Profile     string
	Process     proc.Process  // PID and Start alone
	Since       time.Time     // as the supervisor has it: tells runs apart, measures nothing
	StopTimeout time.Duration // of the slot: what a drain may take
}

// Options says what a guard looks through. All but Heard are required.
type Options struct {
	// Runs lists the gateways that run and ought to: neither those that pause
	// or are parked, nor those that were told to stop. It must not block.
	Runs func() ([]Run, error)
	// Ask asks the gateway of a profile for its status, until ctx ends.
	Ask func(ctx context.Context, profile string) (control.Status, error)
	// Heard, if set, is told what a run said of itself, one call at a time; it
	// must not block.
	Heard func(r Run, s control.Status)
	// Load tells what a process had of the machine.
	Load func(pid int) (proc.Load, error)
	// End ends a run, whose fault is reason, and returns when it is gone.
	End func(ctx context.Context, r Run, reason string)
	Log *slog.Logger
}

// Guard watches the gateways of one tree.
type Guard struct {
	o       Options
	watched map[proc.Process]*watch
	answers chan answer
	wg      sync.WaitGroup
	last    time.Time // the previous look at the clock
	era     int       // counts the times that looking began anew
	failed  bool      // the last listing failed; said once
}

// answer is what one question came back with.
type answer struct {
	process proc.Process
	era     int // when it was asked
	began   time.Time
	status  control.Status
	err     error
}

// New makes a guard; it looks at nothing yet.
func New(o Options) *Guard {
	return &Guard{o: o, watched: map[proc.Process]*watch{}, answers: make(chan answer)}
}

// Run watches until ctx ends.
func (g *Guard) Run(ctx context.Context) error {
	defer g.wg.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop() // before the wait above: questions under way end
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	g.last = time.Now()
	g.look(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			g.noticeGap()
			g.look(ctx)
		case a := <-g.answers: // no look: a fleet answers many times a tick
			g.noticeGap()
			g.hear(ctx, a)
		}
	}
}

// noticeGap begins anew after the guard itself did not run: what was silent
// meanwhile may have stood still with it.
func (g *Guard) noticeGap() {
	now := time.Now()
	gap := now.Sub(g.last)
	g.last = now
	if gap <= gapLimit {
		return
	}
	g.era++
	for p, w := range g.watched {
		g.watched[p] = &watch{run: w.run, seen: now, next: now, answered: w.answered, condemned: w.condemned}
	}
	g.o.Log.Info("the guard did not run for a while; what it saw before does not count", "gap", gap.Round(time.Second))
}

// look learns what runs, and asks who is due. It reads a file for each slot.
func (g *Guard) look(ctx context.Context) {
	runs, err := g.o.Runs()
	if err != nil && !g.failed {
		g.o.Log.Warn("cannot list the slots", "error", err)
	}
	if g.failed = err != nil; g.failed {
		return
	}
	now := time.Now()
	live := make(map[proc.Process]bool, len(runs))
	for i, r := range runs {
		live[r.Process] = true
		w := g.watched[r.Process]
		if w == nil { // spread over the ticks, so that many are not asked at once
			w = &watch{run: r, seen: now, next: now.Add(time.Duration(i) * tick % askEvery)}
			g.watched[r.Process] = w
		}
		if !w.asking && !w.condemned && !now.Before(w.next) {
			g.ask(ctx, w, now)
		}
	}
	for p := range g.watched {
		if !live[p] {
			delete(g.watched, p)
		}
	}
}

func (g *Guard) ask(ctx context.Context, w *watch, now time.Time) {
	w.asking, w.next = true, now.Add(askEvery)
	a := answer{process: w.run.Process, era: g.era, began: now}
	profile := w.run.Profile
	g.wg.Go(func() {
		limited, cancel := context.WithTimeout(ctx, askDeadline)
		defer cancel()
		a.status, a.err = g.o.Ask(limited, profile)
		select {
		case g.answers <- a:
		case <-ctx.Done():
		}
	})
}

// hear judges an answer, and ends the run whose last it was.
func (g *Guard) hear(ctx context.Context, a answer) {
	w := g.watched[a.process]
	if w == nil || a.era != g.era {
		return
	}
	w.asking = false
	if ctx.Err() != nil || ours(a.err) {
		return
	}
	if a.err == nil && g.o.Heard != nil {
		g.o.Heard(w.run, a.status)
	}
	fault := w.fault(a, time.Now())
	if fault == "" {
		w.well()
		return
	}
	load, err := g.o.Load(a.process.PID)
	if err != nil {
		return // it is gone, and its supervisor knows
	}
	if !w.miss(a.began, time.Now(), load) {
		return
	}
	w.condemned = true
	r := w.run
	g.o.Log.Error("gateway is ended", "slot", r.Slot, "pid", r.Process.PID, "reason", fault)
	g.wg.Go(func() { g.o.End(context.WithoutCancel(ctx), r, "guard: "+fault) })
}
