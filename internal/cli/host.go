package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/hostunits"
)

// onThisHost is target for commands that root gives to the service manager: it
// stays root, and touches files of the data directory only as their owner.
func (o *options) onThisHost() (*app.Supervision, profile.Profile, error) {
	s, err := app.FindSupervision(os.LookupEnv)
	if err != nil {
		return nil, profile.Profile{}, err
	}
	p, err := profile.Find(s.Home, o.profile)
	return s, p, err
}

func newGatewayInstall(o *options) *cobra.Command {
	var runAs string
	var dry bool
	cmd := &cobra.Command{
		Use: "install", Short: "Make the gateway a service of this host (systemd)", Args: exactly(0, ""),
		Long: `Write a service of this host that runs the gateway, and have it started at boot: a
system service for root, which runs as the owner of the data directory or as
--run-as, else a service of your own. Nothing is started yet. In a container there
is nothing to install: gateways are slots there.`,
		Example: "  hermes gateway install\n  hermes gateway start\n  sudo HERMES_HOME=/srv/hermes hermes gateway install --run-as hermes\n  hermes gateway install --dry-run",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, p, err := o.onThisHost()
			if err != nil {
				return err
			}
			if dry {
				text, err := s.UnitText(p, runAs)
				if err == nil {
					_, err = fmt.Fprint(o.out, text)
				}
				return err
			}
			m, unit, err := s.HostUnit(cmd.Context(), p, runAs)
			if err != nil {
				return err
			}
			if err := m.Install(); err != nil {
				return err
			}
			return sayInstalled(o.out, m, unit, p)
		},
	}
	cmd.Flags().StringVar(&runAs, "run-as", "", "user of a system service (root only; default: the owner of the data directory)")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print the unit and write nothing")
	return cmd
}

func sayInstalled(w io.Writer, m *hostunits.Manager, u hostunits.Unit, p profile.Profile) error {
	flag := ""
	if p.Name != profile.Default {
		flag = "-p " + p.Name + " "
	}
	fmt.Fprintf(w, "installed %s; start it with: hermes %sgateway start\n", m.Path(), flag)
	if u.RunAs == "" {
		_, err := fmt.Fprintln(w, "it starts when you log in; to have it run without that: loginctl enable-linger")
		return err
	}
	_, err := fmt.Fprintf(w, "it runs as %s; other commands find it with: HERMES_HOME=%s HERMES_RUN_DIR=%s\n", u.RunAs, u.Home, u.RunDir())
	return err
}

// isRoot says who asks.
func isRoot() bool { return os.Geteuid() == 0 }

func newGatewayUninstall(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "uninstall", Short: "Stop the service of this host and remove it", Args: exactly(0, ""),
		Example: "  hermes gateway uninstall",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, p, err := o.onThisHost()
			if err != nil {
				return err
			}
			runAs := ""
			if hostunits.Present(p.Name) && isRoot() {
				runAs = "root" // the unit that is there says as whom
			}
			m, _, err := s.HostUnit(cmd.Context(), p, runAs)
			if err != nil {
				return err
			}
			if err := m.Uninstall(); err != nil {
				if errors.Is(err, hostunits.ErrNotInstalled) {
					return exitcode.With(exitcode.NoSuch, err)
				}
				return err
			}
			_, err = fmt.Fprintf(o.out, "removed %s; the data in %s stays\n", m.Path(), p.Home)
			return err
		},
	}
}

// hosted does action where the gateway is a service of the host; ok false: it is
// none.
func (so *slotOptions) hosted(ctx context.Context, action supervise.Command) (ok bool, err error) {
	s, p, err := so.onThisHost()
	if err != nil || so.all {
		return false, nil // the usual way says what is wrong
	}
	m, ok := s.InstalledUnit(ctx, p)
	if !ok {
		return false, nil
	}
	return true, so.onHost(s, p, m, action)
}

// onHost is start, stop and restart of a service of the host.
func (so *slotOptions) onHost(s *app.Supervision, p profile.Profile, m *hostunits.Manager, action supervise.Command) error {
	want, act := supervise.WantUp, m.Start
	switch action {
	case supervise.CommandStop:
		want, act = supervise.WantDown, m.Stop
	case supervise.CommandRestart:
		act = m.Restart
	case supervise.CommandStart:
	}
	if err := s.Want(p, want, so.why); err != nil {
		return err
	}
	if err := act(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(so.out, "%s: %s\n", supervise.GatewayName(p.Name), action.Outcome())
	return err
}
