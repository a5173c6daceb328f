package slot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

const (
	// sweepLimit leaves finish a second of its three to record and decide.
	sweepLimit = 2 * time.Second
	// sweepGrace is what is left of a dead service gets between TERM and KILL.
	sweepGrace = 300 * time.Millisecond
)

// killedBySignal is what s6-supervise passes as exit code for a signal.
const killedBySignal = 256

// Finish is what s6-supervise executes as `finish CODE|256 SIG NAME` after a
// death. It sweeps, records the death, decides, and never sleeps: the pause is
// served by the next run. Exit code 125 parks the slot.
func (e Entry) Finish(ctx context.Context) error {
	spec, err := ReadSpec(e.Dir)
	if err != nil {
		return err
	}
	e.sweep(ctx, spec)
	if spec.Kind == supervise.KindService {
		if !exists(filepath.Join(spec.Source, "finish")) {
			return nil
		}
		return e.execOwned(spec, "finish", e.Args)
	}
	status, err := s6.ReadStatus(e.Dir)
	if err != nil {
		return err
	}
	death, by, err := e.death(status, time.Now(), proc.Uptime())
	if err != nil {
		return err
	}
	death.Said = takeLastWords(spec)
	if by == "" && rundir.Dir(spec.RunDir).Stopping() {
		by = "container"
	}
	err = e.settle(spec, death, status.WantUp, by)
	removeTemp(spec, tempLimit) // last: it may take longer than finish is given
	return err
}

// sweep ends what the dead service started and left: nothing outlives it.
func (e Entry) sweep(ctx context.Context, spec supervise.Spec) {
	ctx, cancel := context.WithTimeout(ctx, sweepLimit)
	defer cancel()
	if _, err := proc.End(ctx, ReadRecord(e.Dir).belongings(spec.Mark), sweepGrace); err != nil {
		fmt.Fprintf(os.Stderr, "hermes: %s: %v\n", spec.Name, err)
	}
}

// death decodes finish's arguments and asks whether the end was asked for, and
// by whom.
func (e Entry) death(status s6.Status, now time.Time, up time.Duration) (d supervise.Death, by string, err error) {
	d.At = now
	if len(e.Args) < 2 {
		return d, "", exitcode.With(exitcode.Usage, fmt.Errorf("finish wants CODE SIGNAL NAME, got %q", e.Args))
	}
	code, err := strconv.Atoi(e.Args[0])
	if err != nil {
		return d, "", fmt.Errorf("cannot read exit code %q: %w", e.Args[0], err)
	}
	d.Code = code
	if code == killedBySignal {
		sig, err := strconv.Atoi(e.Args[1])
		if err != nil {
			return d, "", fmt.Errorf("cannot read signal %q: %w", e.Args[1], err)
		}
		d.Code, d.Signal = 0, syscall.Signal(sig)
	}
	r := ReadRecord(e.Dir)
	if r.noted() { // else it ended in its pause, or before it noted itself
		d.Lived = up - r.StartedUp
		d.ReadyFor = readyFor(d.Lived, r.Started, status.ReadySince)
	}
	if kills, ok := proc.OOMKills(e.cgroups()); ok && r.OOMKills != nil {
		d.NoMemory = kills > *r.OOMKills
	}
	a, wasAsked := TakeAsked(e.Dir)
	if a.PID != 0 && a.PID == r.Ended { // that run was over already
		a, wasAsked = Asked{}, false
	}
	d.Asked = wasAsked || !status.WantUp
	return d, a.By, nil
}

// readyFor is for how long of a life that began at started a service was ready.
// While finish runs the ready flag is gone already; the stamp is this run's if it
// is younger than the run. Of clocks that are set, only the time between the two
// is taken: one that was set in those few seconds makes the run one that was
// never ready, and no other.
func readyFor(lived time.Duration, started, ready time.Time) time.Duration {
	if !ready.After(started) {
		return 0
	}
	return max(0, lived-ready.Sub(started))
}

// LastWordsPath lies where the service may write also when its supervisor is
// root and it is not.
func LastWordsPath(spec supervise.Spec) string {
	return filepath.Join(rundir.Dir(spec.RunDir).Hermes(), spec.Name+".lastwords")
}

// takeLastWords returns the line the service died with and removes the file.
// The service could have put anything there: links are not followed, and only
// the beginning of its own regular file is believed.
func takeLastWords(spec supervise.Spec) string {
	path := LastWordsPath(spec)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	_ = os.Remove(path) // after the count of names: one of two would look like the only one
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(f, maxLastWords))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return printable(line)
}

// printable replaces what a terminal would obey.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, line)
}

// settle records the death and tells s6 what to do next. by is who asked.
func (e Entry) settle(spec supervise.Spec, d supervise.Death, wantUp bool, by string) error {
	var decision supervise.Decision
	var outcome error
	next, pid := "down", ""
	err := ChangeRecord(e.Dir, func(r *Record) {
		if r.noted() {
			pid = strconv.Itoa(r.PID)
		}
		r.Ended = r.PID
		if !wantUp {
			if r.Until == nil { // else only the pause was stopped; the death before it stays the last
				r.LastExit = exitOf(d)
			}
			*r = r.Cleared()
			return
		}
		r.LastExit, r.By = exitOf(d), by
		decision = supervise.Decide(d, r.Meter, spec.BackoffMax, rand.Float64())
		next = string(decision.Action)
		outcome = r.apply(spec, d, decision)
	})
	noteEnd(spec, d, pid, by, next)
	if wantUp {
		e.say(spec, decision)
		if !d.Asked {
			KeepMeter(spec, decision.Meter)
		}
	}
	return errors.Join(err, outcome)
}

// apply puts a decision into the record; its error is what finish exits with.
func (r *Record) apply(spec supervise.Spec, d supervise.Death, decision supervise.Decision) error {
	r.Meter, r.State, r.Until, r.Reason, r.At = decision.Meter, "", nil, decision.Reason, d.At
	switch decision.Action {
	case supervise.Park:
		r.State = supervise.Parked
		return exitcode.Silent(exitcode.Permanent)
	case supervise.RestartAfter:
		r.State, r.Until = supervise.Backoff, after(d.At, decision.Delay)
	case supervise.Trial:
		r.State, r.Until = supervise.Parked, after(d.At, decision.Delay)
		r.Reason += quoted(lastLines(spec))
	case supervise.RestartNow:
		r.Reason = ""
	}
	r.count(d)
	return nil
}

// noteEnd adds the end of a run to the audit log.
func noteEnd(spec supervise.Spec, d supervise.Death, pid, by, next string) {
	pairs := []string{"run", "ended", "pid", pid, "asked", strconv.FormatBool(d.Asked), "by", by}
	if d.Signal != 0 {
		pairs = append(pairs, "signal", supervise.SignalName(d.Signal))
	} else {
		pairs = append(pairs, "exit", strconv.Itoa(d.Code))
	}
	AuditLine(spec, append(pairs, "ready", d.ReadyFor.Round(time.Millisecond).String(), "next", next, "why", d.Describe())...)
}

// quoted appends log lines to a reason, on its one line.
func quoted(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return "; it last logged: " + strings.Join(lines, " | ")
}

func (r *Record) count(d supervise.Death) {
	if d.Asked {
		r.RequestedRestarts++
		return
	}
	r.Restarts++
}

// say puts the decision into the slot's log, where `docker logs` shows it too.
func (e Entry) say(spec supervise.Spec, d supervise.Decision) {
	switch d.Action {
	case supervise.Park:
		fmt.Fprintf(e.Stdout, "hermes: %s is parked: %s. Mend that, then: %s\n", spec.Name, d.Reason, startCommand(spec))
	case supervise.Trial:
		fmt.Fprintf(e.Stdout, "hermes: %s is parked: %s. One trial in %s; at once: %s\n", spec.Name, d.Reason, d.Delay, startCommand(spec))
	case supervise.RestartAfter:
		fmt.Fprintf(e.Stdout, "hermes: %s: %s; next start in %.1fs\n", spec.Name, d.Reason, d.Delay.Seconds())
	case supervise.RestartNow:
		fmt.Fprintf(e.Stdout, "hermes: %s: %s; starting again\n", spec.Name, d.Reason)
	}
}

// startCommand is what an operator types to end a parking.
func startCommand(spec supervise.Spec) string {
	if spec.Kind == supervise.KindGateway && spec.Profile != "default" {
		return "hermes -p " + spec.Profile + " gateway start"
	}
	if spec.Kind == supervise.KindDashboard || spec.Kind == supervise.KindGuard {
		return "restart the container"
	}
	return "hermes gateway start"
}

func exitOf(d supervise.Death) *supervise.Exit {
	x := &supervise.Exit{Asked: d.Asked, Reason: d.Describe(), At: d.At.UTC()}
	if d.Signal != 0 {
		name := supervise.SignalName(d.Signal)
		x.Signal = &name
	} else {
		code := d.Code
		x.Code = &code
	}
	return x
}

func after(t time.Time, d time.Duration) *time.Time {
	u := t.Add(d).UTC()
	return &u
}
