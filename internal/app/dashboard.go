package app

import (
	"context"
	"log/slog"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/dashboard"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise"
)

// DashboardOptions is what a dashboard process is made of. All but Operator and
// Ready is required.
type DashboardOptions struct {
	// Config is that of the default profile's home, flags merged in.
	Config *config.Config
	// Lister tells the state of the services.
	Lister supervise.Lister
	// Operator starts and stops gateways. Nil: the dashboard only looks.
	Operator dashboard.Operator
	// Ready is called once when the page can be loaded.
	Ready func()
	Log   *slog.Logger
}

// RunDashboard serves the dashboard until ctx ends. A bind beyond loopback
// without a login carries exit code 78.
func RunDashboard(ctx context.Context, o DashboardOptions) error {
	settings := o.Config.Dashboard()
	d, err := dashboard.New(dashboard.Options{
		Host:     settings.Host,
		Port:     settings.Port,
		Username: settings.Username,
		Password: settings.Password,
		Lister:   o.Lister,
		Operator: o.Operator,
		Log:      o.Log,
		Ready:    o.Ready,
	})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

// byDashboard is who asked, in intents and in the audit log.
const byDashboard = "dashboard"

// gateways implements dashboard.Operator.
type gateways struct{ s *Supervision }

// DashboardOperator commands the gateways of this tree for a dashboard; nil
// where there is no tree, or none that this user may command.
func (s *Supervision) DashboardOperator() dashboard.Operator {
	if _, err := s.Manager(byDashboard); err != nil {
		return nil
	}
	return gateways{s}
}

// Operate implements dashboard.Operator as `hermes gateway start`, `stop` and
// `restart` do.
func (g gateways) Operate(ctx context.Context, action supervise.Command, profileName, why string) error {
	p, err := profile.Find(g.s.Home, profileName)
	if err != nil {
		return err
	}
	m, err := g.s.Manager(byDashboard)
	if err != nil {
		return err
	}
	m.Why = why
	ctx, cancel := context.WithTimeout(ctx, WaitLimit)
	defer cancel()
	return g.s.Operate(ctx, m, action, p, true)
}
