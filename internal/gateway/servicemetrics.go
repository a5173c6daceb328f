package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hermesgw/hermes/internal/supervise"
)

// listTimeout bounds the question behind one scrape; a deaf gateway takes under
// a second of it.
const listTimeout = 3 * time.Second

// serveMetrics writes the numbers of this gateway and, where it was given a
// lister, the states of all services, asked anew for each scrape. Where they
// cannot be told there are none of them, and the rest of the page stands.
func (g *Gateway) serveMetrics(w http.ResponseWriter, r *http.Request) {
	gatherers := prometheus.Gatherers{g.metrics.registry}
	if g.o.Services != nil {
		ctx, cancel := context.WithTimeout(r.Context(), listTimeout)
		defer cancel()
		if report, err := g.o.Services.List(ctx, true); err == nil {
			all := prometheus.NewRegistry()
			all.MustRegister(newServiceCollector(report))
			gatherers = append(gatherers, all)
		}
	}
	promhttp.HandlerFor(gatherers, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// serviceCollector puts one report into numbers.
type serviceCollector struct {
	report   supervise.Report
	state    *prometheus.Desc
	restarts *prometheus.Desc
}

func newServiceCollector(report supervise.Report) serviceCollector {
	return serviceCollector{
		report:   report,
		state:    prometheus.NewDesc("hermes_service_state", "1 for the state that a service is in, 0 for every other.", []string{"service", "state"}, nil),
		restarts: prometheus.NewDesc("hermes_service_restarts_total", "Starts of a service after its first, by whether somebody asked for them.", []string{"service", "asked"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c serviceCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.state
	ch <- c.restarts
}

// Collect implements prometheus.Collector.
func (c serviceCollector) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.report.Services {
		for _, entry := range supervise.States() {
			value := 0.0
			if s.State == entry.State {
				value = 1
			}
			ch <- prometheus.MustNewConstMetric(c.state, prometheus.GaugeValue, value, s.Name, string(entry.State))
		}
		ch <- prometheus.MustNewConstMetric(c.restarts, prometheus.CounterValue, float64(s.RequestedRestarts), s.Name, "true")
		ch <- prometheus.MustNewConstMetric(c.restarts, prometheus.CounterValue, float64(s.Restarts), s.Name, "false")
	}
}
