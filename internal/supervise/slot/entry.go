package slot

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

const (
	// EnvNotify tells the service on which descriptor to say that it is ready.
	EnvNotify = "HERMES_NOTIFY_FD"

	// EnvLastWords names the file into which the service puts the line that it
	// dies with, so that `status` can show it.
	EnvLastWords = "HERMES_LAST_WORDS"
	maxLastWords = 1000 // bytes

	leftoverGrace = 1500 * time.Millisecond // of the 2 s that a leftover is given in all
	leftoverLimit = 5 * time.Second         // then give up: something cannot be killed
	pausePoll     = 50 * time.Millisecond   // how soon `gateway start` ends a pause
	clockSet      = 2 * time.Second         // a clock that is this wrong was set, not corrected
)

// Entry is the environment of a slot's entry points.
type Entry struct {
	Dir     string   // of the slot; the entry's working directory
	Args    []string // after argv[0]
	Environ []string
	Binary  string // hermes itself
	Stdout  io.Writer
	Exec    func(path string, argv, env []string) error // never returns on success
	Cgroups string                                      // where the control groups are; default proc.CgroupRoot
}

func (e Entry) cgroups() string {
	if e.Cgroups == "" {
		return proc.CgroupRoot
	}
	return e.Cgroups
}

// Run is what s6-supervise executes as `run NAME`: it serves the pause that
// the last death earned, ends what an earlier run left behind, sets the
// sentinel and becomes the service.
func (e Entry) Run(ctx context.Context) error {
	spec, err := ReadSpec(e.Dir)
	if err != nil {
		return err
	}
	if err := e.servePause(ctx); err != nil {
		return err
	}
	if err := e.endLeftovers(ctx, spec); err != nil {
		return err
	}
	removeTemp(spec, staleTempLimit)
	if err := e.recordRun(spec); err != nil {
		return err
	}
	if spec.Kind == supervise.KindService {
		return e.execOwned(spec, "run", nil)
	}
	if err := drop(spec); err != nil {
		return err
	}
	// One stream: the logger is behind stdout.
	if err := unix.Dup3(1, 2, 0); err != nil {
		return fmt.Errorf("cannot join stderr to the log: %w", err)
	}
	setTag(spec)
	argv := append([]string{"hermes"}, spec.Args...)
	env, _, _ := Environment(e.Environ, spec)
	if spec.Kind == supervise.KindGateway {
		if turn := takeTurn(ctx, spec); turn != nil {
			entry, err := inherit(EnvStarting, turn)
			if err != nil {
				return err
			}
			env = setEnv(env, entry)
			defer runtime.KeepAlive(turn)
		}
	}
	return e.Exec(e.Binary, argv, makeTemp(spec, env))
}

func setEnv(env []string, entries ...string) []string {
	for _, entry := range entries {
		name, _, _ := strings.Cut(entry, "=")
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		env = append(env, entry)
	}
	return env
}

// servePause waits out a backoff, by a clock that nobody sets. It ends at once when
// the record loses its pause (`gateway start`), or with TERM, which kills this
// process.
func (e Entry) servePause(ctx context.Context) error {
	end := proc.Uptime() + ReadRecord(e.Dir).pause(time.Now())
	tick := time.NewTicker(pausePoll)
	defer tick.Stop()
	for {
		r := ReadRecord(e.Dir)
		left := end - proc.Uptime()
		switch {
		case r.Until == nil:
			return nil
		case left <= 0:
			return ChangeRecord(e.Dir, func(r *Record) {
				r.State, r.Until, r.Reason = "", nil, "" // the meter stays: this start is the trial
			})
		case (time.Until(*r.Until) - left).Abs() > clockSet:
			if err := ChangeRecord(e.Dir, func(r *Record) { r.follow(time.Now().Add(left)) }); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// pause is what is left at now of the pause in the record: never more than it was
// meant to be, when the clock was set back since.
func (r Record) pause(now time.Time) time.Duration {
	if r.Until == nil {
		return 0
	}
	return min(r.Until.Sub(now), r.Until.Sub(r.At))
}

// follow has the pause in the record end at until: the clock was set, and those
// who read when it ends look at that clock.
func (r *Record) follow(until time.Time) {
	if r.Until == nil { // somebody ended it just now
		return
	}
	r.At = r.At.Add(until.Sub(*r.Until))
	r.Until = after(until, 0)
}

// recordRun notes who this run is: exec keeps the pid, and s6-supervise made
// it the leader of a session.
func (e Entry) recordRun(spec supervise.Spec) error {
	self, err := proc.Read(os.Getpid())
	if err != nil {
		return err
	}
	by := "policy"
	err = ChangeRecord(e.Dir, func(r *Record) {
		if r.Started.IsZero() {
			by = "boot"
			if r.Meter.Deaths == 0 { // what the last container knew
				r.Meter = storedMeter(spec)
			}
		}
		if r.By != "" {
			by = r.By
		}
		r.By, r.Config = "", Fingerprint(spec)
		r.Started, r.StartedUp, r.PID, r.Ticks, r.OOMKills = time.Now(), proc.Uptime(), 0, 0, nil
		if self.Session == self.PID { // else the session holds others too
			r.PID, r.Ticks = self.PID, self.Start
		}
		if kills, ok := proc.OOMKills(e.cgroups()); ok {
			r.OOMKills = &kills
		}
	})
	AuditLine(spec, "run", "began", "by", by, "pid", strconv.Itoa(self.PID))
	return err
}

// endLeftovers ends what an earlier run of the same slot left in this
// container: s6-supervise killed with -9 leaves its child, and a second copy
// would come up beside it. TERM has a healthy gateway finish what it has.
func (e Entry) endLeftovers(ctx context.Context, spec supervise.Spec) error {
	r := ReadRecord(e.Dir)
	if r.Started.IsZero() { // the first run of this slot: spare a hundred slots a hundred looks at everybody
		return nil
	}
	find := r.belongings(spec.Mark)
	if len(find()) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leftoverLimit)
	defer cancel()
	_, err := proc.End(ctx, find, leftoverGrace)
	return err
}

// setTag tags this process for its slot. Where that is refused (a sandbox
// without that limit) mark and session are left to tell what belongs to it.
func setTag(spec supervise.Spec) { _ = proc.SetTag(tagOf(spec.Mark)) }

// tagOf is the mark of a slot as a number: it differs where the mark does, but
// for one pair of slots in 2^48.
func tagOf(mark string) proc.Tag {
	h := fnv.New64a()
	h.Write([]byte(mark))
	return proc.TagOf(h.Sum64())
}

// belongings finds the processes of the slot: those that carry its tag or its
// mark, and those of the last run's session.
func (r Record) belongings(mark string) func() []proc.Process {
	tag := tagOf(mark)
	return func() []proc.Process {
		session := r.session()
		return proc.Match(func(p proc.Process) bool {
			return session != 0 && p.InSession(session) || p.Tag() == tag || p.HasEnv(mark)
		})
	}
}

// session is the last run's, 0 when its number may mean another by now: a pid
// is not used again while it names a session, so it is still the same if its
// leader is gone or is the very process that was recorded.
func (r Record) session() int {
	if leader, err := proc.Read(r.PID); err == nil && leader.Start != r.Ticks {
		return 0
	}
	return r.PID
}

// drop gives up root where the supervisor has it (a guest in a root tree), and
// before that makes the directory of the control sockets, which the service
// could not. It takes group 0 from the service: the event directories of a root
// tree are root's group's to write, and s6-supervise follows a link in them.
func drop(spec supervise.Spec) error {
	if os.Getuid() != 0 || spec.UID == 0 {
		return nil
	}
	sockets := rundir.Dir(spec.RunDir).Hermes()
	if err := os.Mkdir(sockets, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cannot make the directory of the control sockets: %w", err)
	}
	if err := os.Lchown(sockets, spec.UID, spec.GID); err != nil {
		return fmt.Errorf("cannot give %s to uid %d: %w", sockets, spec.UID, err)
	}
	return proc.Become(spec.UID, spec.GID, []int{spec.GID})
}

// execOwned is execService for what ends with the slot.
func (e Entry) execOwned(spec supervise.Spec, name string, args []string) error {
	setTag(spec)
	e.Environ = setEnv(e.Environ, spec.Mark)
	return e.execService(spec, name, args)
}

// execService becomes the file called name of a user's own service directory.
func (e Entry) execService(spec supervise.Spec, name string, args []string) error {
	if err := os.Chdir(filepath.Dir(filepath.Join(spec.Source, name))); err != nil {
		return fmt.Errorf("cannot enter service %q: %w", spec.Name, err)
	}
	path := filepath.Join(spec.Source, name)
	if err := e.Exec(path, append([]string{"./" + filepath.Base(name)}, args...), e.Environ); err != nil {
		return exitcode.With(exitcode.CannotExec, fmt.Errorf(
			"cannot run %q as uid %d: %w; services run as the service user and must be executable for it", path, os.Getuid(), err))
	}
	return nil
}
