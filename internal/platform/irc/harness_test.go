package irc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/platform/irc"
	"github.com/hermesgw/hermes/internal/platform/irc/ngircdtest"
	"github.com/hermesgw/hermes/internal/supervise"
)

const patience = ngircdtest.Patience

// brisk are pauses that no test has to sit out. What a test is about it sets
// itself.
var brisk = irc.Timing{
	Connect: 10 * time.Second, Ping: 10 * time.Second, Confirm: 10 * time.Second, Goodbye: 2 * time.Second,
	Backoff: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond, Refused: 10 * time.Millisecond, RefusedMax: 100 * time.Millisecond,
	Steady: time.Minute, Regain: 50 * time.Millisecond, Rejoin: 20 * time.Millisecond, RejoinMax: 200 * time.Millisecond,
	Line: time.Millisecond, Burst: 4,
}

// bot is an adapter that runs, and a gateway that writes down what it is told.
type bot struct {
	*irc.Adapter
	cancel context.CancelFunc
	ended  chan error

	mu      sync.Mutex
	taken   []platform.Inbound
	reports []string      // "state: reason"
	gate    chan struct{} // Accept waits for it, if it is set
}

func start(t *testing.T, o irc.Options) *bot {
	t.Helper()
	if o.Nick == "" {
		o.Nick = "hermes"
	}
	if o.Timing == (irc.Timing{}) {
		o.Timing = brisk
	}
	a, err := irc.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &bot{Adapter: a, cancel: cancel, ended: make(chan error, 1)}
	go func() { b.ended <- a.Run(ctx, b) }()
	t.Cleanup(func() { b.stop(t) })
	return b
}

// ready starts an adapter and waits until it is.
func ready(t *testing.T, o irc.Options) *bot {
	t.Helper()
	b := start(t, o)
	b.awaitReport(t, "ready: ")
	return b
}

func (b *bot) stop(t *testing.T) {
	t.Helper()
	b.cancel()
	select {
	case err := <-b.ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		b.ended <- nil
	case <-time.After(patience):
		t.Error("Run does not end")
	}
}

func (b *bot) Accept(ctx context.Context, m platform.Inbound) error {
	b.mu.Lock()
	gate := b.gate
	b.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = append(b.taken, m)
	return nil
}

func (b *bot) Cursor(context.Context, string) (string, error) { return "", nil }

func (b *bot) Report(state supervise.State, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reports = append(b.reports, string(state)+": "+reason)
}

func (b *bot) block() (release func()) {
	gate := make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

func (b *bot) messages() []platform.Inbound {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.taken)
}

func (b *bot) told() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.reports)
}

// await polls a condition.
func (b *bot) await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s; taken in %+v; reports %q", patience, what, b.messages(), b.told())
		}
	}
}

// awaitReport waits until the newest report contains text.
func (b *bot) awaitReport(t *testing.T, text string) {
	t.Helper()
	b.await(t, "the report "+text, func() bool {
		all := b.told()
		return len(all) > 0 && strings.Contains(all[len(all)-1], text)
	})
}

// awaitReportAfter waits for a report that contains text, past the first n.
func (b *bot) awaitReportAfter(t *testing.T, n int, text string) {
	t.Helper()
	b.await(t, "a new report "+text, func() bool {
		return slices.ContainsFunc(b.told()[n:], func(r string) bool { return strings.Contains(r, text) })
	})
}

// awaitTexts waits until exactly these texts were taken in.
func (b *bot) awaitTexts(t *testing.T, want ...string) []platform.Inbound {
	t.Helper()
	b.await(t, fmt.Sprintf("messages %q", want), func() bool { return len(b.messages()) >= len(want) })
	got := b.messages()
	var texts []string
	for _, m := range got {
		texts = append(texts, m.Text)
	}
	if !slices.Equal(texts, want) {
		t.Fatalf("taken in %q, want %q", texts, want)
	}
	return got
}

func (b *bot) say(t *testing.T, chat, text string) platform.Receipt {
	t.Helper()
	r, err := b.trySay(t, chat, text)
	if err != nil {
		t.Fatalf("Send: %v", err)
	}
	return r
}

func (b *bot) trySay(t *testing.T, chat, text string) (platform.Receipt, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return b.Send(ctx, platform.Outbound{Delivery: "dlv_1", Chat: chat, Text: text})
}

// from matches a message of nick that is text.
func from(nick, text string) func(ircmsg.Message) bool {
	return func(m ircmsg.Message) bool {
		return m.Command == "PRIVMSG" && m.Nick() == nick && len(m.Params) > 1 && m.Params[1] == text
	}
}

func command(name, nick string) func(ircmsg.Message) bool {
	return func(m ircmsg.Message) bool { return m.Command == name && m.Nick() == nick }
}
