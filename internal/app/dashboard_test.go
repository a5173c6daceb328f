package app_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/supervise"
)

// none is a supervise.Lister without services.
type none struct{}

func (none) List(context.Context, bool) (supervise.Report, error) {
	return supervise.Report{Schema: supervise.SchemaVersion, Manager: "none"}, nil
}

func settings(t *testing.T, flags map[string]string) *config.Config {
	t.Helper()
	c, err := config.Load(config.Options{Home: t.TempDir(), Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestRunDashboardServesUntilStopped(t *testing.T) {
	port := freePort(t)
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- app.RunDashboard(ctx, app.DashboardOptions{
			Config: settings(t, map[string]string{"dashboard.port": port}),
			Lister: none{}, Ready: func() { close(ready) }, Log: slog.New(slog.DiscardHandler),
		})
	}()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	case <-time.After(10 * time.Second):
		t.Fatal("never ready")
	}
	resp, err := http.Get("http://127.0.0.1:" + port + "/api/services")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != `{"schema":1,"manager":"none","services":[]}`+"\n" {
		t.Errorf("services: %s", body)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("RunDashboard = %v", err)
	}
}

func TestRunDashboardRefusesAnOpenBind(t *testing.T) {
	err := app.RunDashboard(t.Context(), app.DashboardOptions{
		Config: settings(t, map[string]string{"dashboard.host": "0.0.0.0"}), Lister: none{}, Log: slog.New(slog.DiscardHandler),
	})
	if exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), "HERMES_DASHBOARD_PASSWORD") {
		t.Errorf("RunDashboard = %v (exit %d)", err, exitcode.Of(err))
	}
}
