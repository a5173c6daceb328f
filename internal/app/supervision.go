// Package app is the one place that knows every concrete type: it joins the
// engines with the adapters, builds a gateway or a dashboard process and closes
// it in reverse order. It parses no command line and prints nothing.
//
//	s := app.FindSupervision(os.LookupEnv)
//	report, err := s.Lister().List(ctx, true)
package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/boot"
	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/hostunits"
	"github.com/hermesgw/hermes/internal/supervise/s6slots"
)

// Supervision is the supervision tree around this process, if there is one.
type Supervision struct {
	Found  rundir.Found
	Home   string // data directory
	binary string
	asker  int // uid of who runs this command, before Enter
	lookup func(string) (string, bool)
}

// FindSupervision looks for the live tree and the data directory. lookup is
// the environment.
func FindSupervision(lookup func(string) (string, bool)) (*Supervision, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find the path of hermes: %w", err)
	}
	s := &Supervision{
		Found:  rundir.Find(rundir.Options{Lookup: lookup, UID: os.Getuid()}),
		binary: binary, asker: os.Getuid(), lookup: lookup,
	}
	s.Home, err = home(lookup, s.Found.Mark)
	return s, err
}

// home is $HERMES_HOME, else the live tree's, else ~/.hermes.
func home(lookup func(string) (string, bool), mark *rundir.Mark) (string, error) {
	if dir, ok := lookup("HERMES_HOME"); ok && dir != "" {
		return filepath.Abs(dir)
	}
	if mark != nil {
		return mark.Home, nil
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", exitcode.With(exitcode.Config, errors.New("cannot tell where the data is: set HERMES_HOME, or HOME"))
	}
	return filepath.Join(user, ".hermes"), nil
}

// Enter makes root become the user of the tree, before anything is opened:
// what `docker exec` leaves behind must not belong to root, and what a service
// put into its way must not be opened by root. Where no mark says who that is,
// the owner of the data directory does; in somebody else's tree root stays root,
// to command its supervisors. notice is a line for the user, "" for none.
func (s *Supervision) Enter() (notice string, err error) {
	if os.Getuid() != 0 {
		return "", nil
	}
	uid, gid, groups := s.user()
	if uid <= 0 {
		return "", nil
	}
	if !proc.CanBecome() {
		if s.Found.Refusal != "" {
			return "", nil // what follows is refused, and says as whom it would not be
		}
		return fmt.Sprintf("hermes: root without CAP_SETUID stays root: what this command writes belongs to root, not to uid %d", uid), nil
	}
	if err := proc.Become(uid, gid, groups); err != nil {
		return "", err
	}
	if s.Found.Mark == nil {
		s.Found = rundir.Find(rundir.Options{Lookup: s.lookup, UID: uid})
	}
	s.Found.Refusal = "" // root without CAP_DAC_OVERRIDE may less than the tree's own user
	return "", nil
}

// user is who root becomes here; uid 0 or less: nobody.
func (s *Supervision) user() (uid, gid int, groups []int) {
	if m := s.Found.Mark; m != nil {
		return m.UID, m.GID, m.Groups
	}
	if s.Found.Tree == runmode.TreeOverlay {
		return 0, 0, nil
	}
	groups, err := os.Getgroups()
	if err != nil {
		return 0, 0, nil
	}
	uid, gid = s.homeOwner()
	return uid, gid, groups
}

// homeOwner is who the data directory belongs to, root when it is not there.
func (s *Supervision) homeOwner() (uid, gid int) {
	fi, err := os.Stat(s.Home)
	if err != nil {
		return 0, 0
	}
	return proc.Owner(fi)
}

// OnVolume runs f, which writes to the data directory. Root that stayed root
// does so with the rights of its owner: a link that a service put
// there leads nowhere where the service could not go.
func (s *Supervision) OnVolume(f func() error) error {
	if os.Getuid() != 0 || s.Found.Tree == runmode.TreeOurs || !proc.CanBecome() {
		return f()
	}
	uid, gid := s.homeOwner()
	if uid == 0 {
		if s.Found.Tree != runmode.TreeOverlay {
			return f() // on a host whose data directory is root's
		}
		var err error
		if uid, gid, err = boot.ServiceUser(os.Environ()); err != nil {
			return err
		}
	}
	return proc.WithFilesOf(uid, gid, f)
}

// Live says whether there is a tree that hermes manages slots in.
func (s *Supervision) Live() bool {
	return s.Found.Tree == runmode.TreeOurs || s.Found.Tree == runmode.TreeOverlay
}

// Lister tells the state of every service.
func (s *Supervision) Lister() supervise.Lister { return s.lister() }

func (s *Supervision) lister() s6slots.Lister {
	return s6slots.Lister{Dir: s.Found.Dir, Home: s.Home, Live: s.Live(), Files: s.Found.Dir.Files()}
}

// Report is what Lister says, or why it could not tell: to another user every
// slot of a live tree would look down.
func (s *Supervision) Report(ctx context.Context, all bool) (supervise.Report, error) {
	if s.Live() && s.Found.Refusal != "" {
		return supervise.Report{}, s.refused()
	}
	report, err := s.lister().List(ctx, all)
	return s.explain(s.onHost(report)), err
}

// explain says of a gateway that is down why nobody can know whether it is meant to
// be: it must not stay dark in silence.
func (s *Supervision) explain(r supervise.Report) supervise.Report {
	for i := range r.Services {
		svc := &r.Services[i]
		if svc.Profile == nil || svc.State != supervise.Down || svc.Reason != "" {
			continue
		}
		if p, err := profile.Find(s.Home, *svc.Profile); err == nil {
			if _, _, err := intent.Read(p.Home); err != nil {
				svc.Reason = err.Error()
			}
		}
	}
	return r
}

// onHost names the service manager of a host in a report, where it runs one of
// the gateways.
func (s *Supervision) onHost(r supervise.Report) supervise.Report {
	if s.Live() {
		return r
	}
	for i := range r.Services {
		svc := &r.Services[i]
		if svc.Profile == nil || !hostunits.Present(*svc.Profile) {
			continue
		}
		r.Manager = "systemd"
		svc.Reason = strings.TrimSuffix(strings.TrimSuffix(svc.Reason, s6slots.Unsupervised), "; ")
		p, err := profile.Find(s.Home, *svc.Profile)
		if err != nil {
			continue
		}
		if i, ok, err := intent.Read(p.Home); err == nil && ok {
			svc.Want = i.Want
		}
	}
	return r
}

// ReportOf is Report of the gateway of one profile, without a look at the others.
func (s *Supervision) ReportOf(ctx context.Context, p profile.Profile) (supervise.Report, error) {
	if s.Live() && s.Found.Refusal != "" {
		return supervise.Report{}, s.refused()
	}
	return s.explain(s.onHost(s.lister().Gateway(ctx, p.Name))), nil
}

func (s *Supervision) refused() error {
	who := "root or the user of the services"
	if m := s.Found.Mark; m != nil {
		who = fmt.Sprintf("uid %d (docker exec -u %d)", m.UID, m.UID)
	}
	return exitcode.With(exitcode.Failed, fmt.Errorf("%s; run this command as %s", s.Found.Refusal, who))
}

// Where names the scan directory for people, "" without a tree.
func (s *Supervision) Where() string {
	switch {
	case s.Live():
		return " (" + string(s.Found.Dir.Scan()) + ")"
	case s.Found.Tree == runmode.TreeForeign:
		return " (an s6 that hermes did not set up was found and is left alone)"
	}
	return ""
}

// RefuseBesideForeground refuses to start the slot of a profile whose gateway
// runs here in the foreground: --replace would take the profile away from the
// main program and end the container.
func (s *Supervision) RefuseBesideForeground(ctx context.Context, p profile.Profile) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	st, err := control.Dial(control.SocketPath(string(s.Found.Dir), p.Name)).Status(ctx)
	if err != nil || st.Supervised {
		return nil // nobody, or the slot itself
	}
	return exitcode.With(exitcode.Failed, fmt.Errorf(
		"the gateway of profile %q runs here in the foreground (pid %d): stop it first, or run the container without --no-supervise", p.Name, st.PID))
}

// Manager starts and stops slots, on behalf of by. Without a tree, or with one
// that cannot be used, it says what to do instead.
func (s *Supervision) Manager(by string) (*s6slots.Manager, error) {
	if !s.Live() {
		return nil, exitcode.With(exitcode.Failed, errors.New(
			"no supervisor was found here, so there are no slots: run the gateway in the foreground with: hermes gateway run"))
	}
	if s.Found.Refusal != "" {
		return nil, s.refused()
	}
	mark, _ := s.lookup(supervise.MarkVar)
	return &s6slots.Manager{Dir: s.Found.Dir, Binary: s.binary, By: by, UID: &s.asker, Mark: mark}, nil
}

// GatewaySpec is the slot of a profile's gateway in this tree. args follow
// `gateway run --replace`.
func (s *Supervision) GatewaySpec(p profile.Profile, args []string, owns bool) (supervise.Spec, error) {
	bootID := ""
	if s.Found.Mark != nil {
		bootID = s.Found.Mark.BootID
	}
	place, err := boot.Place(os.Environ(), s.Home, s.Found.Dir, bootID)
	if err != nil {
		return supervise.Spec{}, err
	}
	spec := place.Gateway(p.Name, args, owns)
	if s.Found.Tree == runmode.TreeOverlay && os.Getuid() == 0 {
		spec.UID, spec.GID, err = boot.ServiceUser(os.Environ())
	}
	return spec, err
}

// StartGateway starts the slot of one gateway: registered if it is missing,
// wanted up, and noted as the operator's wish.
func (s *Supervision) StartGateway(ctx context.Context, m *s6slots.Manager, p profile.Profile, args []string, wait bool) error {
	spec, err := s.GatewaySpec(p, args, s.owns(m, p))
	if err != nil {
		return err
	}
	if !m.Registered(spec.Name) || args != nil {
		if err := m.Ensure(ctx, spec); err != nil {
			return err
		}
	}
	return s.noting(m, p, supervise.WantUp).Start(ctx, spec.Name, wait)
}

// owns says whether the container's environment speaks of p: in our own tree
// boot noted whose it is, in another's it is the main program's or the default's.
func (s *Supervision) owns(m *s6slots.Manager, p profile.Profile) bool {
	if s.Found.Mark != nil {
		return p.Name == s.Found.Mark.Profile
	}
	return m.By == intent.ByMainProgram || p.Name == profile.Default
}

// StopGateway stops one gateway and notes the wish.
func (s *Supervision) StopGateway(ctx context.Context, m *s6slots.Manager, p profile.Profile, wait bool) error {
	name := supervise.GatewayName(p.Name)
	if !m.Registered(name) {
		spec, err := s.GatewaySpec(p, nil, false)
		if err != nil {
			return err
		}
		m.Asked(spec, "stop", "")
		return s.note(p, supervise.WantDown, m)
	}
	return s.noting(m, p, supervise.WantDown).Stop(ctx, name, wait)
}

// RestartGateway restarts one gateway, or starts it if it is down.
func (s *Supervision) RestartGateway(ctx context.Context, m *s6slots.Manager, p profile.Profile, wait bool) error {
	name := supervise.GatewayName(p.Name)
	if !m.Registered(name) {
		return s.StartGateway(ctx, m, p, nil, wait)
	}
	return s.noting(m, p, supervise.WantUp).Restart(ctx, name, wait)
}

// WaitLimit is how long a command waits until its gateway is ready or has failed.
const WaitLimit = 90 * time.Second

// Operate does to one gateway what an operator asks. With wait it returns once
// the gateway is ready or down, or has failed, and the error says why; where
// another command came between, that is a supervise.ErrConflict.
func (s *Supervision) Operate(ctx context.Context, m *s6slots.Manager, action supervise.Command, p profile.Profile, wait bool) error {
	if action != supervise.CommandStop {
		if err := s.RefuseBesideForeground(ctx, p); err != nil {
			return err
		}
	}
	switch action {
	case supervise.CommandStart:
		return s.StartGateway(ctx, m, p, nil, wait)
	case supervise.CommandStop:
		return s.StopGateway(ctx, m, p, wait)
	case supervise.CommandRestart:
		return s.RestartGateway(ctx, m, p, wait)
	}
	return fmt.Errorf("cannot %q a gateway: there is start, stop and restart", action)
}

// noting is m, and its command notes the wish when its turn has come: of two
// commands at once the later one's wish stays, and the slot does what it says.
func (s *Supervision) noting(m *s6slots.Manager, p profile.Profile, want supervise.Want) *s6slots.Manager {
	n := *m
	n.Note = func() error { return s.note(p, want, m) }
	return &n
}

func (s *Supervision) note(p profile.Profile, want supervise.Want, m *s6slots.Manager) error {
	return s.OnVolume(func() error {
		return intent.Write(p.Home, intent.Intent{Want: want, By: m.By, At: time.Now().UTC(), Why: m.Why})
	})
}

// redirectSlot is the slot that `gateway run` as main program redirects to.
type redirectSlot struct {
	s    *Supervision
	p    profile.Profile
	args []string
}

// Start implements runmode.Slot with the function that `gateway start` uses.
func (r redirectSlot) Start(ctx context.Context) error {
	m, err := r.s.Manager(intent.ByMainProgram)
	if err != nil {
		return err
	}
	return r.s.StartGateway(ctx, m, r.p, r.args, false)
}

// Withdraw implements runmode.Slot.
func (r redirectSlot) Withdraw(ctx context.Context) error {
	m, err := r.s.Manager(intent.ByMainProgram)
	if err != nil {
		return err
	}
	return m.Withdraw(ctx, supervise.GatewayName(r.p.Name))
}

// RedirectSlot returns the slot for runmode.Become; args are the flags that
// the main program was given.
func (s *Supervision) RedirectSlot(p profile.Profile, args []string) runmode.Slot {
	if args == nil {
		args = []string{}
	}
	return redirectSlot{s, p, args}
}
