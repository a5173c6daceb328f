package gateway

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/inbound"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/turn"
)

const (
	// adapterRetry is the pause after an adapter gave up by itself: an operator
	// has to act, and a look now and then finds out that one has.
	adapterRetry = time.Minute
	// flushEvery is how often a drain looks whether everything was sent.
	flushEvery = 20 * time.Millisecond
	// flushTimeout is how long a drain waits for that: a platform that makes us
	// wait must not use up the stop budget.
	flushTimeout = 2 * time.Second
)

// chats are the accounts on chat platforms: an adapter and an outbox each, and
// one desk for what comes in.
type chats struct {
	g     *Gateway
	desk  *inbound.Desk
	boxes map[string]*outbox.Outbox // by account
	by    map[string]platform.Adapter
}

func newChats(g *Gateway) (*chats, error) {
	c := &chats{g: g, boxes: map[string]*outbox.Outbox{}, by: map[string]platform.Adapter{}}
	for _, a := range g.o.Adapters {
		if c.by[a.Account()] != nil {
			return nil, fmt.Errorf("cannot serve the account %q twice", a.Account())
		}
		box, err := outbox.New(outbox.Options{Store: g.o.Store, Sender: a, Observe: c, Log: g.log})
		if err != nil {
			return nil, err
		}
		c.by[a.Account()], c.boxes[a.Account()] = a, box
	}
	return c, nil
}

// Delivered implements outbox.Observer.
func (c *chats) Delivered(account string, took time.Duration, sent, repeat bool) {
	c.g.metrics.delivered(account, took, sent)
	if repeat {
		c.g.turns.CountDuplicate()
	}
}

// Previewed implements outbox.Observer.
func (c *chats) Previewed(account string, sent bool) { c.g.metrics.previewed(account, sent) }

// preview makes what shows the answer to m while it grows; nil: nothing can.
func (c *chats) preview(m turn.Message) turn.Preview {
	if box := c.boxes[m.Ask.To.Account]; box != nil {
		if p := box.Preview(m.ID, m.Ask.To, m.Preview); p != nil {
			return p
		}
	}
	return nil
}

// open makes the desk, which needs the turn engine.
func (c *chats) open() (err error) {
	o := c.g.o
	for _, name := range o.Senders.Open() {
		if len(o.Adapters) > 0 {
			c.g.log.Warn("everybody may talk to this gateway", "setting", name)
		}
	}
	c.desk, err = inbound.New(inbound.Options{
		Turns: c.g.turns, Store: o.Store, Senders: o.Senders, Pairing: o.Pairing, MaxMessage: o.MaxMessage, Busy: o.Busy,
		Model: o.Model.Name(), Wake: c.wake, Drop: c.drop, Refused: c.g.refuse, Audit: o.Audit, Log: c.g.log,
		Status: func() string { state, _, _ := c.g.State(); return string(state) },
	})
	return err
}

// parts cuts an answer for the account that it goes to; one that is not served
// any more keeps its answers until it is again.
func (c *chats) parts(m turn.Message, text string) []outbox.Part {
	if a := c.by[m.Ask.To.Account]; a != nil {
		return inbound.Parts(a, m, text)
	}
	return inbound.PartsFor(platform.Limits{Text: 1 << 10}, m, text)
}

// accounts lists the accounts, sorted.
func (c *chats) accounts() []string { return slices.Sorted(maps.Keys(c.by)) }

func (c *chats) wake(account string) {
	if box := c.boxes[account]; box != nil {
		box.Wake()
	}
}

// drop takes off what waits to be sent to a chat.
func (c *chats) drop(ctx context.Context, to outbox.Address) (int, error) {
	n, upto, err := c.g.o.Store.Drop(ctx, to, time.Now())
	if err == nil && c.boxes[to.Account] != nil {
		c.boxes[to.Account].Drop(to.Chat, to.Thread, upto)
	}
	return n, err
}

// run connects every account until the returned function is called.
func (c *chats) run(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for account, a := range c.by {
		wg.Go(func() {
			if err := c.boxes[account].Run(ctx); err != nil {
				c.g.log.Error("outbox ended", "account", account, "error", err)
			}
		})
		wg.Go(func() { c.connect(ctx, a) })
	}
	return func() { cancel(); wg.Wait() }
}

// connect runs one adapter, and again after it gave up.
func (c *chats) connect(ctx context.Context, a platform.Adapter) {
	report := func(state supervise.State, reason string) { c.g.Report(a.Platform(), state, reason) }
	report(supervise.Starting, "connecting")
	host := c.desk.Host(a, report)
	for {
		err := a.Run(ctx, host)
		if ctx.Err() != nil {
			return
		}
		reason := "the adapter ended"
		if err != nil {
			reason = err.Error()
		}
		report(supervise.Degraded, reason)
		c.g.log.Error("chat platform given up for now", "account", a.Account(), "error", reason)
		t := time.NewTimer(adapterRetry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// flush waits until every answer was sent, at most flushTimeout: what is left is
// sent by the next process.
func (c *chats) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		open := 0
		for account, box := range c.boxes {
			if c.g.health.is(c.by[account].Platform(), supervise.Ready) { // else nothing can be sent now
				open += box.Open()
			}
		}
		if open == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
