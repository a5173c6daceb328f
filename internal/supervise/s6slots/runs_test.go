package s6slots

import (
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
)

// runs are the slots that rs lists.
func (tr *tree) runs(rs *Runs) string {
	tr.t.Helper()
	list, err := rs.List()
	if err != nil {
		tr.t.Fatal(err)
	}
	var names []string
	for _, r := range list {
		if !r.Process.Alive() {
			tr.t.Errorf("%+v does not live", r)
		}
		names = append(names, r.Slot)
	}
	return strings.Join(names, " ")
}

func TestRunsThatOughtToServe(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	rs := NewRuns(tr.dir, tr.dir.Files())
	tr.ensure()
	if got := tr.runs(rs); got != "" {
		t.Errorf("a slot that is down runs: %s", got)
	}
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time from memory
		if got := tr.runs(rs); got != tr.spec.Name {
			t.Errorf("a slot that is up: %q", got)
		}
	}
	tr.change(func(r *slot.Record) { r.Meter.Deaths = 8 })
	tr.plan("exit=3")
	tr.kill(tr.status().PID)
	tr.eventually("the slot backs off", func() bool { return slot.ReadRecord(tr.slot()).State == supervise.Backoff && tr.status().Up })
	if got := tr.runs(rs); got != "" {
		t.Errorf("a slot that pauses runs: %s", got)
	}
}

// The guard's word is the reason of the death that follows, which nobody asked for.
func TestCondemnedRunSaysWhy(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	pid := tr.status().PID
	if err := tr.m.Condemn(tr.spec.Name, "guard: did not answer for 15 s"); err != nil {
		t.Fatal(err)
	}
	tr.kill(pid)
	tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != pid })
	s := tr.service()
	if x := s.LastExit; s.Restarts != 1 || x == nil || x.Asked || x.Reason != "killed by signal KILL: guard: did not answer for 15 s" {
		t.Errorf("%+v, last exit %+v", s, s.LastExit)
	}
}

func TestWantedProfiles(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "exit=78")
	wanted := func() (up, known bool) {
		t.Helper()
		slots, err := tr.m.WantedProfiles()
		if err != nil {
			t.Fatal(err)
		}
		up, known = slots["default"]
		return up, known
	}
	if _, known := wanted(); known {
		t.Error("there is a slot before it was made")
	}
	tr.ensure()
	if up, known := wanted(); up || !known {
		t.Error("a new slot is wanted up, or not known")
	}
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err == nil {
		t.Error("it started")
	}
	tr.eventually("it is parked", func() bool { return tr.status().Stopped() })
	if up, _ := wanted(); !up {
		t.Error("what policy parked looks wanted down")
	}
}
