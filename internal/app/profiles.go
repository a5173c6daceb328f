package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/boot"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/lease"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/s6slots"
	"github.com/hermesgw/hermes/internal/supervise/slot"
)

// CreateProfile makes the profile name, with an API port of its own, and in a
// live tree its slot, wanted down. slot says whether there is one.
func (s *Supervision) CreateProfile(ctx context.Context, by, name string) (p profile.Profile, port int, slot bool, err error) {
	if err := profile.CheckNew(s.Home, name); err != nil {
		return p, 0, false, err
	}
	err = s.changing(ctx, func() error {
		return s.OnVolume(func() (err error) {
			if p, err = profile.Create(s.Home, name); err != nil {
				return err
			}
			port, err = s.ensurePort(p)
			return err
		})
	})
	if err != nil || !s.Live() {
		return p, port, false, err
	}
	if err := s.register(ctx, by, p); err != nil {
		return p, port, false, fmt.Errorf("profile %q is created, but it has no slot yet: %w", name, err)
	}
	return p, port, true, nil
}

func (s *Supervision) register(ctx context.Context, by string, p profile.Profile) error {
	m, err := s.Manager(by)
	if err != nil {
		return err
	}
	spec, err := s.GatewaySpec(p, nil, s.owns(m, p))
	if err != nil {
		return err
	}
	return m.Ensure(ctx, spec)
}

// changing runs f while nobody else changes the set of profiles.
func (s *Supervision) changing(ctx context.Context, f func() error) error {
	var l *lease.Lease
	err := s.OnVolume(func() (err error) {
		l, err = profile.Lock(ctx, s.Home)
		return err
	})
	if err != nil {
		return err
	}
	defer l.Release()
	return f()
}

// ChangeSettings runs f, which writes settings of a profile, with the rights on the
// volume that a command has, and while no other hermes command changes any.
func (s *Supervision) ChangeSettings(ctx context.Context, f func() error) error {
	return s.changing(ctx, func() error { return s.OnVolume(f) })
}

// ensurePort gives p a port if its files give it none. The caller is changing.
func (s *Supervision) ensurePort(p profile.Profile) (int, error) {
	others, err := profile.List(s.Home)
	if err != nil {
		return 0, err
	}
	taken := slices.Concat(config.DefaultPorts(), config.PortsOf(s.lookup), config.PortsOf(s.containerEnvironment()))
	for _, o := range others {
		if o.Name != p.Name {
			taken = append(taken, config.ClaimedPorts(o.Home)...)
		}
	}
	return config.EnsureAPIPort(p.Home, func(port int) bool { return slices.Contains(taken, port) })
}

// containerEnvironment looks into what the container was started with, which a
// slot's own environment is only a part of.
func (s *Supervision) containerEnvironment() func(string) (string, bool) {
	var environ []string
	if s.Live() {
		environ, _ = boot.LoadEnvironment(s.Found.Dir.Environment()) // a tree of s6-overlay may keep it from us
	}
	return lookupIn(environ)
}

func lookupIn(environ []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, entry := range environ {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}

// OwnsEnvironment says whether credentials and ports in the environment are
// p's: in a container they are the main program's, on a host the default's.
func (s *Supervision) OwnsEnvironment(p profile.Profile) bool {
	if s.Found.Mark != nil {
		return p.Name == s.Found.Mark.Profile
	}
	if s.Live() {
		if spec, err := slot.ReadSpec(s.Found.Dir.Scan().Dir(supervise.GatewayName(p.Name))); err == nil {
			return spec.OwnsEnvironment
		}
	}
	return p.Name == profile.Default
}

// PortAssigner gives p a port of its own at its gateway's start, if no setting
// does; nil for the profile that the environment speaks of, which has the
// default port. The gateway holds the lease meanwhile.
func (s *Supervision) PortAssigner(p profile.Profile) func(context.Context) (int, error) {
	if s.OwnsEnvironment(p) {
		return nil
	}
	return func(ctx context.Context) (port int, err error) {
		err = s.changing(ctx, func() (err error) {
			port, err = s.ensurePort(p)
			return err
		})
		return port, err
	}
}

// LookupFor is the environment as the gateway of p sees it here.
func (s *Supervision) LookupFor(p profile.Profile) func(string) (string, bool) {
	if !s.Live() || s.OwnsEnvironment(p) {
		return s.lookup
	}
	kept := config.StripForeign(os.Environ())
	return lookupIn(kept)
}

// UseProfile makes name what interactive commands mean without -p.
func (s *Supervision) UseProfile(name string) (profile.Profile, error) {
	p, err := profile.Find(s.Home, name)
	if err != nil {
		return p, err
	}
	return p, s.OnVolume(func() error { return profile.Use(s.Home, p.Name) })
}

// RenameProfile gives the profile from the name to. Its gateway is stopped for
// it and, if it was wanted up here, started again. Whatever fails before the
// home has its new name leaves everything as it was. note says where logs are
// that are not where one would look for them; "" where none are.
func (s *Supervision) RenameProfile(ctx context.Context, by, from, to string) (renamed profile.Profile, note string, err error) {
	if _, err := s.changeable(from, "renamed"); err != nil {
		return renamed, "", err
	}
	if err := profile.CheckNew(s.Home, to); err != nil {
		return renamed, "", err
	}
	var q quiet
	err = s.changing(ctx, func() error {
		p, err := s.changeable(from, "renamed") // another rename may have come first
		if err != nil {
			return err
		}
		if err := profile.CheckNew(s.Home, to); err != nil {
			return err
		}
		if q, err = s.quieten(ctx, by, p); err != nil {
			return err
		}
		defer q.lease.Release()
		if err := s.OnVolume(func() error { renamed, note, err = s.moveProfile(p, to); return err }); err != nil {
			return errors.Join(err, q.resume(ctx))
		}
		return q.unregister(ctx)
	})
	if err != nil || q.slots == nil {
		return renamed, note, err
	}
	return renamed, note, s.resumeAs(ctx, by, q, renamed)
}

// moveProfile moves the home, and with it the logs and the word that it is in
// use. The logs come first: once the home has its new name, the guard may give it
// a slot, whose logger makes a directory of that name.
func (s *Supervision) moveProfile(p profile.Profile, to string) (renamed profile.Profile, note string, err error) {
	inUse, _ := profile.InUse(s.Home) // broken: then it names nobody
	note, back := s.moveLogs(p.Name, to)
	renamed, err = profile.Rename(s.Home, p, to)
	switch {
	case err != nil:
		back()
		note = ""
	case inUse == p.Name:
		_ = profile.Use(s.Home, to) // else the next command says that the profile in use is gone
	}
	return renamed, note, err
}

// beforeRename stands in the name of logs that are set aside; no profile's has a
// dot.
const beforeRename = ".before-rename-"

// moveLogs moves the logs of a profile to another name. Those that are there
// belong to a profile that is gone, and are set aside. The logger of the old slot
// has its files open and nothing to say any more. note is as of RenameProfile;
// back undoes it.
func (s *Supervision) moveLogs(from, to string) (note string, back func()) {
	now, then := s.logDir(from), s.logDir(to)
	if _, err := os.Lstat(now); err != nil {
		return "", func() {} // none were written
	}
	aside := then + beforeRename + time.Now().UTC().Format("20060102T150405.000Z")
	_ = os.Remove(then) // an empty one is in the way, and nothing in itself
	set := os.Rename(then, aside) == nil
	moved := os.Rename(now, then)
	back = func() {
		if moved == nil {
			_ = os.Rename(then, now)
		}
		if set {
			_ = os.Rename(aside, then)
		}
	}
	switch {
	case moved != nil:
		back()
		return fmt.Sprintf("the logs of %q could not be moved and are still in %s: %v", from, now, cause(moved)), func() {}
	case set:
		return fmt.Sprintf("the logs of an earlier profile %q are now in %s", to, aside), back
	}
	return "", back
}

// cause is what the kernel said, without the paths.
func cause(err error) error {
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}

// resumeAs gives a renamed profile its slot, started if the old one was up.
func (s *Supervision) resumeAs(ctx context.Context, by string, q quiet, p profile.Profile) error {
	err := s.register(ctx, by, p)
	if err == nil && q.wasUp {
		err = q.slots.Start(ctx, supervise.GatewayName(p.Name), true)
	}
	if err != nil {
		return fmt.Errorf("profile %q is now %q, but its gateway did not come back: %w", q.profile.Name, p.Name, err)
	}
	return nil
}

func (s *Supervision) logDir(name string) string {
	return filepath.Join(s.Home, "logs", "gateways", name)
}

// Deletable returns the profile name if it may be deleted.
func (s *Supervision) Deletable(name string) (profile.Profile, error) {
	p, err := s.changeable(name, "deleted")
	if err != nil {
		return p, err
	}
	inUse, err := profile.InUse(s.Home)
	if err == nil && inUse == p.Name {
		err = exitcode.With(exitcode.Failed, fmt.Errorf(
			"profile %q is in use and is not deleted; choose another first with: hermes profile use default", p.Name))
	}
	return p, err
}

// DeleteProfile stops the gateway of the profile name, unregisters its slot and
// removes its home and its logs. It asks nobody.
func (s *Supervision) DeleteProfile(ctx context.Context, by, name string) error {
	if _, err := s.Deletable(name); err != nil {
		return err
	}
	return s.changing(ctx, func() error {
		p, err := s.Deletable(name) // another command may have come first
		if err != nil {
			return err
		}
		q, err := s.quieten(ctx, by, p)
		if err != nil {
			return err
		}
		defer q.lease.Release()
		if err := s.OnVolume(func() error { return profile.Discard(s.Home, p) }); err != nil {
			return errors.Join(err, q.resume(ctx))
		}
		if err := q.unregister(ctx); err != nil {
			return err
		}
		return s.OnVolume(func() error {
			return profile.Remove(s.Home, filepath.Join("logs", "gateways", p.Name))
		})
	})
}

// changeable returns the profile name unless it must stay what it is.
func (s *Supervision) changeable(name, verb string) (profile.Profile, error) {
	p, err := profile.Find(s.Home, name)
	if err != nil {
		return p, err
	}
	if p.Name == profile.Default {
		return p, exitcode.With(exitcode.Usage, fmt.Errorf("profile %q is always there and cannot be %s", p.Name, verb))
	}
	if m := s.Found.Mark; m != nil && m.Profile == p.Name {
		return p, exitcode.With(exitcode.Failed, fmt.Errorf(
			"profile %q is the container's main program and cannot be %s here; start the container with another command first", p.Name, verb))
	}
	return p, nil
}

// quiet is a profile whose gateway runs nowhere, and cannot start.
type quiet struct {
	profile profile.Profile
	slots   *s6slots.Manager // nil without a live tree
	wasUp   bool
	lease   *lease.Lease
}

// quieten stops the slot of p and takes its lease. A gateway that runs elsewhere,
// or here in the foreground, is refused and named; then nothing has changed.
func (s *Supervision) quieten(ctx context.Context, by string, p profile.Profile) (quiet, error) {
	q := quiet{profile: p}
	if s.Live() {
		var err error
		if q.slots, err = s.Manager(by); err != nil {
			return q, err
		}
	}
	if st := s.askGateway(ctx, p); st != nil && st.State == supervise.Standby && st.Holder != nil {
		return q, heldElsewhere(p, st.Holder.Host, st.Holder.PID)
	}
	if err := q.stop(ctx); err != nil {
		return q, errors.Join(err, q.resume(ctx))
	}
	host, _ := os.Hostname()
	err := s.OnVolume(func() (err error) {
		q.lease, err = lease.TryAcquire(p.Home, lease.Holder{Host: host, PID: os.Getpid(), Since: time.Now(), RunDir: string(s.Found.Dir)})
		return err
	})
	var held *lease.HeldError
	if errors.As(err, &held) {
		err = heldElsewhere(p, held.Holder.Host, held.Holder.PID)
	}
	if err != nil {
		return q, errors.Join(err, q.resume(ctx))
	}
	return q, nil
}

func heldElsewhere(p profile.Profile, host string, pid int) error {
	return exitcode.With(exitcode.Failed, fmt.Errorf(
		"the gateway of profile %q runs on %s (pid %d there) and has its data open; stop it there first", p.Name, host, pid))
}

// askGateway is what the gateway of p says of itself here, nil if none answers.
func (s *Supervision) askGateway(ctx context.Context, p profile.Profile) *control.Status {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st, err := control.Dial(control.SocketPath(string(s.Found.Dir), p.Name)).Status(ctx)
	if err != nil || st.Home != p.Home {
		return nil
	}
	return &st
}

func (q *quiet) slot() string { return supervise.GatewayName(q.profile.Name) }

// stop stops the slot, if there is one. Only what runs changes, not the intent.
func (q *quiet) stop(ctx context.Context) error {
	if q.slots == nil || !q.slots.Registered(q.slot()) {
		return nil
	}
	q.wasUp = q.slots.Want(q.slot()) == supervise.WantUp
	return q.slots.Stop(ctx, q.slot(), true)
}

// resume undoes stop.
func (q *quiet) resume(ctx context.Context) error {
	if !q.wasUp {
		return nil
	}
	return q.slots.Start(ctx, q.slot(), false)
}

func (q *quiet) unregister(ctx context.Context) error {
	if q.slots == nil {
		return nil
	}
	return q.slots.Unregister(ctx, q.slot())
}

// Gateway is what is known of one gateway beyond its row in Report.
type Gateway struct {
	Service supervise.Service
	Address string // of its API, "" when it does not run
	Model   string // that it uses, "" when it does not run
}

// Gateway tells the state of the gateway of p.
func (s *Supervision) Gateway(ctx context.Context, p profile.Profile) (Gateway, error) {
	report, err := s.ReportOf(ctx, p)
	if err != nil {
		return Gateway{}, err
	}
	g := Gateway{Service: report.Services[0]}
	if st := s.askGateway(ctx, p); st != nil {
		g.Address, g.Model = st.Address, st.Model
	}
	return g, nil
}
