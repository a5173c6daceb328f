package guard_test

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/guard"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/supervise"
)

// world is one gateway as the guard sees it, on the clock of a synctest bubble.
type world struct {
	mu     sync.Mutex
	run    guard.Run
	state  supervise.State // what it says; "" says nothing
	pid    int             // who says so
	err    error           // what a question fails with, if it does
	share  float64         // of one core that it gets or stands in line for
	disk   bool            // it waits for a disk
	born   time.Time
	thaw   time.Time     // until then everything stands still, the guard too
	freeze time.Duration // for this long all stands still after each question
	asked  int
	reason string        // why it was ended
	after  time.Duration // how long after birth
}

func newWorld(state supervise.State) *world {
	return &world{
		run: guard.Run{Slot: "gateway-work", Profile: "work", Process: proc.Process{PID: 42, Start: 1}, StopTimeout: 9 * time.Second},
		pid: 42, state: state, born: time.Now(),
	}
}

// change sets what the gateway does from now on.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// stand keeps a frozen process where it is until the thaw.
func (w *world) stand() {
	w.mu.Lock()
	thaw := w.thaw
	w.mu.Unlock()
	if left := time.Until(thaw); left > 0 {
		time.Sleep(left)
	}
}

func (w *world) runs() ([]guard.Run, error) {
	w.stand()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reason != "" {
		return nil, nil
	}
	return []guard.Run{w.run}, nil
}

func (w *world) ask(ctx context.Context, _ string) (control.Status, error) {
	w.mu.Lock()
	w.asked++
	if w.freeze > 0 {
		w.thaw = time.Now().Add(w.freeze)
	}
	state, pid, err := w.state, w.pid, w.err
	w.mu.Unlock()
	if err != nil {
		return control.Status{}, err
	}
	if state == "" {
		<-ctx.Done()
	}
	w.stand()
	if ctx.Err() != nil {
		return control.Status{}, ctx.Err()
	}
	return control.Status{PID: pid, State: state}, nil
}

func (w *world) load(int) (proc.Load, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	had := time.Duration(w.share * float64(time.Since(w.born)))
	return proc.Load{CPU: had / 2, Waited: had / 2, Blocked: w.disk}, nil
}

func (w *world) end(_ context.Context, _ guard.Run, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reason, w.after = reason, time.Since(w.born)
}

// watched runs a guard over w while f changes the world.
func (w *world) watched(t *testing.T, f func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	g := guard.New(guard.Options{Runs: w.runs, Ask: w.ask, Load: w.load, End: w.end, Log: slog.New(slog.DiscardHandler)})
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	f()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// wantEnded fails unless the gateway was ended between two times of its life,
// for a reason.
func (w *world) wantEnded(t *testing.T, from, to time.Duration, reason string) {
	t.Helper()
	if !strings.HasPrefix(w.reason, "guard: "+reason) || w.after < from || w.after > to {
		t.Errorf("ended after %s because %q; want %s to %s, because %q", w.after, w.reason, from, to, reason)
	}
}

func (w *world) wantAlive(t *testing.T) {
	t.Helper()
	if w.reason != "" {
		t.Errorf("ended after %s because %q", w.after, w.reason)
	}
	if w.asked == 0 {
		t.Error("nobody was asked")
	}
}

// virtual runs f in a bubble with a clock of its own.
func virtual(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestTheDeafAreEnded(t *testing.T) {
	virtual(t, "after they served", func(t *testing.T) {
		w := newWorld(supervise.Ready)
		w.watched(t, func() {
			time.Sleep(100 * time.Second)
			w.change(func() { w.state = "" })
			time.Sleep(time.Minute)
		})
		w.wantEnded(t, 110*time.Second, 125*time.Second, "did not answer for 1")
	})
	virtual(t, "when the socket is gone", func(t *testing.T) {
		w := newWorld(supervise.Ready)
		w.watched(t, func() {
			time.Sleep(100 * time.Second)
			w.change(func() { w.err = control.ErrNoGateway })
			time.Sleep(time.Minute)
		})
		w.wantEnded(t, 110*time.Second, 125*time.Second, "did not answer for 1")
	})
	virtual(t, "when they never spoke", func(t *testing.T) {
		w := newWorld("")
		w.err = control.ErrNoGateway
		w.watched(t, func() { time.Sleep(2 * time.Minute) })
		w.wantEnded(t, 25*time.Second, 36*time.Second, "did not answer for")
	})
	virtual(t, "when they never get ready", func(t *testing.T) {
		w := newWorld(supervise.Starting)
		w.share = 0.02 // it fails its own check every second
		w.watched(t, func() { time.Sleep(2 * time.Minute) })
		w.wantEnded(t, 25*time.Second, 36*time.Second, "was not ready")
	})
	virtual(t, "when a drain never ends", func(t *testing.T) {
		w := newWorld(supervise.Draining)
		w.watched(t, func() { time.Sleep(2 * time.Minute) })
		w.wantEnded(t, 20*time.Second, 40*time.Second, "did not finish draining")
	})
	virtual(t, "when they were busy for too long", func(t *testing.T) {
		w := newWorld("")
		w.share = 1
		w.watched(t, func() { time.Sleep(10 * time.Minute) })
		w.wantEnded(t, 5*time.Minute, 6*time.Minute, "did not answer for")
	})
}

func TestWhoIsWellIsLeftAlone(t *testing.T) {
	for name, f := range map[string]func(*world){
		"ready":                             func(*world) {},
		"degraded":                          func(w *world) { w.state = supervise.Degraded },
		"standby":                           func(w *world) { w.state = supervise.Standby },
		"another listens: it stands by":     func(w *world) { w.state, w.pid = supervise.Starting, 7 },
		"the guard is short of descriptors": func(w *world) { w.err = unix.EMFILE },
	} {
		virtual(t, name, func(t *testing.T) {
			w := newWorld(supervise.Ready)
			w.watched(t, func() {
				w.change(func() { f(w) })
				time.Sleep(20 * time.Minute)
			})
			w.wantAlive(t)
		})
	}
}

// Slow is not deaf: two silences, a long start, a long answer of a busy one.
func TestTheSlowAreLeftAlone(t *testing.T) {
	virtual(t, "silent twice", func(t *testing.T) {
		w := newWorld(supervise.Ready)
		w.watched(t, func() {
			for range 20 {
				time.Sleep(20 * time.Second)
				w.change(func() { w.state = "" })
				time.Sleep(9 * time.Second)
				w.change(func() { w.state = supervise.Ready })
			}
		})
		w.wantAlive(t)
	})
	for name, busy := range map[string]func(*world){
		"computing":          func(w *world) { w.share = 1 },
		"waiting for a core": func(w *world) { w.share = 0.3 },
		"waiting for a disk": func(w *world) { w.disk = true },
	} {
		for _, state := range []supervise.State{supervise.Starting, ""} {
			virtual(t, name+", says "+string(state), func(t *testing.T) {
				w := newWorld(state)
				busy(w)
				w.watched(t, func() {
					time.Sleep(4 * time.Minute)
					w.change(func() { w.state = supervise.Ready })
					time.Sleep(time.Minute)
				})
				w.wantAlive(t)
			})
		}
	}
}

// A paused container, a machine that stood still: the guard stood still too, and
// what it saw before and meanwhile counts for nothing.
func TestStandstillNeverCounts(t *testing.T) {
	for _, pause := range []time.Duration{2 * time.Second, 6 * time.Second, 20 * time.Second, 2 * time.Minute} {
		virtual(t, pause.String(), func(t *testing.T) {
			w := newWorld(supervise.Ready)
			w.watched(t, func() {
				for range 20 {
					time.Sleep(7*time.Second + 300*time.Millisecond)
					w.change(func() { w.thaw = time.Now().Add(pause) })
					time.Sleep(pause)
				}
			})
			w.wantAlive(t)
		})
	}
	virtual(t, "each question falls into one", func(t *testing.T) {
		w := newWorld(supervise.Ready)
		w.freeze = 6 * time.Second
		w.watched(t, func() { time.Sleep(10 * time.Minute) })
		w.wantAlive(t)
	})
	virtual(t, "but who is deaf stays so", func(t *testing.T) {
		w := newWorld(supervise.Ready)
		w.watched(t, func() {
			time.Sleep(time.Minute)
			w.change(func() { w.state, w.thaw = "", time.Now().Add(time.Minute) })
			time.Sleep(2 * time.Minute)
		})
		w.wantEnded(t, 130*time.Second, 145*time.Second, "did not answer for")
	})
}

// A hundred gateways are not asked in one moment.
func TestQuestionsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(supervise.Ready)
		var mu sync.Mutex
		asked := map[time.Time]int{}
		listed := 0
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		err := guard.New(guard.Options{
			Runs: func() ([]guard.Run, error) {
				listed++
				runs := make([]guard.Run, 100)
				for i := range runs {
					runs[i] = w.run
					runs[i].Process.PID = i + 1
				}
				return runs, nil
			},
			Ask: func(context.Context, string) (control.Status, error) {
				mu.Lock()
				defer mu.Unlock()
				asked[time.Now()]++
				return control.Status{State: supervise.Ready}, nil
			},
			Load: w.load, End: w.end, Log: slog.New(slog.DiscardHandler),
		}).Run(ctx)
		if err != nil || len(asked) < 50 {
			t.Errorf("%v, asked at %d moments", err, len(asked))
		}
		if listed > 61 { // a list reads a file for each slot: answers must not cause one
			t.Errorf("the slots were listed %d times in a minute", listed)
		}
		for at, n := range asked {
			if n > 20 {
				t.Errorf("%d asked at %s", n, at)
			}
		}
	})
}

// Ten thousand looks at gateways that come and go leave nothing behind.
func TestGuardDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(supervise.Ready)
		looks := 0
		var sizes [2]uint64 // of the heap, early and late
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		err := guard.New(guard.Options{
			Runs: func() ([]guard.Run, error) {
				switch looks++; looks {
				case 1000:
					sizes[0] = liveHeap()
				case 11_000:
					sizes[1] = liveHeap()
					stop()
				}
				runs := make([]guard.Run, 20)
				for i := range runs {
					runs[i] = w.run
					runs[i].Process = proc.Process{PID: i + 1, Start: uint64(looks / (i + 2))} // each is another soon
				}
				return runs, nil
			},
			Ask: func(context.Context, string) (control.Status, error) {
				return control.Status{State: supervise.Ready}, nil
			},
			Load: w.load, End: w.end, Log: slog.New(slog.DiscardHandler),
		}).Run(ctx)
		const slack = 64 << 10 // bytes; a watch that stays for each run would be megabytes
		if err != nil || sizes[1] > sizes[0]+slack {
			t.Errorf("%v, %d bytes live after 1,000 looks, %d after 11,000", err, sizes[0], sizes[1])
		}
	})
}

func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
