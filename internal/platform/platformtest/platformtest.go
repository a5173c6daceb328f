// Package platformtest is the conformance suite of platform.Adapter: what the
// gateway may rely on whatever network stands behind it. It judges what the
// adapter tells the gateway and what people on the network hear, and nothing of
// how the two are connected. Fake is a network in memory that passes it.
//
//	platformtest.Run(t, func(t *testing.T) platformtest.Network { return newIRC(t) })
package platformtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/supervise"
)

// Network is a network with one account of ours and any number of people on it.
// People come into being when they are named first. Its methods may block for
// as long as the network takes; an error says that the test itself is broken.
type Network interface {
	// Adapter is the adapter of the account, the same each time; it does not run yet.
	Adapter() platform.Adapter
	// Say lets a person write text to the account, directly.
	Say(person, text string) error
	// Heard is what a person got from the account so far, in order, and as it is
	// now where the account can edit. A text may have come in several pieces.
	Heard(person string) []string
	// Cut breaks the adapter's connection and lets no new one be made, until Mend.
	Cut() error
	Mend() error
	// Nowhere is a chat that the network does not know.
	Nowhere() string
	// Secrets must not be shown to anybody.
	Secrets() []string
}

// Eraser is a Network whose adapter is a platform.Editor.
type Eraser interface {
	Network
	// Erase removes what a person got last from the account, as a person can.
	Erase(person string) error
}

// Case is one thing that an adapter must do.
type Case struct {
	Name  string
	check func(*bench) error
}

// Check tries the case on a fresh network and says what is wrong. Nothing is
// waited for longer than patience.
func (c Case) Check(ctx context.Context, n Network, patience time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &bench{ctx: ctx, Network: n, patience: patience, host: &host{}, adapter: n.Adapter()}
	err := c.check(b)
	return errors.Join(err, b.stop())
}

// Cases lists the suite.
func Cases() []Case {
	return []Case{
		{"names itself, and always the same", names},
		{"sends nothing before it runs", sendsNothingBefore},
		{"says when it is ready", saysReady},
		{"takes in what people write", takesIn},
		{"tells people apart", tellsApart},
		{"keeps the order", keepsOrder},
		{"offers again what was not taken", offersAgain},
		{"sends while the gateway is busy", sendsWhileBusy},
		{"sends what is then heard", sends},
		{"sends the longest text", sendsLongest},
		{"sends nothing but text", sendsOnlyText},
		{"sends at the same time", sendsAtOnce},
		{"knows what cannot be sent", knowsNowhere},
		{"heeds the end of time", heedsContext},
		{"does not hear itself", deafToItself},
		{"comes back", comesBack},
		{"ends when told", ends},
	}
}

// EditorCases lists what an adapter that is a platform.Editor must do as well.
func EditorCases() []Case {
	return []Case{
		{"edits what it sent", edits},
		{"edits nothing but text", editsText},
		{"knows what cannot be edited", knowsGone},
		{"edits nothing while it is not connected", editsConnected},
	}
}

// DedupeCases lists what an adapter must do whose Limits say Dedupes.
func DedupeCases() []Case {
	return []Case{{"says a delivery once", dedupes}}
}

// Run runs the suite, as far as the network can do what a case is about; start makes
// a fresh network for each.
func Run(t *testing.T, start func(t *testing.T) Network) {
	const patience = 20 * time.Second
	for _, c := range casesOf(start(t).Adapter()) {
		t.Run(c.Name, func(t *testing.T) {
			if err := c.Check(t.Context(), start(t), patience); err != nil {
				t.Error(err)
			}
		})
	}
}

// casesOf are the cases that an adapter is held to.
func casesOf(a platform.Adapter) []Case {
	cases := Cases()
	if _, can := a.(platform.Editor); can {
		cases = append(cases, EditorCases()...)
	}
	if a.Limits().Dedupes {
		cases = append(cases, DedupeCases()...)
	}
	return cases
}

// bench is an adapter under test with all around it.
type bench struct {
	Network
	ctx      context.Context
	patience time.Duration
	adapter  platform.Adapter
	host     *host
	end      context.CancelFunc // of Run; nil: it was not started
	ran      chan error         // what Run returned
}

// start runs the adapter and waits until it is ready.
func (b *bench) start() error {
	ctx, cancel := context.WithCancel(b.ctx)
	b.end, b.ran = cancel, make(chan error, 1)
	go func() { b.ran <- b.adapter.Run(ctx, b.host) }()
	return b.until("ready is reported", func() bool { return b.host.last().state == supervise.Ready })
}

// recovered mends the network and waits until the adapter is ready again.
func (b *bench) recovered() error {
	if err := b.Mend(); err != nil {
		return err
	}
	return b.until("ready again", func() bool { return b.host.last().state == supervise.Ready })
}

// stop ends the adapter, if it runs, and says how that went.
func (b *bench) stop() error {
	if b.end == nil {
		return nil
	}
	b.end()
	b.end = nil
	select {
	case err := <-b.ran:
		if err != nil {
			return fmt.Errorf("Run returned %w after its context ended", err)
		}
		return b.host.misuse()
	case <-time.After(b.patience):
		return errors.New("Run went on after its context had ended")
	}
}

// until polls a condition.
func (b *bench) until(what string, condition func() bool) error {
	const step = 2 * time.Millisecond
	for deadline := time.Now().Add(b.patience); !condition(); time.Sleep(step) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s\n%s", b.patience, what, b.host)
		}
	}
	return nil
}

// accepted waits until exactly these texts were taken in, in this order.
func (b *bench) accepted(texts ...string) error {
	_ = b.until("", func() bool { return len(b.host.texts()) >= len(texts) })
	if got := b.host.texts(); !slices.Equal(got, texts) {
		return fmt.Errorf("taken in: %q, want %q", got, texts)
	}
	return nil
}

// meet lets a person speak first, and returns their chat.
func (b *bench) meet(person string) (chat string, err error) {
	before := len(b.host.taken())
	if err := b.Say(person, "hello from "+person); err != nil {
		return "", err
	}
	if err := b.until("a first message is taken in", func() bool { return len(b.host.taken()) > before }); err != nil {
		return "", err
	}
	return b.host.taken()[before].Chat, nil
}

// startMet is start and meet.
func (b *bench) startMet(person string) (chat string, err error) {
	if err := b.start(); err != nil {
		return "", err
	}
	return b.meet(person)
}

// outbound is a part that was never sent before.
func outbound(chat, text string) platform.Outbound {
	return platform.Outbound{Delivery: "dlv_" + rand.Text(), Chat: chat, Text: text}
}

// send sends with the suite's patience.
func (b *bench) send(chat, text string) error {
	_, err := b.post(outbound(chat, text))
	return err
}

// post is send with the network's id of the message.
func (b *bench) post(m platform.Outbound) (id string, err error) {
	ctx, cancel := context.WithTimeout(b.ctx, b.patience)
	defer cancel()
	receipt, err := b.adapter.Send(ctx, m)
	return receipt.ID, judge(err)
}

// edit edits with the suite's patience.
func (b *bench) edit(chat, id, text string) error {
	ctx, cancel := context.WithTimeout(b.ctx, b.patience)
	defer cancel()
	return b.editIn(ctx, chat, id, text)
}

func (b *bench) editIn(ctx context.Context, chat, id, text string) error {
	editor, can := b.adapter.(platform.Editor)
	if !can {
		return errors.New("the adapter cannot edit")
	}
	return judge(editor.Edit(ctx, id, outbound(chat, text)))
}

// judge holds an error of Send or Edit against the vocabulary.
func judge(err error) error {
	var e *platform.SendError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &e):
		return fmt.Errorf("a call returned %T, want *platform.SendError: %w", err, err)
	case e.Err == nil || !slices.Contains([]platform.Fate{platform.Retry, platform.Never, platform.Unknown}, e.Fate):
		return fmt.Errorf("a call returned the fate %q for %v", e.Fate, e.Err)
	}
	return err
}

// fated says whether err has one of the fates.
func fated(err error, fates ...platform.Fate) error {
	if !slices.Contains(fates, platform.FateOf(err)) {
		return fmt.Errorf("a call returned %v with the fate %q, want one of %q", err, platform.FateOf(err), fates)
	}
	return nil
}

// hears waits until what the person heard is text, but for white space and
// control characters, which networks treat each in their own way.
func (b *bench) hears(person, text string) error {
	want := squeeze(text)
	_ = b.until("", func() bool { return len(squeeze(b.all(person))) >= len(want) })
	if got := squeeze(b.all(person)); got != want {
		return fmt.Errorf("%s heard %q, want %q", person, got, want)
	}
	return nil
}

func (b *bench) all(person string) string { return strings.Join(b.Heard(person), "") }

func squeeze(text string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}

// settled waits until none but the goroutines of before run.
func (b *bench) settled(before map[string]string) error {
	left := func() (stacks string) {
		for id, stack := range goroutines() {
			if before[id] == "" {
				stacks += stack + "\n\n"
			}
		}
		return stacks
	}
	if err := b.until("goroutines end", func() bool { return left() == "" }); err != nil {
		return fmt.Errorf("goroutines were left behind:\n%s", left())
	}
	return nil
}

// goroutines maps the ids of those that run to their stacks.
func goroutines() map[string]string {
	text := make([]byte, 1<<20)
	all := map[string]string{}
	for stack := range strings.SplitSeq(string(text[:runtime.Stack(text, true)]), "\n\n") {
		id, _, _ := strings.Cut(stack, " [")
		all[id] = stack
	}
	return all
}
