package gateway

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/turn"
)

// metrics are the numbers of one gateway, in a registry of its own.
type metrics struct {
	registry *prometheus.Registry
	seconds  *prometheus.HistogramVec
	counted  *prometheus.CounterVec
	// deliveries by platform and outcome
	deliveries *prometheus.CounterVec
	previews   *prometheus.CounterVec // the same
}

// turnBuckets reach from a store's commit to a slow model's long answer, in
// seconds.
func turnBuckets() []float64 { return []float64{.001, .005, .025, .1, .5, 1, 2.5, 5, 10, 30, 60, 300} }

func newMetrics(profile string, read func() counts, more ...prometheus.Collector) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "hermes_turn_seconds",
			Help:    "Time of a message by stage: accept, queue, model, store, total from acceptance to the end, and delivery to a chat platform.",
			Buckets: turnBuckets(),
		}, []string{"stage"}),
		counted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hermes_model_tokens_total",
			Help: "Tokens as the model counts them, by direction: input, output.",
		}, []string{"model", "direction"}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hermes_deliveries_total",
			Help: "Parts of answers by platform and outcome: sent, dead (given up).",
		}, []string{"platform", "outcome"}),
		previews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hermes_previews_total",
			Help: "Times that a growing answer was shown, by platform and outcome: sent, dropped.",
		}, []string{"platform", "outcome"}),
	}
	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"profile": profile}, m.registry)
	labelled.MustRegister(m.seconds, m.counted, m.deliveries, m.previews, newMessageCollector(read))
	labelled.MustRegister(more...)
	return m
}

// Stage implements turn.Observer.
func (m *metrics) Stage(name string, took time.Duration) {
	m.seconds.WithLabelValues(name).Observe(took.Seconds())
}

// Tokens implements turn.Observer.
func (m *metrics) Tokens(model string, u chat.Usage) {
	m.counted.WithLabelValues(model, "input").Add(float64(u.Input))
	m.counted.WithLabelValues(model, "output").Add(float64(u.Output))
}

// delivered counts a part of an answer that was sent or given up.
func (m *metrics) delivered(account string, took time.Duration, sent bool) {
	outcome := "sent"
	if !sent {
		outcome = "dead"
	}
	m.deliveries.WithLabelValues(platformOf(account), outcome).Inc()
	m.Stage("delivery", took)
}

// previewed counts a preview that was sent or dropped.
func (m *metrics) previewed(account string, sent bool) {
	outcome := "sent"
	if !sent {
		outcome = "dropped"
	}
	m.previews.WithLabelValues(platformOf(account), outcome).Inc()
}

// platformOf is the name of the platform that an account is on.
func platformOf(account string) string {
	name, _, _ := strings.Cut(account, "/")
	return name
}

// counts are the messages by where they are: received = answered + queued +
// running + failed, at every moment.
type counts struct {
	turn.Tally
	refused int64
}

// messageCollector reads all message counts at one moment, so that received =
// answered + queued + running + failed holds in every scrape.
type messageCollector struct {
	read func() counts
	rows []messageRow
}

type messageRow struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(counts) int64
}

func newMessageCollector(read func() counts) *messageCollector {
	row := func(name, help string, kind prometheus.ValueType, value func(counts) int64) messageRow {
		return messageRow{prometheus.NewDesc(name, help, nil, nil), kind, value}
	}
	return &messageCollector{read: read, rows: []messageRow{
		row("hermes_messages_received_total", "Messages that policy let in.", prometheus.CounterValue, func(c counts) int64 { return c.Received }),
		row("hermes_messages_answered_total", "Messages answered and stored.", prometheus.CounterValue, func(c counts) int64 { return c.Answered }),
		row("hermes_messages_failed_total", "Messages accepted and not answered.", prometheus.CounterValue, func(c counts) int64 { return c.Failed }),
		row("hermes_messages_refused_total", "Messages not accepted: policy, a full queue, a drain.", prometheus.CounterValue, func(c counts) int64 { return c.refused }),
		row("hermes_messages_duplicates_total", "Deliveries that were labelled as perhaps repeated.", prometheus.CounterValue, func(c counts) int64 { return c.Duplicates }),
		row("hermes_messages_queued", "Messages waiting for their turn.", prometheus.GaugeValue, func(c counts) int64 { return c.Queued }),
		row("hermes_messages_running", "Messages being answered.", prometheus.GaugeValue, func(c counts) int64 { return c.Running }),
	}}
}

// Describe implements prometheus.Collector.
func (c *messageCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, r := range c.rows {
		ch <- r.desc
	}
}

// Collect implements prometheus.Collector.
func (c *messageCollector) Collect(ch chan<- prometheus.Metric) {
	now := c.read()
	for _, r := range c.rows {
		ch <- prometheus.MustNewConstMetric(r.desc, r.kind, float64(r.value(now)))
	}
}
