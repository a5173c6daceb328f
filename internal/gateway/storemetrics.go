package gateway

import (
	"context"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Keeper tells numbers about what is kept. Its methods block for the disk.
type Keeper interface {
	// Size is what the database takes, in bytes.
	Size(ctx context.Context) (int64, error)
	// DeadCounts is how many messages and deliveries were given up and nobody saw
	// to.
	DeadCounts(ctx context.Context) (messages, deliveries int64, err error)
}

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
		dead: prometheus.NewDesc("hermes_dead_letters", "What was given up and nobody saw to, by kind: message, delivery.", []string{"kind"}, nil),
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
	if messages, deliveries, err := c.g.o.Store.DeadCounts(ctx); err == nil {
		gauge(c.dead, messages, "message")
		gauge(c.dead, deliveries, "delivery")
	}
	for account, box := range c.g.chats.boxes {
		name, _, _ := strings.Cut(account, "/")
		gauge(c.open, int64(box.Open()), name)
	}
}
