package s6slots

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/meter"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
)

// operator is one of several who command the same slot at once; each notes its
// wish where the command line notes the intent.
func (tr *tree) operator(n int, wish string) *Manager {
	m := *tr.m
	m.By, m.Note = "op"+strconv.Itoa(n), func() error { return os.WriteFile(filepath.Join(tr.home, "wish"), []byte(wish), 0o644) }
	return &m
}

// do runs one random command and says whether it was answered with success.
// One that a later command overruled says so; any other failure is an untruth.
func (tr *tree) do(n int, what string) (bool, error) {
	wait := rand.IntN(4) > 0
	var err error
	switch what {
	case "start":
		err = tr.operator(n, "up").Start(tr.ctx(), tr.spec.Name, wait)
	case "restart":
		err = tr.operator(n, "up").Restart(tr.ctx(), tr.spec.Name, wait)
	default:
		err = tr.operator(n, "down").Stop(tr.ctx(), tr.spec.Name, wait)
	}
	if err != nil && (what == "stop" || !strings.Contains(err.Error(), "was stopped before it was ready")) {
		return false, fmt.Errorf("%s by op%d: %w", what, n, err)
	}
	return err == nil, nil
}

// Many operators at once: each gets an answer, there is one copy at most, and
// in the end the slot does what the last wish says.
func TestManyCommandsAtOnce(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	for round := range 3 {
		var wg sync.WaitGroup
		for n := range 6 {
			wg.Go(func() {
				if _, err := tr.do(n, []string{"start", "stop", "restart"}[rand.IntN(3)]); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
		wish := tr.read("wish")
		tr.eventually("the slot does what the last wish says: "+wish, func() bool {
			st, copies := tr.status(), len(tr.copies())
			if copies > 1 {
				t.Errorf("%d copies", copies)
			}
			return wish == "up" && st.Serving() && copies == 1 || wish == "down" && st.Stopped() && !st.WantUp && copies == 0
		})
	}
	if s := tr.service(); s.Restarts != 0 {
		t.Errorf("a command counts as a crash: %+v", s)
	}
}

// A command that has waited long enough names whom it waited for.
func TestBusySlotIsNamed(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	tr.ensure()
	unlock, err := tr.operator(7, "").serialize(tr.ctx(), tr.spec.Name, "restart", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tr.m.serialize(tr.ctx(), tr.spec.Name, "stop", 50*time.Millisecond)
	want := fmt.Sprintf("cannot stop gateway-default: restart by op7 (uid %d, pid %d) is at work on it since ", os.Getuid(), os.Getpid())
	if !errors.Is(err, supervise.ErrConflict) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s…", err, want)
	}
	ctx, cancel := context.WithCancel(tr.ctx())
	cancel()
	if _, err := tr.m.serialize(ctx, tr.spec.Name, "stop", time.Second); !errors.Is(err, context.Canceled) {
		t.Errorf("a command that was interrupted: %v", err)
	}
	unlock()
	if unlock, err = tr.m.serialize(tr.ctx(), tr.spec.Name, "stop", time.Second); err != nil {
		t.Fatal(err)
	}
	unlock()
	if _, err := os.Stat(filepath.Join(tr.slot(), busyFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the name stays: %v", err)
	}
}

// A wish that cannot be noted changes nothing.
func TestWishThatCannotBeNoted(t *testing.T) {
	t.Parallel()
	tr := started(t, "ready")
	m := *tr.m
	broken := errors.New("no intent")
	m.Note = func() error { return broken }
	for what, err := range map[string]error{
		"stop":    m.Stop(tr.ctx(), tr.spec.Name, true),
		"restart": m.Restart(tr.ctx(), tr.spec.Name, true),
		"start":   m.Start(tr.ctx(), tr.spec.Name, true),
	} {
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if s := tr.service(); !tr.status().Serving() || s.RequestedRestarts != 0 {
		t.Errorf("%+v", s)
	}
}

// stop --no-wait and a start behind it: the run that is ending still looks
// ready, and is not the one that the start answers for.
func TestStartAfterAStopThatNobodyWaitedFor(t *testing.T) {
	t.Parallel()
	tr := started(t, "linger ready")
	pid := tr.status().PID
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, false); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() { answer <- tr.m.Start(tr.ctx(), tr.spec.Name, true) }()
	tr.eventually("the start is asked for", func() bool { return tr.status().WantUp })
	if st := tr.status(); st.PID != pid || !st.Ready {
		t.Fatalf("the ending run is gone already: %+v", st)
	}
	select {
	case err := <-answer:
		t.Fatalf("the ending run was reported: %v", err)
	default:
	}
	note(tr.home, "go", "")
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if st := tr.status(); !st.Serving() || st.PID == pid {
		t.Errorf("%+v", st)
	}
}

// A start that somebody stops does not wait for what will never come.
func TestStopOverrulesAStartThatWaits(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "never-ready")
	tr.ensure()
	answer := make(chan error, 1)
	go func() { answer <- tr.m.Start(tr.ctx(), tr.spec.Name, true) }()
	tr.eventually("it runs", func() bool { return tr.status().Running() })
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; !errors.Is(err, supervise.ErrConflict) || exitcode.Of(err) != exitcode.Failed ||
		!strings.Contains(err.Error(), "gateway-default was stopped before it was ready") {
		t.Errorf("the start says %v", err)
	}
}

// A restart from inside one of the gateway's own turns is asked for, and does
// not wait for the end of that turn.
func TestRestartFromInside(t *testing.T) {
	t.Parallel()
	tr := started(t, "linger ready")
	pid := tr.status().PID
	m := *tr.m
	m.Mark = strings.TrimPrefix(tr.spec.Mark, supervise.MarkVar+"=")
	if !m.Inside(tr.spec.Name) || tr.m.Inside(tr.spec.Name) {
		t.Fatal("who is inside?")
	}
	if err := m.Restart(tr.ctx(), tr.spec.Name, false); err != nil {
		t.Fatal(err)
	}
	if st := tr.status(); st.PID != pid {
		t.Errorf("the restart waited for the end of the run: %+v", st)
	}
	note(tr.home, "go", "")
	tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != pid })
	if s := tr.service(); s.RequestedRestarts != 1 || s.Restarts != 0 {
		t.Errorf("%+v", s)
	}
}

// Every stop and start is in the audit log: who, why, what signal, what exit.
func TestAudit(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	tr.boot()
	tr.eventually("it serves", func() bool { return tr.status().Serving() })
	uid, pid := 4711, tr.status().PID
	m := *tr.m
	m.By, m.UID, m.Why = "cli", &uid, "new token"
	if err := m.Restart(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	second := tr.status().PID
	tr.kill(second)
	tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != second })
	third := tr.status().PID
	if err := m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(tr.read("logs/audit.log")) {
		_, fields, _ := strings.Cut(strings.TrimSpace(line), " ")
		got = append(got, fields)
	}
	asks := fmt.Sprintf("by=cli uid=4711 pid=%d signal=TERM why=\"new token\"", os.Getpid())
	for i, want := range []string{
		fmt.Sprintf("slot=gateway-default run=began by=boot pid=%d", pid),
		"slot=gateway-default ask=restart " + asks,
		fmt.Sprintf("slot=gateway-default run=ended pid=%d asked=true by=cli exit=0 ready=", pid),
		fmt.Sprintf("slot=gateway-default run=began by=cli pid=%d", second),
		fmt.Sprintf("slot=gateway-default run=ended pid=%d asked=false signal=KILL ready=", second),
		fmt.Sprintf("slot=gateway-default run=began by=policy pid=%d", third),
		"slot=gateway-default ask=stop " + asks,
		fmt.Sprintf("slot=gateway-default run=ended pid=%d asked=true by=cli exit=0 ready=", third),
	} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Fatalf("line %d is not %s…:\n%s", i+1, want, strings.Join(got, "\n"))
		}
	}
	if len(got) != 8 || !strings.Contains(got[4], ` next=restart why="killed by signal KILL"`) || !strings.Contains(got[7], " next=down ") {
		t.Errorf("the log holds:\n%s", strings.Join(got, "\n"))
	}
}

// A slot that is parked for its configuration is tried again when that changes,
// and not before; the meter stays.
func TestChangedConfigurationIsTried(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "exit=78")
	writeFile(t, filepath.Join(tr.home, "config.yaml"), "wrong", 0o600)
	if err := meter.Write(tr.home, supervise.Meter{Deaths: 5}); err != nil {
		t.Fatal(err)
	}
	tr.boot()
	parked := func() bool { return slot.ReadRecord(tr.slot()).State == supervise.Parked && tr.status().Stopped() }
	tr.eventually("it is parked", parked)
	guard := *tr.m
	guard.By = "guard"
	retrier := NewRetrier(&guard)
	retry := func() []string {
		t.Helper()
		names, err := retrier.Look(tr.ctx())
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if names := retry(); names != nil {
		t.Errorf("nothing changed, and %q is tried", names)
	}
	writeFile(t, filepath.Join(tr.home, ".env"), "STILL=wrong", 0o600)
	if names := retry(); len(names) != 1 || names[0] != tr.spec.Name {
		t.Errorf("a new .env: %q is tried", names)
	}
	tr.eventually("it is parked again", func() bool { return parked() && len(retry()) == 0 })
	tr.plan("ready")
	if err := os.Remove(filepath.Join(tr.home, "config.yaml")); err != nil {
		t.Fatal(err)
	}
	if names := retry(); len(names) != 1 {
		t.Errorf("the wrong file is gone, and %q is tried", names)
	}
	tr.eventually("it serves", func() bool { return tr.status().Serving() })
	if s := tr.service(); s.State == supervise.Parked || s.LastExit == nil || *s.LastExit.Code != 78 || slot.ReadRecord(tr.slot()).Meter.Deaths != 5 {
		t.Errorf("%+v with %+v", s, slot.ReadRecord(tr.slot()).Meter)
	}
	if log := tr.read("logs/audit.log"); !strings.Contains(log, `ask=start by=guard`) || !strings.Contains(log, `why="the configuration changed"`) {
		t.Errorf("the log holds:\n%s", log)
	}
}

// A slot that was stopped, or is parked for its deaths, is none of the configuration's.
func TestOtherSlotsAreNotTried(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "exit=78")
	tr.boot()
	tr.eventually("it is parked", func() bool { return slot.ReadRecord(tr.slot()).State == supervise.Parked && tr.status().Stopped() })
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(tr.home, ".env"), "X=1", 0o600)
	if names, err := NewRetrier(tr.m).Look(tr.ctx()); err != nil || names != nil {
		t.Errorf("stopped, and tried: %q, %v", names, err)
	}
	later := time.Now().Add(time.Hour)
	tr.change(func(r *slot.Record) { r.State, r.Until = supervise.Parked, &later })
	if names, err := NewRetrier(tr.m).Look(tr.ctx()); err != nil || names != nil {
		t.Errorf("parked for its deaths, and tried: %q, %v", names, err)
	}
	if st, err := s6.ReadStatus(tr.slot()); err != nil || st.WantUp {
		t.Errorf("%+v, %v", st, err)
	}
}
