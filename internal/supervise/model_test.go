package supervise_test

import (
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hermesgw/hermes/internal/supervise"
)

// slot is a small model of what run, finish and the commands do with the
// policy's decisions, on a clock of its own.
type slot struct {
	rt     *rapid.T
	now    time.Time
	wantUp bool
	asked  bool // a stop or restart is outstanding
	alive  int  // children
	since  time.Time
	next   time.Time // of the start that is planned, zero: none
	parked bool      // until somebody acts
	meter  supervise.Meter
	free   bool        // the next start was asked for
	starts []time.Time // that nobody asked for, since the meter was cleared
}

func newSlot(rt *rapid.T) *slot { return &slot{rt: rt, now: time.Unix(1e9, 0)} }

// spawn is run after its pause.
func (s *slot) spawn() {
	if !s.wantUp {
		s.rt.Fatal("wanted down, and it spawns")
	}
	s.alive, s.since, s.next = s.alive+1, s.now, time.Time{}
	if s.alive > 1 {
		s.rt.Fatal("two live children")
	}
	if !s.free {
		s.starts = append(s.starts, s.now)
	}
	s.free = false
}

func (s *slot) start() {
	s.wantUp, s.parked, s.meter, s.starts = true, false, supervise.Meter{}, nil
	if s.alive == 0 {
		s.next, s.free = s.now, true
	}
}

func (s *slot) stop() {
	s.wantUp, s.next, s.parked = false, time.Time{}, false
	if s.alive > 0 {
		s.asked = true
	}
}

func (s *slot) restart() {
	if s.alive == 0 {
		s.start()
		return
	}
	s.wantUp, s.asked = true, true
}

// die is the end of a run and its finish.
func (s *slot) die(ready time.Duration) {
	if s.alive == 0 {
		return
	}
	s.alive--
	d := supervise.Death{At: s.now, Lived: s.now.Sub(s.since), ReadyFor: min(ready, s.now.Sub(s.since)), Asked: s.asked}
	if rapid.Bool().Draw(s.rt, "killed") {
		d.Signal = syscall.SIGKILL
	} else {
		d.Code = rapid.SampledFrom([]int{0, 1, 1, 1, 75, 78}).Draw(s.rt, "code")
	}
	s.asked = false
	if !s.wantUp {
		return
	}
	jitter := rapid.Float64Range(0, almost).Draw(s.rt, "jitter")
	decision := supervise.Decide(d, s.meter, time.Duration(rapid.SampledFrom([]int{1, 5, 60}).Draw(s.rt, "backoffMax"))*time.Second, jitter)
	s.meter, s.free = decision.Meter, d.Asked
	if s.meter.Deaths == 0 && !d.Asked {
		s.starts = nil // a good run
	}
	if decision.Action == supervise.Park {
		s.parked = true
		return
	}
	s.next = s.now.Add(decision.Delay)
}

// pass lets time go by, and with it the pause.
func (s *slot) pass(d time.Duration) {
	end := s.now.Add(d)
	if !s.next.IsZero() && !s.next.After(end) {
		s.now = s.next
		s.spawn()
	}
	s.now = end
}

func (s *slot) check() {
	for i := supervise.FreeStarts; i < len(s.starts); i++ {
		if j := i + supervise.RateStarts; j < len(s.starts) && s.starts[j].Sub(s.starts[i]) < supervise.RateWindow {
			s.rt.Fatalf("%d starts that nobody asked for within %s", supervise.RateStarts+1, s.starts[j].Sub(s.starts[i]))
		}
	}
	switch {
	case s.parked && (s.alive > 0 || !s.next.IsZero()):
		s.rt.Fatal("parked, and it runs or will")
	case s.wantUp && !s.parked && s.alive == 0 && s.next.IsZero():
		s.rt.Fatal("wanted up, and nothing will ever start it")
	case !s.next.IsZero() && s.next.Sub(s.now) > supervise.TrialEvery:
		s.rt.Fatalf("dark for %s", s.next.Sub(s.now))
	}
}

// Whatever operators and crashes do to a slot: no two live children, no start
// that is not wanted, no storm, and none that stays dark for ever.
func TestAnyLifeOfASlot(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newSlot(rt)
		span := rapid.Custom(func(rt *rapid.T) time.Duration {
			whole := rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute, time.Hour}).Draw(rt, "scale")
			return time.Duration(rapid.Int64Range(0, int64(whole)).Draw(rt, "span"))
		})
		rt.Repeat(map[string]func(*rapid.T){
			"start":   func(*rapid.T) { s.start() },
			"stop":    func(*rapid.T) { s.stop() },
			"restart": func(*rapid.T) { s.restart() },
			"die":     func(rt *rapid.T) { s.die(span.Draw(rt, "ready")) },
			"loop": func(rt *rapid.T) {
				for range rapid.IntRange(1, 30).Draw(rt, "times") {
					s.pass(2 * time.Minute)
					s.die(0)
				}
			},
			"storm": func(*rapid.T) {
				for range 25 {
					s.die(0)
					s.pass(max(0, s.next.Sub(s.now)))
				}
			},
			"pass": func(rt *rapid.T) { s.pass(span.Draw(rt, "for")) },
			"":     func(*rapid.T) { s.check() },
		})
	})
}
