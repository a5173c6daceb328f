package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/supervise"
)

// listed is a supervise.Lister of a fixed answer.
type listed struct {
	report supervise.Report
	err    error
}

func (l listed) List(context.Context, bool) (supervise.Report, error) { return l.report, l.err }

func TestMetricsTellTheStateOfEveryService(t *testing.T) {
	r := start(t, func(o *gateway.Options) {
		o.Services = listed{report: supervise.Report{Services: []supervise.Service{
			{Name: "gateway-default", State: supervise.Ready, RequestedRestarts: 2},
			{Name: "gateway-work", State: supervise.Parked, Restarts: 20},
		}}}
	})
	_, body := r.do(t, http.MethodGet, "/metrics", "")
	for _, line := range []string{
		`hermes_service_state{service="gateway-default",state="ready"} 1`,
		`hermes_service_state{service="gateway-default",state="parked"} 0`,
		`hermes_service_state{service="gateway-work",state="parked"} 1`,
		`hermes_service_restarts_total{asked="true",service="gateway-default"} 2`,
		`hermes_service_restarts_total{asked="false",service="gateway-work"} 20`,
		"# TYPE hermes_service_restarts_total counter",
		`hermes_messages_received_total{profile="default"} 0`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

// The gateway's own numbers do not depend on the others.
func TestMetricsWithoutServices(t *testing.T) {
	for name, l := range map[string]supervise.Lister{"no lister": nil, "no answer": listed{err: errors.New("no tree")}} {
		t.Run(name, func(t *testing.T) {
			r := start(t, func(o *gateway.Options) { o.Services = l })
			resp, body := r.do(t, http.MethodGet, "/metrics", "")
			if resp.StatusCode != http.StatusOK || !strings.Contains(body, "hermes_messages_received_total") || strings.Contains(body, "hermes_service_") {
				t.Errorf("%s:\n%s", resp.Status, body)
			}
		})
	}
}
