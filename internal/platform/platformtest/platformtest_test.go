package platformtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/supervise"
)

func TestFakePasses(t *testing.T) {
	Run(t, func(*testing.T) Network { return NewFake("hermes") })
}

// broken is the fake with one thing wrong. Functions left nil do what the fake
// does.
type broken struct {
	*Fake
	host    func(platform.Host) platform.Host
	account func() string
	run     func(ctx context.Context, f *Fake, h platform.Host) error
	send    func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error)
	edit    func(ctx context.Context, f *Fake, id string, m platform.Outbound) error

	mu sync.Mutex
	h  platform.Host // as the adapter was given it
}

func (b *broken) Adapter() platform.Adapter { return b }

func (b *broken) Account() string {
	if b.account != nil {
		return b.account()
	}
	return b.Fake.Account()
}

func (b *broken) Run(ctx context.Context, h platform.Host) error {
	b.mu.Lock()
	b.h = h
	b.mu.Unlock()
	if b.host != nil {
		h = b.host(h)
	}
	if b.run != nil {
		return b.run(ctx, b.Fake, h)
	}
	return b.Fake.Run(ctx, h)
}

func (b *broken) Send(ctx context.Context, m platform.Outbound) (platform.Receipt, error) {
	if b.send != nil {
		return b.send(ctx, b.Fake, m)
	}
	return b.Fake.Send(ctx, m)
}

func (b *broken) Edit(ctx context.Context, id string, m platform.Outbound) error {
	if b.edit != nil {
		return b.edit(ctx, b.Fake, id, m)
	}
	return b.Fake.Edit(ctx, id, m)
}

func editing(f func(ctx context.Context, f *Fake, id string, m platform.Outbound) error) *broken {
	return &broken{edit: f}
}

// hostWith is a host with one thing wrong on the way to it.
type hostWith struct {
	platform.Host
	accept func(ctx context.Context, h platform.Host, m platform.Inbound) error
	report func(h platform.Host, state supervise.State, reason string)
}

func (h hostWith) Accept(ctx context.Context, m platform.Inbound) error {
	if h.accept != nil {
		return h.accept(ctx, h.Host, m)
	}
	return h.Host.Accept(ctx, m)
}

func (h hostWith) Report(state supervise.State, reason string) {
	if h.report != nil {
		h.report(h.Host, state, reason)
		return
	}
	h.Host.Report(state, reason)
}

func accepting(f func(ctx context.Context, h platform.Host, m platform.Inbound) error) *broken {
	return &broken{host: func(h platform.Host) platform.Host { return hostWith{Host: h, accept: f} }}
}

func changing(f func(m *platform.Inbound)) *broken {
	return accepting(func(ctx context.Context, h platform.Host, m platform.Inbound) error {
		f(&m)
		return h.Accept(ctx, m)
	})
}

func reporting(f func(h platform.Host, state supervise.State, reason string)) *broken {
	return &broken{host: func(h platform.Host) platform.Host { return hostWith{Host: h, report: f} }}
}

func sending(f func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error)) *broken {
	return &broken{send: f}
}

// skewed sends other texts than it should.
func skewed(f func(text string) string) *broken {
	return sending(func(ctx context.Context, fake *Fake, m platform.Outbound) (platform.Receipt, error) {
		m.Text = f(m.Text)
		return fake.Send(ctx, m)
	})
}

func fate(from, to platform.Fate) *broken {
	return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
		r, err := f.Send(ctx, m)
		if platform.FateOf(err) == from {
			err = &platform.SendError{Fate: to, Err: err}
		}
		return r, err
	})
}

// sabotage lists ways to be wrong and, by a part of its name, a case that must
// find each.
var sabotage = []struct {
	name, found string
	make        func() *broken
}{
	{"another account each time", "names itself", func() *broken {
		n := 0
		return &broken{account: func() string { n++; return fmt.Sprintf("fake/%d", n) }}
	}},
	{"an account of no platform", "names itself", func() *broken {
		return &broken{account: func() string { return "hermes" }}
	}},
	{"messages of another account", "takes in", func() *broken {
		return changing(func(m *platform.Inbound) { m.Account = "fake/other" })
	}},
	{"one id for all", "takes in", func() *broken { return changing(func(m *platform.Inbound) { m.ID = "1" }) }},
	{"no id", "takes in", func() *broken { return changing(func(m *platform.Inbound) { m.ID = "" }) }},
	{"direct messages unmarked", "takes in", func() *broken { return changing(func(m *platform.Inbound) { m.Direct = false }) }},
	{"no chat", "takes in", func() *broken { return changing(func(m *platform.Inbound) { m.Chat = "" }) }},
	{"bytes that are no text", "takes in", func() *broken { return changing(func(m *platform.Inbound) { m.Sender.Name += "\xff" }) }},
	{"text cut at the first comma", "takes in", func() *broken {
		return changing(func(m *platform.Inbound) { m.Text, _, _ = strings.Cut(m.Text, ",") })
	}},
	{"times of another age", "takes in", func() *broken { return changing(func(m *platform.Inbound) { m.At = time.Unix(1, 0) }) }},
	{"everybody is one", "tells people apart", func() *broken {
		return changing(func(m *platform.Inbound) { m.Sender.ID = "somebody" })
	}},
	{"somebody new each time", "tells people apart", func() *broken {
		return changing(func(m *platform.Inbound) { m.Sender.ID += m.ID })
	}},
	{"messages twice", "keeps the order", func() *broken {
		return accepting(func(ctx context.Context, h platform.Host, m platform.Inbound) error {
			return errors.Join(h.Accept(ctx, m), h.Accept(ctx, m))
		})
	}},
	{"the third message lost", "keeps the order", func() *broken {
		n := 0
		return accepting(func(ctx context.Context, h platform.Host, m platform.Inbound) error {
			if n++; n == 3 {
				return nil
			}
			return h.Accept(ctx, m)
		})
	}},
	{"two messages swapped", "keeps the order", func() *broken {
		var kept *platform.Inbound
		return accepting(func(ctx context.Context, h platform.Host, m platform.Inbound) error {
			if kept == nil {
				kept = &m
				return nil
			}
			first := *kept
			kept = nil
			return errors.Join(h.Accept(ctx, m), h.Accept(ctx, first))
		})
	}},
	{"gives up what was not taken", "offers again", func() *broken {
		return accepting(func(ctx context.Context, h platform.Host, m platform.Inbound) error {
			_ = h.Accept(ctx, m)
			return nil
		})
	}},
	{"another id when offered again", "offers again", func() *broken {
		n := 0
		return changing(func(m *platform.Inbound) { n++; m.ID = fmt.Sprint(n) })
	}},
	{"sends wait for the gateway", "while the gateway is busy", func() *broken {
		var busy sync.Mutex
		b := accepting(func(ctx context.Context, h platform.Host, m platform.Inbound) error {
			busy.Lock()
			defer busy.Unlock()
			return h.Accept(ctx, m)
		})
		b.send = func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			for !busy.TryLock() {
				select {
				case <-ctx.Done():
					return platform.Receipt{}, &platform.SendError{Fate: platform.Retry, Err: ctx.Err()}
				case <-time.After(time.Millisecond):
				}
			}
			defer busy.Unlock()
			return f.Send(ctx, m)
		}
		return b
	}},
	{"the first line alone", "what is then heard", func() *broken {
		return skewed(func(text string) string { first, _, _ := strings.Cut(text, "\n"); return first })
	}},
	{"ASCII alone", "what is then heard", func() *broken {
		return skewed(func(text string) string {
			return strings.Map(func(r rune) rune { return min(r, '~') }, text)
		})
	}},
	{"long texts cut off", "the longest text", func() *broken {
		return skewed(func(text string) string { return text[:min(len(text), 400)] })
	}},
	{"runes cut in two", "the longest text", func() *broken {
		return skewed(func(text string) string {
			if len(text) < 400 {
				return text
			}
			return text[:400] + " " + strings.ToValidUTF8(text[400:], "?")
		})
	}},
	{"commands within texts obeyed", "nothing but text", func() *broken {
		return skewed(func(text string) string { return strings.ReplaceAll(text, "\nQUIT :gone", "") })
	}},
	{"said twice", "what is then heard", func() *broken {
		return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			_, _ = f.Send(ctx, m)
			m.Delivery += " again"
			return f.Send(ctx, m)
		})
	}},
	{"one send at a time, the others forgotten", "at the same time", func() *broken {
		var busy sync.Mutex
		return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			if !busy.TryLock() {
				return platform.Receipt{}, nil
			}
			defer busy.Unlock()
			time.Sleep(time.Millisecond) // the sabotage needs others to come meanwhile
			return f.Send(ctx, m)
		})
	}},
	{"success whatever happens", "what cannot be sent", func() *broken {
		return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			r, _ := f.Send(ctx, m)
			return r, nil
		})
	}},
	{"success before it runs", "before it runs", func() *broken {
		return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			r, _ := f.Send(ctx, m)
			return r, nil
		})
	}},
	{"in doubt before it runs", "before it runs", func() *broken { return fate(platform.Retry, platform.Unknown) }},
	{"in doubt about nowhere", "what cannot be sent", func() *broken { return fate(platform.Never, platform.Unknown) }},
	{"a fate of its own", "before it runs", func() *broken { return fate(platform.Retry, "perhaps") }},
	{"errors that do not say what became of it", "before it runs", func() *broken {
		return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			if r, err := f.Send(ctx, m); err == nil {
				return r, nil
			}
			return platform.Receipt{}, errors.New("oops")
		})
	}},
	{"a send that never ends", "the end of time", func() *broken {
		return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			if ctx.Err() != nil {
				select {}
			}
			return f.Send(ctx, m)
		})
	}},
	{"its own words taken in", "does not hear itself", func() *broken {
		b := &broken{}
		b.send = func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			_ = b.h.Accept(ctx, platform.Inbound{Text: m.Text})
			return f.Send(ctx, m)
		}
		return b
	}},
	{"never ready", "says when it is ready", func() *broken {
		return reporting(func(h platform.Host, state supervise.State, reason string) {
			if state != supervise.Ready {
				h.Report(state, reason)
			}
		})
	}},
	{"ready from the first", "says when it is ready", func() *broken {
		return reporting(func(h platform.Host, state supervise.State, reason string) {
			if state != supervise.Starting {
				h.Report(state, reason)
			}
		})
	}},
	{"a loss kept quiet", "comes back", func() *broken {
		return reporting(func(h platform.Host, state supervise.State, reason string) {
			if state != supervise.Degraded {
				h.Report(state, reason)
			}
		})
	}},
	{"degraded for no reason", "comes back", func() *broken {
		return reporting(func(h platform.Host, state supervise.State, _ string) { h.Report(state, "") })
	}},
	{"a secret shown", "comes back", func() *broken {
		return reporting(func(h platform.Host, state supervise.State, _ string) { h.Report(state, "fake-secret is wrong") })
	}},
	{"what was not sent sent later", "comes back", func() *broken {
		var kept []platform.Outbound
		return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			r, err := f.Send(ctx, m)
			if err != nil {
				kept = append(kept, m)
				return r, err
			}
			for _, k := range kept {
				_, _ = f.Send(ctx, k)
			}
			m.Delivery += " again"
			_, _ = f.Send(ctx, m)
			return r, err
		})
	}},
	{"gone for good after a loss", "comes back", func() *broken {
		return &broken{run: func(ctx context.Context, f *Fake, h platform.Host) error {
			once, cancel := context.WithCancel(ctx)
			defer cancel()
			return f.Run(once, hostWith{Host: h, report: func(h platform.Host, state supervise.State, reason string) {
				h.Report(state, reason)
				if state == supervise.Degraded {
					cancel()
				}
			}})
		}}
	}},
	{"runs for ever", "ends when told", func() *broken {
		return &broken{run: func(ctx context.Context, f *Fake, h platform.Host) error {
			_ = f.Run(ctx, h)
			select {}
		}}
	}},
	{"the end taken for an error", "ends when told", func() *broken {
		return &broken{run: func(ctx context.Context, f *Fake, h platform.Host) error {
			_ = f.Run(ctx, h)
			return ctx.Err()
		}}
	}},
	{"edits of another message", "edits what it sent", func() *broken {
		return editing(func(ctx context.Context, f *Fake, _ string, m platform.Outbound) error {
			return f.Edit(ctx, "out_2", m)
		})
	}},
	{"a new message for an edit", "edits what it sent", func() *broken {
		return editing(func(ctx context.Context, f *Fake, _ string, m platform.Outbound) error {
			_, err := f.Send(ctx, m)
			return err
		})
	}},
	{"the same text taken for an error", "edits what it sent", func() *broken {
		last := ""
		return editing(func(ctx context.Context, f *Fake, id string, m platform.Outbound) error {
			if m.Text == last {
				return &platform.SendError{Fate: platform.Never, Err: errors.New("the message is not modified")}
			}
			last = m.Text
			return f.Edit(ctx, id, m)
		})
	}},
	{"no receipts", "edits what it sent", func() *broken {
		return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			_, err := f.Send(ctx, m)
			return platform.Receipt{}, err
		})
	}},
	{"long edits cut off", "edits nothing but text", func() *broken {
		return editing(func(ctx context.Context, f *Fake, id string, m platform.Outbound) error {
			m.Text = m.Text[:min(len(m.Text), 400)]
			return f.Edit(ctx, id, m)
		})
	}},
	{"a new message for one that is gone", "what cannot be edited", func() *broken {
		return editing(func(ctx context.Context, f *Fake, id string, m platform.Outbound) error {
			err := f.Edit(ctx, id, m)
			if platform.FateOf(err) == platform.Never {
				_, _ = f.Send(ctx, m)
			}
			return err
		})
	}},
	{"in doubt about what is gone", "what cannot be edited", func() *broken {
		return editing(func(ctx context.Context, f *Fake, id string, m platform.Outbound) error {
			if err := f.Edit(ctx, id, m); err != nil {
				return &platform.SendError{Fate: platform.Unknown, Err: err}
			}
			return nil
		})
	}},
	{"edits given up for a loss", "while it is not connected", func() *broken {
		return editing(func(ctx context.Context, f *Fake, id string, m platform.Outbound) error {
			if err := f.Edit(ctx, id, m); err != nil {
				return &platform.SendError{Fate: platform.Never, Err: err}
			}
			return nil
		})
	}},
	{"a delivery said again", "says a delivery once", func() *broken {
		n := 0
		return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			n++
			m.Delivery += fmt.Sprint(n)
			return f.Send(ctx, m)
		})
	}},
	{"a delivery under two names", "says a delivery once", func() *broken {
		n := 0
		return sending(func(ctx context.Context, f *Fake, m platform.Outbound) (platform.Receipt, error) {
			n++
			_, err := f.Send(ctx, m)
			return platform.Receipt{ID: fmt.Sprint(n)}, err
		})
	}},
	{"an edit done and denied", "while it is not connected", func() *broken {
		return editing(func(ctx context.Context, f *Fake, id string, m platform.Outbound) error {
			err := f.Edit(ctx, id, m)
			if ctx.Err() != nil {
				_ = f.Edit(context.WithoutCancel(ctx), id, m)
			}
			return err
		})
	}},
	{"edits made up for later", "while it is not connected", func() *broken {
		var kept platform.Outbound
		return editing(func(ctx context.Context, f *Fake, id string, m platform.Outbound) error {
			if err := f.Edit(ctx, id, m); err != nil {
				kept = m
				return err
			}
			return f.Edit(ctx, id, kept)
		})
	}},
	{"something left running", "ends when told", func() *broken {
		return &broken{run: func(ctx context.Context, f *Fake, h platform.Host) error {
			go func() { select {} }()
			return f.Run(ctx, h)
		}}
	}},
}

// The suite is worth what it finds: each sabotage must fail the case that is
// there for it.
func TestSabotagedFakesFail(t *testing.T) {
	found := map[string]bool{}
	cases := slices.Concat(Cases(), EditorCases(), DedupeCases())
	for _, s := range sabotage {
		t.Run(s.name, func(t *testing.T) {
			i := slices.IndexFunc(cases, func(c Case) bool { return strings.Contains(c.Name, s.found) })
			if i < 0 {
				t.Fatalf("no case is called %q", s.found)
			}
			found[cases[i].Name] = true
			b := s.make()
			b.Fake = NewFake("hermes")
			const patience = 200 * time.Millisecond
			if err := cases[i].Check(t.Context(), b, patience); err == nil {
				t.Errorf("%q passes it", cases[i].Name)
			}
		})
	}
	for _, c := range cases {
		if !found[c.Name] {
			t.Errorf("no sabotage is found by %q: can it fail at all?", c.Name)
		}
	}
}
