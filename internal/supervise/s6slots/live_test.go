package s6slots

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
)

func TestRegisterStartReady(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	if tr.m.Registered(tr.spec.Name) {
		t.Error("registered before it was")
	}
	tr.ensure()
	if s := tr.service(); s.State != supervise.Down || s.Want != supervise.WantDown || s.PID != nil || s.LastExit != nil {
		t.Errorf("a new slot: %+v", s)
	}
	for range 2 { // the second time it is up already
		if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
			t.Fatal(err)
		}
	}
	s := tr.service()
	if !tr.status().Serving() || s.Want != supervise.WantUp || s.PID == nil || s.MemoryBytes == nil || s.Restarts != 0 {
		t.Errorf("a started slot: %+v", s)
	}
	if got := tr.read("args"); got != "hermes gateway run --replace -v" {
		t.Errorf("the slot runs %q", got)
	}
	if !tr.m.Registered(tr.spec.Name) || len(tr.copies()) != 1 {
		t.Errorf("copies: %+v", tr.copies())
	}
}

// A registered slot takes new data, and runs it from its next start on.
func TestEnsureAgainUpdates(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	tr.spec.Args = append(tr.spec.Args, "-q")
	tr.ensure()
	if err := tr.m.Restart(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	if got := tr.read("args"); got != "hermes gateway run --replace -v -q" {
		t.Errorf("the slot runs %q", got)
	}
}

// The last exit that is known lies ahead, the clock was set back: the next death is
// a failure of the start all the same.
func TestStartTellsOfADeathAlsoWhenTheClockWasSet(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	tr.ensure()
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	tr.change(func(r *slot.Record) { r.LastExit.At = r.LastExit.At.Add(24 * time.Hour) })
	tr.plan("words=no-token exit=3")
	want := "gateway-default died before it was ready: exit code 3: no-token; "
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s…", err, want)
	}
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
}

func TestKilledServiceComesBack(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	pid := tr.status().PID
	tr.kill(pid)
	tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != pid })
	s := tr.service()
	if s.Restarts != 1 || s.RequestedRestarts != 0 || s.LastExit == nil {
		t.Fatalf("%+v", s)
	}
	if x := s.LastExit; x.Signal == nil || *x.Signal != "KILL" || x.Code != nil || x.Asked || x.Reason != "killed by signal KILL" {
		t.Errorf("last exit %+v", x)
	}
}

func TestWrongConfigurationParks(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "exit=78")
	tr.ensure()
	err := tr.m.Start(tr.ctx(), tr.spec.Name, true)
	if err == nil || !strings.Contains(err.Error(), "gateway-default is parked: exit code 78: the configuration is wrong") {
		t.Errorf("start: %v", err)
	}
	tr.eventually("finish is done", func() bool { return tr.status().Stopped() })
	s := tr.service()
	if s.State != supervise.Parked || s.Reason != "exit code 78: the configuration is wrong" || s.Want != supervise.WantUp || s.Until != nil || s.Restarts != 0 || s.PID != nil {
		t.Errorf("parked: %+v", s)
	}
	tr.eventually("its log says how to go on", func() bool {
		return strings.Contains(tr.read("logs/gateways/default/current"), "then: hermes gateway start")
	})
	tr.plan("ready")
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	if s := tr.service(); s.State == supervise.Parked || s.Reason == "exit code 78: the configuration is wrong" || s.LastExit == nil || *s.LastExit.Code != 78 {
		t.Errorf("started again: %+v", s)
	}
}

func TestCrashLoopBacksOffAndStartEndsThePause(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	tr.change(func(r *slot.Record) { r.Meter.Deaths = 8 })
	tr.plan("exit=3")
	before := time.Now()
	tr.kill(tr.status().PID)
	tr.eventually("the slot backs off", func() bool { return slot.ReadRecord(tr.slot()).State == supervise.Backoff && tr.status().Up })
	s := tr.service()
	if s.State != supervise.Backoff || s.Until == nil || s.Restarts != 1 || s.Reason != "killed by signal KILL" {
		t.Fatalf("backing off: %+v", s)
	}
	if pause := s.Until.Sub(before); pause < 30*time.Second || pause > 70*time.Second {
		t.Errorf("pauses for %s, want 30 to 60 s", pause)
	}
	if len(tr.copies()) != 0 {
		t.Errorf("runs while it pauses: %+v", tr.copies())
	}
	tr.plan("ready")
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(before); took > 20*time.Second {
		t.Errorf("start took %s, so it served the pause", took)
	}
	if s := tr.service(); s.Until != nil || slot.ReadRecord(tr.slot()).Meter.Deaths != 0 {
		t.Errorf("after start: %+v", s)
	}
}

// What ended the service is its last exit, not the TERM that ended the pause.
func TestStopDuringThePauseKeepsTheLastExit(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	tr.change(func(r *slot.Record) { r.Meter.Deaths = 8 })
	tr.kill(tr.status().PID)
	tr.eventually("the slot backs off", func() bool { return slot.ReadRecord(tr.slot()).State == supervise.Backoff && tr.status().Up })
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	s := tr.service()
	if s.State != supervise.Down || s.Until != nil || len(tr.copies()) != 0 {
		t.Errorf("stopped while it paused: %+v", s)
	}
	if x := s.LastExit; x == nil || x.Signal == nil || *x.Signal != "KILL" || x.Asked {
		t.Errorf("last exit %+v, want the death before the pause", x)
	}
}

// The line that a service died with is its reason, once.
func TestLastWords(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "words=port-taken exit=78")
	tr.ensure()
	err := tr.m.Start(tr.ctx(), tr.spec.Name, true)
	if err == nil || !strings.Contains(err.Error(), "port-taken") || strings.Contains(err.Error(), "more") {
		t.Errorf("start: %v", err)
	}
	if s := tr.service(); !strings.Contains(s.Reason, "port-taken") || !strings.Contains(s.LastExit.Reason, "port-taken") {
		t.Errorf("%+v", s)
	}
	tr.plan("exit=78")
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err == nil || strings.Contains(err.Error(), "port-taken") {
		t.Errorf("words of an earlier run: %v", err)
	}
}

// A loop from its beginning, without help: at once, then after a pause.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "exit=3")
	tr.ensure()
	err := tr.m.Start(tr.ctx(), tr.spec.Name, true)
	if err == nil || !strings.Contains(err.Error(), "exit code 3; it is tried again") {
		t.Errorf("start: %v", err)
	}
	tr.eventually("three deaths", func() bool { return slot.ReadRecord(tr.slot()).Meter.Deaths >= 3 })
	s := tr.service()
	if s.Restarts < 3 || *s.LastExit.Code != 3 || s.LastExit.Asked || s.Want != supervise.WantUp {
		t.Errorf("in a loop: %+v", s)
	}
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil { // TERM ends the pause
		t.Fatal(err)
	}
	if s := tr.service(); s.State != supervise.Down || s.Until != nil {
		t.Errorf("stopped: %+v", s)
	}
}

func TestTwentyDeathsParkWithATrial(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	tr.change(func(r *slot.Record) { r.Meter.Deaths = supervise.ParkAfter - 1 })
	tr.kill(tr.status().PID)
	tr.eventually("the slot is parked", func() bool { return slot.ReadRecord(tr.slot()).State == supervise.Parked })
	s := tr.service()
	if s.Until == nil || time.Until(*s.Until) < supervise.TrialEvery-time.Minute || !strings.HasPrefix(s.Reason, "20 deaths without a minute of readiness") || s.Want != supervise.WantUp {
		t.Errorf("parked: %+v", s)
	}
	if err := tr.m.Restart(tr.ctx(), tr.spec.Name, true); err != nil { // nothing to drain: the same as start
		t.Fatal(err)
	}
}

// The trial comes by itself when its time has come, and the meter stays.
func TestTrialComesWhenItIsTime(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	tr.ensure()
	soon := time.Now().Add(time.Second)
	tr.change(func(r *slot.Record) { r.State, r.Until, r.Meter.Deaths = supervise.Parked, &soon, 25 })
	if err := s6.Send(tr.slot(), s6.Up); err != nil {
		t.Fatal(err)
	}
	tr.eventually("the trial runs", func() bool { return tr.status().Serving() })
	if time.Now().Before(soon) {
		t.Error("the trial came too early")
	}
	if r := slot.ReadRecord(tr.slot()); r.State != "" || r.Meter.Deaths != 25 {
		t.Errorf("on trial: %+v", r)
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	for range 2 { // the second time it is down already
		if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
			t.Fatal(err)
		}
	}
	s := tr.service()
	if s.State != supervise.Down || s.Want != supervise.WantDown || s.Restarts != 0 || s.LastExit == nil {
		t.Fatalf("stopped: %+v", s)
	}
	if x := s.LastExit; !x.Asked || x.Code == nil || *x.Code != 0 {
		t.Errorf("last exit %+v", x)
	}
	if _, outstanding := slot.TakeAsked(tr.slot()); outstanding {
		t.Error("the stop is still outstanding: it would excuse the next death")
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	pid := tr.status().PID
	if err := tr.m.Restart(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	s := tr.service()
	if !tr.status().Serving() || tr.status().PID == pid || s.RequestedRestarts != 1 || s.Restarts != 0 || !s.LastExit.Asked {
		t.Errorf("restarted: %+v", s)
	}
	if r := slot.ReadRecord(tr.slot()); r.Meter.Deaths != 0 || r.State != "" {
		t.Errorf("an asked restart counts: %+v", r)
	}
	// What was asked for is used up: the next death is an accident again.
	pid = tr.status().PID
	tr.kill(pid)
	tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != pid })
	if s := tr.service(); s.Restarts != 1 || s.RequestedRestarts != 1 || s.LastExit.Asked {
		t.Errorf("killed after a restart: %+v", s)
	}
}

// A start that overrules a stop under way is a restart: the end was asked for.
func TestStartOverrulesAStop(t *testing.T) {
	t.Parallel()
	tr := started(t, "linger ready")
	pid := tr.status().PID
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, false); err != nil {
		t.Fatal(err)
	}
	tr.eventually("the stop is under way", func() bool { return !tr.status().WantUp })
	if err := tr.m.Up(tr.spec.Name); err != nil {
		t.Fatal(err)
	}
	tr.eventually("the stop is overruled", func() bool { return tr.status().WantUp })
	note(tr.home, "go", "")
	tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != pid })
	if s := tr.service(); s.RequestedRestarts != 1 || s.Restarts != 0 || !s.LastExit.Asked {
		t.Errorf("%+v", s)
	}
}

// A mark that a stop left behind, because the service had ended by itself,
// excuses nothing.
func TestStaleAskedMarkIsDropped(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	tr.ensure()
	if err := (slot.Asked{Kind: slot.AskedStop, By: "test", At: time.Now()}).Write(tr.slot()); err != nil {
		t.Fatal(err)
	}
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	pid := tr.status().PID
	tr.kill(pid)
	tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != pid })
	if s := tr.service(); s.Restarts != 1 || s.RequestedRestarts != 0 || s.LastExit.Asked {
		t.Errorf("%+v", s)
	}
}

// A restart ends the run that it saw and no other: where that one ends by itself
// at the same moment, the next one is left alone, and its own death is its own.
func TestRestartEndsTheRunItSaw(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	_, saw, err := lookAtRun(tr.ctx(), tr.slot())
	if err != nil || saw.Start == 0 || saw.PID != tr.status().PID {
		t.Fatalf("%+v, %v; want the process of %+v", saw, err, tr.status())
	}
	back := func(pid int) (next int) {
		tr.kill(pid)
		tr.eventually("the service is back", func() bool { st := tr.status(); next = st.PID; return st.Serving() && next != pid })
		return next
	}
	next := back(saw.PID)
	if err := (slot.Asked{Kind: slot.AskedRestart, By: "test", At: time.Now(), PID: saw.PID}).Write(tr.slot()); err != nil {
		t.Fatal(err)
	}
	if err := tellRun(tr.slot(), saw, s6.Restart+s6.Continue, unix.SIGTERM, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	back(next)
	s := tr.service()
	if s.Restarts != 2 || s.RequestedRestarts != 0 || s.LastExit.Signal == nil || *s.LastExit.Signal != "KILL" {
		t.Errorf("%+v, want two deaths by KILL that nobody asked for", s)
	}
}

func TestRestartOfADownSlotStartsIt(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	tr.ensure()
	if err := tr.m.Restart(tr.ctx(), tr.spec.Name, true); err != nil || !tr.status().Serving() {
		t.Errorf("restart: %v, %+v", err, tr.status())
	}
}

func TestDeafServiceIsKilledAtTheStopTimeout(t *testing.T) {
	const limit = 400 * time.Millisecond
	short := func(s *supervise.Spec) { s.StopTimeout = limit }
	t.Run("stop", func(t *testing.T) {
		t.Parallel()
		tr := started(t, "deaf ready", short)
		began := time.Now()
		if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
			t.Fatal(err)
		}
		checkKilled(t, tr, time.Since(began), limit)
	})
	t.Run("restart", func(t *testing.T) {
		t.Parallel()
		tr := started(t, "deaf ready", short)
		began := time.Now()
		if err := tr.m.Restart(tr.ctx(), tr.spec.Name, true); err != nil {
			t.Fatal(err)
		}
		checkKilled(t, tr, time.Since(began), limit)
		if s := tr.service(); s.RequestedRestarts != 1 || !tr.status().Serving() {
			t.Errorf("restarted: %+v", s)
		}
	})
}

func checkKilled(t *testing.T, tr *tree, took, limit time.Duration) {
	t.Helper()
	if took < limit {
		t.Errorf("took %s, less than the %s that the service has", took, limit)
	}
	if x := tr.service().LastExit; x == nil || x.Signal == nil || *x.Signal != "KILL" || !x.Asked {
		t.Errorf("last exit %+v, want an asked KILL", x)
	}
}

// s6-supervise killed with -9 leaves its child: the next one must end it
// before it starts its own.
func TestKilledSupervisorLeavesOneCopy(t *testing.T) {
	for _, plan := range []string{"ready", "deaf ready"} {
		t.Run(plan, func(t *testing.T) {
			t.Parallel()
			tr := started(t, plan)
			old := tr.copies()
			held, supervisor, err := s6.Supervised(tr.slot())
			if err != nil || !held || len(old) != 1 {
				t.Fatalf("before: %v %v %+v", held, err, old)
			}
			tr.kill(supervisor)
			tr.eventually("a new supervisor has a ready service", func() bool {
				held, pid, err := s6.Supervised(tr.slot())
				st := tr.status() // once: until the new supervisor writes its own, the old one's status says serving
				return err == nil && held && pid != supervisor && st.Serving() && st.PID != old[0].PID
			})
			if now := tr.copies(); len(now) != 1 || now[0].PID != tr.status().PID || old[0].Alive() {
				t.Errorf("copies %+v, want pid %d alone; the old one lives: %v", now, tr.status().PID, old[0].Alive())
			}
		})
	}
}

// What the service started does not outlive it, in a session of its own or not.
func TestChildrenAreSweptByFinish(t *testing.T) {
	for _, how := range []string{"killed", "stopped"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			tr := started(t, "leave ready")
			pid, err := strconv.Atoi(tr.read("left"))
			if err != nil {
				t.Fatal(err)
			}
			child, err := proc.Read(pid)
			if err != nil || child.Session != pid {
				t.Fatalf("the child: %+v, %v", child, err)
			}
			if how == "stopped" {
				err = tr.m.Stop(tr.ctx(), tr.spec.Name, true)
			} else {
				tr.plan("ready") // the next run leaves nothing
				was := tr.status().PID
				tr.kill(was)
				tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != was })
			}
			if err != nil || child.Alive() {
				t.Errorf("the child lives: %v, %v", child.Alive(), err)
			}
			want := map[string]int{"killed": 1, "stopped": 0}[how]
			if left := proc.Match(func(p proc.Process) bool { return p.HasEnv(tr.spec.Mark) }); len(left) != want {
				t.Errorf("marked processes: %+v, want %d", left, want)
			}
		})
	}
}

func TestWithdraw(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	if err := tr.m.Withdraw(tr.ctx(), "gateway-none"); err != nil {
		t.Errorf("a slot that is not there: %v", err)
	}
	if err := tr.m.Withdraw(tr.ctx(), tr.spec.Name); err != nil {
		t.Fatal(err)
	}
	if st := tr.status(); !st.Stopped() || st.WantUp || !exists(filepath.Join(tr.slot(), "down")) || len(tr.copies()) != 0 {
		t.Errorf("withdrawn: %+v, copies %+v", st, tr.copies())
	}
}

// A slot that nothing supervises yet stays down when something does.
func TestWithdrawBeforeThereIsASupervisor(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	if err := os.Mkdir(tr.slot(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := slot.Write(tr.slot(), tr.spec, slot.WriteOptions{Binary: tr.m.Binary}); err != nil {
		t.Fatal(err)
	}
	if err := tr.m.Withdraw(tr.ctx(), tr.spec.Name); err != nil {
		t.Fatal(err)
	}
	if err := tr.dir.Scan().Control(s6.Scan); err != nil {
		t.Fatal(err)
	}
	tr.eventually("a supervisor runs", func() bool { _, err := s6.ReadStatus(tr.slot()); return err == nil })
	if st := tr.status(); st.WantUp || st.Up {
		t.Errorf("withdrawn, and yet %+v", st)
	}
}

func TestNothingStartsWhileTheContainerStops(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	tr.ensure()
	if err := os.WriteFile(tr.dir.StoppingFlag(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	other := tr.spec
	other.Name = "gateway-work"
	for what, err := range map[string]error{
		"ensure":         tr.m.Ensure(tr.ctx(), other),
		"up":             tr.m.Up(tr.spec.Name),
		"start":          tr.m.Start(tr.ctx(), tr.spec.Name, true),
		"restart a down": tr.m.Restart(tr.ctx(), tr.spec.Name, true),
	} {
		if !errors.Is(err, supervise.ErrStopping) {
			t.Errorf("%s: %v, want %v", what, err, supervise.ErrStopping)
		}
	}
	if tr.m.Registered("gateway-work") || tr.status().WantUp {
		t.Error("something was started")
	}
}

// A service that never says that it is ready is waited for until the caller
// has enough, and goes on.
func TestStartGivesUpWaiting(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "")
	tr.ensure()
	ctx, cancel := contextWithTimeout(t, 300*time.Millisecond)
	defer cancel()
	err := tr.m.Start(ctx, tr.spec.Name, true)
	if err == nil || !strings.Contains(err.Error(), "goes on in the background") {
		t.Errorf("start: %v", err)
	}
	if s := tr.service(); s.Want != supervise.WantUp {
		t.Errorf("%+v", s)
	}
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, false); err != nil {
		t.Errorf("without waiting: %v", err)
	}
}

// What the service sees: the sentinel, where to say ready, its home, the mark,
// and nothing that belongs to another profile.
func TestEnvironment(t *testing.T) {
	foreign := []string{"API_SERVER_PORT=1", "API_SERVER_KEY=k", "API_SERVER_KEY_FILE=/k", "HERMES_MODEL_API_KEY=m", "HERMES_MODEL_BASE_URL=u", "VENDOR_BOT_TOKEN=t"}
	for _, entry := range append(foreign, "OTHER=stays", "HERMES_S6_SUPERVISED_CHILD=0", "HERMES_SLOT=somebody", "HERMES_HOME=/elsewhere", "HERMES_RUN_DIR=/elsewhere") {
		name, value, _ := strings.Cut(entry, "=")
		t.Setenv(name, value)
	}
	for _, owns := range []bool{true, false} {
		t.Run(fmt.Sprintf("owns=%v", owns), func(t *testing.T) {
			tr := started(t, "ready", func(s *supervise.Spec) { s.OwnsEnvironment = owns })
			env := strings.Split(tr.read("environ"), "\x00")
			for _, entry := range []string{"HERMES_S6_SUPERVISED_CHILD=1", "HERMES_NOTIFY_FD=3", "HERMES_HOME=" + tr.home, "HERMES_RUN_DIR=" + string(tr.dir), tr.spec.Mark, "OTHER=stays"} {
				name, _, _ := strings.Cut(entry, "=")
				same := func(e string) bool { return strings.HasPrefix(e, name+"=") }
				if i := slices.IndexFunc(env, same); i < 0 || env[i] != entry || slices.ContainsFunc(env[i+1:], same) {
					t.Errorf("want %s once, got %q", entry, slices.DeleteFunc(slices.Clone(env), func(e string) bool { return !same(e) }))
				}
			}
			for _, entry := range foreign {
				if slices.Contains(env, entry) != owns {
					t.Errorf("%s in the environment: %v, want %v", entry, !owns, owns)
				}
			}
		})
	}
}

// A user's own service runs from its directory, with its own settings.
func TestUserService(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "")
	source := filepath.Join(tr.home, "web")
	for name, body := range map[string]string{
		"run":    "#!/bin/sh\npwd > " + tr.home + "/cwd\ntrap 'exit 5' HUP\necho >&3\nwhile :; do sleep 0.02; done\n",
		"finish": "#!/bin/sh\necho \"$@\" > " + tr.home + "/finish\n",
	} {
		writeFile(t, filepath.Join(source, name), body, 0o755)
	}
	writeFile(t, filepath.Join(source, "notification-fd"), "3\n", 0o644)
	writeFile(t, filepath.Join(source, "down-signal"), "HUP\n", 0o644)
	tr.spec = supervise.Place{Home: tr.home, RunDir: string(tr.dir)}.Service("web", source)
	tr.ensure()
	if err := tr.m.Start(tr.ctx(), "web", true); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(tr.read("cwd")); got != source {
		t.Errorf("runs in %q, want %q", got, source)
	}
	if s := tr.service(); s.State != supervise.Ready || s.Kind != supervise.KindService || s.Profile != nil {
		t.Errorf("%+v", s)
	}
	if err := tr.m.Stop(tr.ctx(), "web", true); err != nil {
		t.Fatal(err)
	}
	if got := tr.read("finish"); got != "5 0 web\n" {
		t.Errorf("finish was told %q, want the exit code of HUP's trap", got)
	}
}

// A log directory that cannot be written costs the files, not the service.
func TestUnwritableLogDirectory(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	writeFile(t, filepath.Join(tr.home, "logs"), "a file in its place", 0o644)
	tr.ensure()
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	if _, err := s6.Wait(tr.ctx(), filepath.Join(tr.slot(), "log"), s6.Status.Running); err != nil {
		t.Errorf("the logger does not run: %v", err)
	}
}

func TestLogFile(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	want := "serving as " + strconv.Itoa(tr.status().PID)
	tr.eventually("the log has the line", func() bool {
		for line := range strings.Lines(tr.read("logs/gateways/default/current")) {
			// T: ISO 8601 and a space before the line, and no prefix.
			if stamp, text, ok := strings.Cut(strings.TrimSpace(line), "  "); ok && text == want {
				_, err := time.Parse("2006-01-02 15:04:05.999999999", stamp)
				return err == nil
			}
		}
		return false
	})
}

// What a full disk or a stuck reader leaves in the logger's memory is bounded.
func TestLoggerMemoryIsBounded(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	st, err := s6.Wait(tr.ctx(), filepath.Join(tr.slot(), "log"), s6.Status.Running)
	if err != nil {
		t.Fatal(err)
	}
	limits := fmt.Sprintf("/proc/%d/limits", st.PID)
	tr.eventually("the logger has its limit", func() bool { // it is hermes until it executes s6-log
		for line := range strings.Lines(read("/", limits)) {
			if fields := strings.Fields(line); strings.HasPrefix(line, "Max data size") {
				return len(fields) > 3 && fields[3] == "16777216" // bytes
			}
		}
		return false
	})
}
