package s6slots

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/smallfile"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
)

// Lister tells the state of every service of a run directory, with or without
// a live tree in it. It implements supervise.Lister.
type Lister struct {
	Dir  rundir.Dir
	Home string // data directory: its profiles are listed also without a slot
	Live bool   // there is an s6 tree; without one only control sockets are asked
	// Files, if set, is what List reads slots through, and saves.
	Files *smallfile.Cache
	// Heard, if set, knows what the gateway of a profile said last in the run
	// with that pid, nil for nothing; then none is asked.
	Heard func(profile string, pid int) *control.Status
}

// List implements supervise.Lister. Gateways that have to be asked are asked at
// the same time, so it takes no longer than one deaf one.
func (l Lister) List(ctx context.Context, all bool) (supervise.Report, error) {
	specs, err := l.specs(all)
	if err != nil {
		return l.report(nil), err
	}
	defer l.Files.Save()
	return l.report(l.services(ctx, specs)), nil
}

// Remember reads what List would, one slot after the other, so that Files know it
// for everybody who lists.
func (l Lister) Remember() error {
	specs, err := l.specs(true)
	if err != nil {
		return err
	}
	for _, spec := range specs {
		l.look(spec)
	}
	l.Files.Save()
	return nil
}

// Gateway is List for the gateway of one profile, whatever others there are.
func (l Lister) Gateway(ctx context.Context, profileName string) supervise.Report {
	l.Files = nil // they would take longer to load than this one to read
	return l.report(l.services(ctx, []supervise.Spec{gatewaySpec(profileName)}))
}

func (l Lister) report(services []supervise.Service) supervise.Report {
	return supervise.Report{Schema: supervise.SchemaVersion, Manager: l.manager(), Services: services}
}

// lookers is how many slots are looked up at the same time. Most of a look is
// waiting for the storage driver, so two halve it; each one more keeps a thread and
// takes longer.
const lookers = 2

// services looks at the disk, and meanwhile asks those of whom that does not tell
// all.
func (l Lister) services(ctx context.Context, specs []supervise.Spec) []supervise.Service {
	seen := make([]observation, len(specs))
	var next atomic.Int64
	var looking, asking sync.WaitGroup
	for range min(lookers, len(specs)) {
		looking.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(specs); i = int(next.Add(1)) - 1 {
				seen[i] = l.look(specs[i])
				switch {
				case specs[i].Kind != supervise.KindGateway || seen[i].gateway != nil:
				case l.Heard != nil:
					seen[i].gateway = l.Heard(specs[i].Profile, seen[i].status.PID)
				default:
					asking.Go(func() { seen[i].gateway, seen[i].asked = ask(ctx, l.Dir, specs[i].Profile), true })
				}
			}
		})
	}
	looking.Wait()
	asking.Wait()
	services := make([]supervise.Service, len(specs))
	for i, o := range seen {
		services[i] = l.service(specs[i], o)
	}
	return services
}

func (l Lister) manager() string {
	if l.Live {
		return "s6"
	}
	return "none"
}

// specs are the slots that exist and those that could: a gateway for every
// profile, the dashboard.
func (l Lister) specs(all bool) ([]supervise.Spec, error) {
	profiles, err := profile.List(l.Home)
	if err != nil {
		return nil, err
	}
	var specs []supervise.Spec
	for _, p := range profiles {
		specs = append(specs, gatewaySpec(p.Name))
	}
	specs = append(specs, supervise.Spec{Name: supervise.DashboardName, Kind: supervise.KindDashboard})
	specs, err = l.addRegistered(specs)
	if err != nil || all {
		return specs, err
	}
	return slices.DeleteFunc(specs, func(s supervise.Spec) bool { return s.Kind != supervise.KindGateway }), nil
}

func gatewaySpec(profileName string) supervise.Spec {
	return supervise.Spec{Name: supervise.GatewayName(profileName), Kind: supervise.KindGateway, Profile: profileName}
}

func (l Lister) addRegistered(specs []supervise.Spec) ([]supervise.Spec, error) {
	if !l.Live {
		return specs, nil
	}
	names, err := l.Dir.Scan().Services()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if slices.ContainsFunc(specs, func(s supervise.Spec) bool { return s.Name == name }) {
			continue
		}
		spec, err := slot.ReadSpec(l.Dir.Scan().Dir(name))
		if err == nil { // without a spec it is none of ours: an s6-overlay's own
			specs = append(specs, spec)
		}
	}
	return specs, nil
}

// observation is everything that is known of one slot at one moment.
type observation struct {
	registered bool
	supervised bool
	status     s6.Status
	record     slot.Record
	gateway    *control.Status // nil when none answers
	process    proc.Process    // of the gateway, if its note told of it
	asked      bool            // now, over the control socket
}

// look reads what there is of a slot on disk, and of its gateway. What the note
// tells was so when it was read, so it is read last.
func (l Lister) look(spec supervise.Spec) (o observation) {
	if l.Live {
		dir := l.Dir.Scan().Dir(spec.Name)
		var err error
		o.status, err = s6.ReadStatusIn(l.Files, dir)
		o.registered = err == nil
		if o.registered {
			o.supervised = s6.Answers(l.Files, dir)
			o.record = slot.ReadRecordIn(l.Files, dir)
		}
	}
	if spec.Kind == supervise.KindGateway {
		o.readNote(l.Files, control.SocketPath(string(l.Dir), spec.Profile))
	}
	return o
}

func (o *observation) readNote(files *smallfile.Cache, socket string) {
	n, p, err := control.ReadNote(files, socket)
	if err != nil {
		return // it has to be asked
	}
	o.gateway = &control.Status{PID: n.PID, State: n.State, Reason: n.Reason, Since: n.Since, Platforms: n.Platforms}
	o.process = p
}

func (l Lister) service(spec supervise.Spec, o observation) supervise.Service {
	s := supervise.Service{Name: spec.Name, Kind: spec.Kind, Platforms: []supervise.Platform{}}
	if spec.Kind == supervise.KindGateway {
		s.Profile = &spec.Profile
	}
	s.LastExit, s.Restarts, s.RequestedRestarts = o.record.LastExit, o.record.Restarts, o.record.RequestedRestarts
	s.Want = o.want()
	var since time.Time
	s.State, s.Reason, since = o.state(spec)
	if s.State == supervise.Down && o.status.PID != 0 && l.Dir.Stopping() {
		s.State = supervise.Stopping
	}
	s.Since = utc(since)
	if s.State == supervise.Backoff || s.State == supervise.Parked {
		s.Until = o.record.Until
	}
	o.addProcess(&s)
	return s
}

// want is what the slot was told. A parked slot is still wanted up: only its
// finish said otherwise.
func (o observation) want() supervise.Want {
	if o.registered && (o.status.WantUp || o.record.State == supervise.Parked) {
		return supervise.WantUp
	}
	return supervise.WantDown
}

// state names what the slot is doing, why, and since when.
func (o observation) state(spec supervise.Spec) (supervise.State, string, time.Time) {
	st, r := o.status, o.record
	switch {
	case !o.registered || st.Stopped() && !st.WantUp && r.State != supervise.Parked:
		return o.outside(spec)
	case r.State == supervise.Parked || r.State == supervise.Backoff && st.WantUp:
		return r.State, r.Reason, r.At
	case !st.WantUp:
		return supervise.Stopping, "", st.Since
	case st.Finishing || st.Stopped():
		return supervise.Starting, r.Reason, st.Since
	case !o.supervised:
		return supervise.Starting, "its supervisor died and is being started again", st.Since
	case o.gateway != nil:
		return o.gateway.State, o.gateway.Reason, o.gateway.Since
	case st.Serving() && o.asked:
		return supervise.Degraded, "its control socket does not answer", st.ReadySince
	case st.Serving() || spec.Kind == supervise.KindService:
		return supervise.Ready, "", since(st)
	}
	return supervise.Starting, "", st.Since
}

// Unsupervised is the reason that stands beside the state of a gateway that s6
// does not run.
const Unsupervised = "runs in the foreground, not supervised"

// outside is the state of a service that s6 does not run: a gateway may still
// run in the foreground, beside its slot.
func (o observation) outside(spec supervise.Spec) (supervise.State, string, time.Time) {
	if g := o.gateway; g != nil {
		reason := strings.TrimPrefix(g.Reason+"; "+Unsupervised, "; ")
		return g.State, reason, g.Since
	}
	if spec.Kind == supervise.KindDashboard && !o.registered {
		return supervise.Disabled, "set HERMES_DASHBOARD=1 on the container to have it", time.Time{}
	}
	return supervise.Down, "", o.status.Since
}

func since(st s6.Status) time.Time {
	if st.Ready {
		return st.ReadySince
	}
	return st.Since
}

// addProcess fills in what only a living process has.
func (o observation) addProcess(s *supervise.Service) {
	pid := 0
	if o.registered && o.status.Running() {
		pid = o.status.PID
	}
	if o.gateway != nil {
		pid = o.gateway.PID
		s.Holder = o.gateway.Holder
		s.Platforms = append(s.Platforms, o.gateway.Platforms...)
	}
	if pid == 0 {
		return
	}
	s.PID = &pid
	p, err := o.process, error(nil)
	if p.PID != pid {
		p, err = proc.Read(pid)
	}
	if err == nil {
		s.MemoryBytes = &p.Resident
	}
}

func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// Culprit is a wanted service that is not well.
type Culprit struct {
	Service string          `json:"service"`
	State   supervise.State `json:"state"`
	Reason  string          `json:"reason"`
}

// String is the line of the health check.
func (c Culprit) String() string {
	line := fmt.Sprintf("%s is %s", c.Service, c.State)
	if c.Reason != "" {
		line += ": " + c.Reason
	}
	return line
}

// Culprits returns every wanted service that is not well. Without
// ready, a service that is starting for less than patience, draining, stopping
// or standing by is well; with ready only one that serves is.
func Culprits(report supervise.Report, ready bool, patience time.Duration, now time.Time) []Culprit {
	culprits := []Culprit{}
	for _, s := range report.Services {
		if counts(s) && !well(s, ready, patience, now) {
			culprits = append(culprits, Culprit{s.Name, s.State, s.Reason})
		}
	}
	return culprits
}

// counts says whether a service's health matters: it is wanted, or it is a
// gateway that runs in the foreground.
func counts(s supervise.Service) bool {
	return s.Want == supervise.WantUp || s.PID != nil && s.State != supervise.Stopping
}

func well(s supervise.Service, ready bool, patience time.Duration, now time.Time) bool {
	switch s.State {
	case supervise.Ready, supervise.Degraded:
		return true
	case supervise.Standby, supervise.Draining, supervise.Stopping:
		return !ready
	case supervise.Starting:
		return !ready && s.Since != nil && now.Sub(*s.Since).Abs() < patience // since a future time: the clock was set back
	default:
		return false
	}
}
