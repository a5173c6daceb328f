package app

import (
	"context"
	"log/slog"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/dashboard"
	"github.com/hermesgw/hermes/internal/supervise"
)

// DashboardOptions is what a dashboard process is made of. All but Ready is
// required.
type DashboardOptions struct {
	// Config is that of the default profile's home, flags merged in.
	Config *config.Config
	// Lister tells the state of the services.
	Lister supervise.Lister
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
		Log:      o.Log,
		Ready:    o.Ready,
	})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}
