package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"time"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/hostunits"
	"github.com/hermesgw/hermes/internal/unix"
)

// HostUnit is the gateway of p as a service of this host. runAs is the user of a
// system service, which root makes; empty: the owner of the home. Where no
// service manager works the error says what to do instead, with exit code 2.
func (s *Supervision) HostUnit(ctx context.Context, p profile.Profile, runAs string) (*hostunits.Manager, hostunits.Unit, error) {
	u := hostunits.Unit{Profile: p.Name, Home: s.Home, Binary: s.binary}
	if s.Live() {
		return nil, u, exitcode.With(exitcode.Usage, fmt.Errorf(
			"gateways are supervised by s6 here, there is nothing to install: start this one with: hermes %sgateway start", flagOf(p)))
	}
	if err := hostunits.Works(ctx, os.Geteuid() != 0); err != nil {
		return nil, u, noManager(p, err)
	}
	if err := s.completeUnit(&u, p, runAs); err != nil {
		return nil, u, err
	}
	m, err := hostunits.Find(ctx, u)
	return m, u, err
}

// noManager says what to do where there is no service manager.
func noManager(p profile.Profile, err error) error {
	return exitcode.With(exitcode.Usage, fmt.Errorf(
		"%w; run `hermes %sgateway run` under a supervisor of your own, or use the image: docker run -d -v hermes-data:/opt/data hermes:dev gateway run", err, flagOf(p)))
}

// UnitText is what HostUnit would install, also where nothing can be installed.
func (s *Supervision) UnitText(p profile.Profile, runAs string) (string, error) {
	u := hostunits.Unit{Profile: p.Name, Home: s.Home, Binary: s.binary}
	err := s.completeUnit(&u, p, runAs)
	return u.Text(), err
}

// completeUnit adds what the settings and the owner of the home say.
func (s *Supervision) completeUnit(u *hostunits.Unit, p profile.Profile, runAs string) (err error) {
	var c *config.Config
	if err := s.OnVolume(func() error { // root reads as the owner would
		c, err = config.Load(config.Options{Home: p.Home, Lookup: s.LookupFor(p)})
		return err
	}); err != nil {
		return err
	}
	u.StopTimeout = time.Duration(c.Int("HERMES_STOP_TIMEOUT")) * time.Second
	u.RunAs, err = runAsUser(s.Home, runAs)
	return err
}

// runAsUser is the user of a system service: only root makes one.
func runAsUser(home, given string) (string, error) {
	switch {
	case os.Geteuid() != 0 && given != "":
		return "", exitcode.With(exitcode.Usage, errors.New("only root may say --run-as; without it the service is yours"))
	case os.Geteuid() != 0:
		return "", nil
	case given != "":
		if _, err := user.Lookup(given); err != nil {
			return "", exitcode.With(exitcode.Usage, fmt.Errorf("there is no user %q to run as", given))
		}
		return given, nil
	}
	fi, err := os.Stat(home)
	if err != nil {
		return "", exitcode.With(exitcode.Usage, fmt.Errorf("cannot tell as which user to run, because there is no %q yet: say --run-as USER", home))
	}
	st, ok := unix.FileStat(fi)
	if !ok || st.Uid == 0 {
		return "", exitcode.With(exitcode.Usage, fmt.Errorf("%q belongs to root: say as which user to run with --run-as USER", home))
	}
	owner, err := user.LookupId(strconv.FormatUint(uint64(st.Uid), 10))
	if err != nil {
		return "", exitcode.With(exitcode.Usage, fmt.Errorf("%q belongs to uid %d, which has no name here: say --run-as USER", home, st.Uid))
	}
	return owner.Username, nil
}

// InstalledUnit is HostUnit for a unit that is installed; ok false: there is
// none, or no service manager.
func (s *Supervision) InstalledUnit(ctx context.Context, p profile.Profile) (m *hostunits.Manager, ok bool) {
	if s.Live() || !hostunits.Present(p.Name) {
		return nil, false
	}
	runAs := ""
	if os.Geteuid() == 0 {
		runAs = "root" // the unit that is there says as whom
	}
	m, _, err := s.HostUnit(ctx, p, runAs)
	return m, err == nil && m.Installed()
}

// Want writes what an operator wants of p, where no slot follows it.
func (s *Supervision) Want(p profile.Profile, w supervise.Want, why string) error {
	return s.OnVolume(func() error {
		return intent.Write(p.Home, intent.Intent{Want: w, By: "cli", At: time.Now().UTC(), Why: why})
	})
}
