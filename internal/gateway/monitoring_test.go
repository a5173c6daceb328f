package gateway_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/testenv"
)

// mute is an adapter whose network takes everything.
type mute struct{}

func (mute) Platform() string        { return "mute" }
func (mute) Account() string         { return "mute/bot" }
func (mute) Limits() platform.Limits { return platform.Limits{Text: 1000} }

func (mute) Run(ctx context.Context, host platform.Host) error {
	host.Report(supervise.Ready, "")
	<-ctx.Done()
	return nil
}

func (mute) Send(context.Context, platform.Outbound) (platform.Receipt, error) {
	return platform.Receipt{}, nil
}

// Every number that the dashboard and the alerts speak of is on a real page.
func TestMonitoringKnowsOurMetrics(t *testing.T) {
	db := openStore(t, filepath.Join(t.TempDir(), store.FileName))
	part := outbox.Part{Delivery: "dlv_1", Address: outbox.Address{Account: "mute/bot", Chat: "c"}, Part: 1, Parts: 1, Text: "x", Created: time.Now()}
	if err := db.Enqueue(t.Context(), []outbox.Part{part}); err != nil {
		t.Fatal(err)
	}
	r := start(t, func(o *gateway.Options) {
		o.Store, o.Adapters = db, []platform.Adapter{mute{}}
		o.Services = listed{report: supervise.Report{Services: []supervise.Service{{Name: "gateway-default", State: supervise.Ready}}}}
	})
	r.post(t, hello)
	until(t, "it is sent", func() bool { return r.metric(t, "hermes_deliveries_total") == 1 })
	_, page := r.do(t, http.MethodGet, "/metrics", "")
	names := regexp.MustCompile(`\bhermes_[a-z_]+`)
	found := 0
	for _, file := range []string{"grafana-dashboard.json", "alerts.yaml"} {
		text, err := os.ReadFile("../../deploy/monitoring/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names.FindAllString(string(text), -1) {
			found++
			if !strings.Contains(page, "\n"+name+"{") && !strings.Contains(page, "\n"+name+" ") {
				t.Errorf("%s speaks of %s, which /metrics has not", file, name)
			}
		}
	}
	if found < 25 {
		t.Errorf("only %d names were found", found)
	}
}

// Prometheus itself takes the rules.
func TestPrometheusTakesTheAlerts(t *testing.T) {
	testenv.Need(t, "promtool")
	if out, err := exec.Command("promtool", "check", "rules", "../../deploy/monitoring/alerts.yaml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
