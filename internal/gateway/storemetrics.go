package gateway

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// storeCollector asks the store anew for each scrape. What cannot be told is left
// out.
type storeCollector struct {
	g    *Gateway
	size *prometheus.Desc
	dead *prometheus.Desc
	open *prometheus.Desc
}

func newStoreCollector(g *Gateway) *storeCollector {
	return &storeCollector{
		g:    g,
		size: prometheus.NewDesc("hermes_database_bytes", "What the database takes, without what can be used again.", nil, nil),
		dead: prometheus.NewDesc("hermes_dead_letters", "What was given up and nobody saw to, by kind: message, delivery (an answer, whatever number of parts).", []string{"kind"}, nil),
		open: prometheus.NewDesc("hermes_deliveries_open", "Parts of answers that wait to be sent, by platform.", []string{"platform"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *storeCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.size
	ch <- c.dead
	ch <- c.open
}

// Collect implements prometheus.Collector.
func (c *storeCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout) // the interface brings none
	defer cancel()
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	if n, err := c.g.o.Store.Size(ctx); err == nil {
		gauge(c.size, n)
	}
	if dead, err := c.g.o.Store.Dead(ctx); err == nil {
		gauge(c.dead, dead.Messages, "message")
		gauge(c.dead, dead.Deliveries, "delivery")
	}
	for account, box := range c.g.chats.boxes {
		gauge(c.open, int64(box.Open()), platformOf(account))
	}
}
