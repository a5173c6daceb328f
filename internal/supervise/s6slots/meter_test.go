package s6slots

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/meter"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
)

// boot starts the slot as a container's start does: nobody asked.
func (tr *tree) boot() {
	tr.t.Helper()
	tr.ensure()
	if err := awaitSupervisor(tr.ctx(), tr.slot()); err != nil {
		tr.t.Fatal(err)
	}
	if err := s6.Send(tr.slot(), s6.Up); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) wantMeter(n int) {
	tr.t.Helper()
	if m := meter.Read(tr.home); m.Deaths != n {
		tr.t.Errorf("the volume knows of %d deaths, want %d", m.Deaths, n)
	}
}

// A loop stays known in a new container: the slot that was parked gets one
// trial at once and, when that fails, is parked again at once. `gateway start`
// forgives everything.
func TestMeterSurvivesANewContainer(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	tr.change(func(r *slot.Record) { r.Meter.Deaths = supervise.ParkAfter - 1 })
	tr.kill(tr.status().PID)
	tr.eventually("the slot is parked", func() bool { return slot.ReadRecord(tr.slot()).State == supervise.Parked && tr.status().Up })
	tr.eventually("the volume knows", func() bool { return meter.Read(tr.home).Deaths == supervise.ParkAfter })

	next := newTreeOn(t, tr.home, "words=no-token exit=3")
	next.boot()
	next.eventually("the trial failed", func() bool { return slot.ReadRecord(next.slot()).State == supervise.Parked })
	s := next.service()
	if !strings.HasPrefix(s.Reason, "21 deaths without a minute of readiness, the last: exit code 3: no-token") || s.Until == nil || s.Restarts != 1 {
		t.Errorf("after the trial: %+v", s)
	}
	next.eventually("the volume knows of the trial", func() bool { return meter.Read(tr.home).Deaths == supervise.ParkAfter+1 })
	next.plan("ready")
	if err := next.m.Start(next.ctx(), next.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	next.wantMeter(0)
	if r := slot.ReadRecord(next.slot()); r.Meter.Deaths != 0 || r.State != "" {
		t.Errorf("after gateway start: %+v", r)
	}
}

// The main program asks at each start of a container; that forgives nothing.
func TestMainProgramDoesNotClearTheMeter(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	if err := meter.Write(tr.home, supervise.Meter{Deaths: 7}); err != nil {
		t.Fatal(err)
	}
	tr.ensure()
	tr.m.By = intent.ByMainProgram
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	tr.wantMeter(7)
	if r := slot.ReadRecord(tr.slot()); r.Meter.Deaths != 7 {
		t.Errorf("the record says %+v", r.Meter)
	}
}

// A volume that takes no meter keeps no service from starting; the record in
// the run directory counts on.
func TestMeterThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "exit=3")
	if err := os.MkdirAll(filepath.Join(tr.home, meter.FileName, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	tr.boot()
	tr.eventually("three deaths", func() bool { return slot.ReadRecord(tr.slot()).Meter.Deaths >= 3 })
}

func TestParkedReasonHoldsTheLastLogLines(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	tr.eventually("it has logged", func() bool { return strings.Contains(tr.read("logs/gateways/default/current"), "serving as") })
	tr.change(func(r *slot.Record) { r.Meter.Deaths = supervise.ParkAfter - 1 })
	tr.kill(tr.status().PID)
	tr.eventually("the slot is parked", func() bool { return slot.ReadRecord(tr.slot()).State == supervise.Parked })
	if s := tr.service(); !strings.Contains(s.Reason, "killed by signal KILL; it last logged: serving as ") || strings.Contains(s.Reason, "\n") {
		t.Errorf("parked: %q", s.Reason)
	}
}

// The kernel's counter, as the container sees it, tells its KILL from another.
func TestOutOfMemoryIsNamed(t *testing.T) {
	for name, c := range map[string]struct{ file, before, after, reason string }{
		"v1":         {"memory/memory.oom_control", "under_oom 0\noom_kill 4\n", "under_oom 0\noom_kill 5\n", "killed by signal KILL while the container was out of memory"},
		"v2":         {"memory.events", "oom 0\noom_kill 0\n", "oom 1\noom_kill 1\n", "killed by signal KILL while the container was out of memory"},
		"no memory":  {"memory.events", "oom_kill 1\n", "oom_kill 1\n", "killed by signal KILL"},
		"not to see": {"memory.events", "oom 1\n", "oom 2\n", "killed by signal KILL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTree(t, "ready")
			counter := filepath.Join(tr.home, "cgroup", c.file)
			writeFile(t, counter, c.before, 0o644)
			tr.ensure()
			if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
				t.Fatal(err)
			}
			writeFile(t, counter, c.after, 0o644)
			pid := tr.status().PID
			tr.kill(pid)
			tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != pid })
			if x := tr.service().LastExit; x == nil || x.Reason != c.reason || x.Signal == nil || *x.Signal != "KILL" {
				t.Errorf("last exit %+v, want %q", x, c.reason)
			}
		})
	}
}
