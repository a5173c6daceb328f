package hostunits

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/kardianos/service"
)

// ErrNone means that no service manager works here.
var ErrNone = errors.New("no service manager works here")

// ErrNotInstalled means that the unit is not there.
var ErrNotInstalled = errors.New("the service is not installed")

// Manager installs, starts and stops one unit. Its methods block for the service
// manager.
type Manager struct {
	unit    Unit
	service service.Service
	path    string // of the unit file; empty where there is none
}

// Find asks the service manager whether it works: that of the system for root
// (or a unit with RunAs), else that of the user. ErrNone if none does.
func Find(ctx context.Context, u Unit) (*Manager, error) {
	if err := u.check(); err != nil {
		return nil, err
	}
	own := u.RunAs == ""
	if err := Works(ctx, own); err != nil {
		return nil, err
	}
	s, err := service.New(nothing{}, &service.Config{
		Name: u.Name(), DisplayName: "Hermes gateway, profile " + u.Profile, Executable: u.Binary,
		Arguments: []string{"-p", u.Profile, "gateway", "run"}, EnvVars: map[string]string{"HERMES_HOME": u.Home}, UserName: u.RunAs,
		Option: service.KeyValue{"SystemdScript": u.Text(), "UserService": own},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	m := &Manager{unit: u, service: s}
	m.path, err = unitPath(u, own)
	return m, err
}

// Works asks the service manager, the user's own or the system's, for a sign of
// life: a file or a process by its name says nothing in a container. ErrNone.
func Works(ctx context.Context, own bool) error {
	if runtime.GOOS != "linux" {
		// The library knows others; their units would be written, and nobody has seen a gateway run in one.
		return fmt.Errorf("%w that hermes has units for: it makes those of systemd, and this is %s", ErrNone, runtime.GOOS)
	}
	argv := []string{"show", "--property=Version", "--value"}
	if own {
		argv = append([]string{"--user"}, argv...)
	}
	out, err := exec.CommandContext(ctx, "systemctl", argv...).CombinedOutput()
	if err == nil && strings.TrimSpace(string(out)) != "" {
		return nil
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: there is no systemctl", ErrNone)
	}
	why, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%w: systemctl %s says: %s", ErrNone, strings.Join(argv, " "), why)
}

func unitPath(u Unit, own bool) (string, error) {
	if !own {
		return filepath.Join("/etc/systemd/system", u.Name()+".service"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("cannot find the user's units: %w", err)
	}
	return filepath.Join(home, ".config/systemd/user", u.Name()+".service"), nil
}

// nothing is the program that the library would run; ours runs itself.
type nothing struct{}

func (nothing) Start(service.Service) error { return nil }
func (nothing) Stop(service.Service) error  { return nil }

// Path is where the unit is, or will be.
func (m *Manager) Path() string { return m.path }

// Installed says whether the unit is there and ours.
func (m *Manager) Installed() bool {
	text, err := os.ReadFile(m.path)
	return err == nil && strings.HasPrefix(string(text), "# Written by: hermes gateway install\n")
}

// Install writes the unit and has it started at boot; a unit of ours that is
// there is replaced. It does not start it.
func (m *Manager) Install() error {
	if m.path != "" {
		if _, err := os.Lstat(m.path); err == nil {
			if !m.Installed() {
				return fmt.Errorf("cannot install the service: %q is there and was not written by hermes; move it away", m.path)
			}
			if err := os.Remove(m.path); err != nil {
				return fmt.Errorf("cannot replace the unit: %w", err)
			}
		}
		if err := os.MkdirAll(filepath.Dir(m.path), 0o755); err != nil {
			return fmt.Errorf("cannot write the unit: %w", err)
		}
	}
	if err := m.service.Install(); err != nil {
		return fmt.Errorf("cannot install the service: %w", err)
	}
	return nil
}

// Uninstall stops the service and removes the unit.
func (m *Manager) Uninstall() error {
	if m.path != "" && !m.Installed() {
		return fmt.Errorf("%w: there is no unit of ours at %q", ErrNotInstalled, m.path)
	}
	if err := m.service.Stop(); err != nil {
		return fmt.Errorf("cannot stop the service: %w", err)
	}
	if err := m.service.Uninstall(); err != nil {
		return fmt.Errorf("cannot remove the service: %w", err)
	}
	return nil
}

// Start starts the service and returns when it is ready, or with why it is not.
func (m *Manager) Start() error { return m.act("start", m.service.Start) }

// Stop drains the service and returns when it has ended.
func (m *Manager) Stop() error { return m.act("stop", m.service.Stop) }

// Restart is Stop and Start.
func (m *Manager) Restart() error { return m.act("restart", m.service.Restart) }

func (m *Manager) act(what string, f func() error) error {
	if err := f(); err != nil {
		return fmt.Errorf("cannot %s %s: %w; see: journalctl %s-u %s", what, m.unit.Name(), err, m.userFlag(), m.unit.Name())
	}
	return nil
}

func (m *Manager) userFlag() string {
	if m.unit.RunAs == "" {
		return "--user "
	}
	return ""
}

// Present says whether a unit of ours for the profile is there, without asking
// the service manager: for a look at the state.
func Present(profile string) bool {
	u := Unit{Profile: profile}
	for _, own := range []bool{false, true} {
		if path, err := unitPath(u, own); err == nil && (&Manager{unit: u, path: path}).Installed() {
			return true
		}
	}
	return false
}
