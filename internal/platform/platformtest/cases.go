package platformtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/supervise"
)

func names(b *bench) error {
	type identity struct {
		platform, account string
		limits            platform.Limits
	}
	who := func() identity { return identity{b.adapter.Platform(), b.adapter.Account(), b.adapter.Limits()} }
	first := who()
	if first.platform == "" || !strings.HasPrefix(first.account, first.platform+"/") {
		return fmt.Errorf("the account is %q on %q, want one that begins with the platform", first.account, first.platform)
	}
	if l := first.limits; l.Text <= 0 || l.Burst < 1 || l.PerChat < 0 || l.PerAccount < 0 {
		return fmt.Errorf("the limits are %+v", l)
	}
	if _, err := b.startMet("ann"); err != nil {
		return err
	}
	if now := who(); now != first {
		return fmt.Errorf("%+v became %+v", first, now)
	}
	return nil
}

func sendsNothingBefore(b *bench) error {
	return fated(b.send("ann", "too early"), platform.Retry)
}

func saysReady(b *bench) error {
	if err := b.start(); err != nil {
		return err
	}
	if first := b.host.told()[0]; first.state != supervise.Starting {
		return fmt.Errorf("the first report is %v, want starting", first)
	}
	return nil
}

func takesIn(b *bench) error {
	if err := b.start(); err != nil {
		return err
	}
	before := time.Now()
	texts := []string{"hello", "grüße, 世界 🎉", "/help me: a, b"}
	for _, text := range texts {
		if err := b.Say("ann", text); err != nil {
			return err
		}
	}
	if err := b.accepted(texts...); err != nil {
		return err
	}
	ids := map[string]bool{}
	for _, m := range b.host.taken() {
		switch {
		case m.Account != b.adapter.Account():
			return fmt.Errorf("the account of a message is %q, want %q", m.Account, b.adapter.Account())
		case m.ID == "" || ids[m.ID]:
			return fmt.Errorf("the id %q is empty or was given twice", m.ID)
		case !m.Direct:
			return fmt.Errorf("a direct message is not shown as one: %+v", m)
		case m.Chat == "" || m.Sender.ID == "" || m.Sender.Name == "":
			return fmt.Errorf("no chat or no sender: %+v", m)
		case !utf8.ValidString(m.Chat + m.Thread + m.Sender.ID + m.Sender.Name):
			return fmt.Errorf("not UTF-8: %q", m.Chat+m.Thread+m.Sender.ID+m.Sender.Name)
		case !m.At.IsZero() && (m.At.Before(before.Add(-time.Hour)) || m.At.After(time.Now().Add(time.Hour))):
			return fmt.Errorf("it was sent at %s, at about %s", m.At, before)
		}
		ids[m.ID] = true
	}
	return nil
}

func tellsApart(b *bench) error {
	if err := b.start(); err != nil {
		return err
	}
	for i, person := range []string{"ann", "bob", "ann"} {
		if err := b.Say(person, "hello"); err != nil {
			return err
		}
		// The network may hurry one person past another.
		if err := b.until("it is taken in", func() bool { return len(b.host.taken()) > i }); err != nil {
			return err
		}
	}
	m := b.host.taken()
	ann, bob, again := m[0], m[1], m[2]
	switch {
	case ann.Sender.ID == bob.Sender.ID || ann.Chat == bob.Chat:
		return fmt.Errorf("two people are one: %+v, %+v", ann, bob)
	case ann.Sender.ID != again.Sender.ID || ann.Chat != again.Chat:
		return fmt.Errorf("one person is two: %+v, %+v", ann, again)
	}
	return nil
}

func numbered(n int) []string {
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprintf("message %d", i))
	}
	return texts
}

func keepsOrder(b *bench) error {
	if err := b.start(); err != nil {
		return err
	}
	texts := numbered(12)
	for _, text := range texts {
		if err := b.Say("ann", text); err != nil {
			return err
		}
	}
	return b.accepted(texts...)
}

func offersAgain(b *bench) error {
	texts, failures := numbered(4), 2
	b.host.refuseBy(func(m platform.Inbound) error {
		if m.Text == texts[1] && failures > 0 {
			failures--
			return errors.New("the disk is full")
		}
		return nil
	})
	if err := b.start(); err != nil {
		return err
	}
	for _, text := range texts {
		if err := b.Say("ann", text); err != nil {
			return err
		}
	}
	if err := b.accepted(texts...); err != nil {
		return err
	}
	offers := b.host.offers(texts[1])
	if len(offers) != 3 || offers[0].ID != offers[1].ID || offers[1].ID != offers[2].ID {
		return fmt.Errorf("a message was to be offered three times with one id, got %+v", offers)
	}
	return nil
}

func sendsWhileBusy(b *bench) error {
	chat, err := b.startMet("ann")
	if err != nil {
		return err
	}
	asked, free := make(chan struct{}, 1), make(chan struct{})
	release := sync.OnceFunc(func() { close(free) })
	defer release()
	b.host.refuseBy(func(platform.Inbound) error {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-free
		return nil
	})
	if err := b.Say("ann", "think"); err != nil {
		return err
	}
	select {
	case <-asked:
	case <-time.After(b.patience):
		return errors.New("a message was not offered")
	}
	if err := b.send(chat, "meanwhile"); err != nil {
		return fmt.Errorf("while the gateway was busy: %w", err)
	}
	if err := b.hears("ann", "meanwhile"); err != nil {
		return err
	}
	release()
	return b.accepted("hello from ann", "think")
}

func sends(b *bench) error {
	chat, err := b.startMet("ann")
	if err != nil {
		return err
	}
	texts := []string{"hello", "two lines\nand words", "\n\n  - grüße, 世界 🎉\n\n", "/quit"}
	for _, text := range texts {
		if err := b.send(chat, text); err != nil {
			return err
		}
	}
	return b.hears("ann", strings.Join(texts, ""))
}

func sendsLongest(b *bench) error {
	chat, err := b.startMet("ann")
	if err != nil {
		return err
	}
	most := b.adapter.Limits().Text
	words := strings.Repeat("lorem ipsum dolor sit amet ", most/27+1)[:most]
	if err := b.send(chat, words); err != nil {
		return err
	}
	solid := strings.Repeat("世", most/len("世")) // no space to cut at, and no byte either
	if err := b.send(chat, solid); err != nil {
		return err
	}
	return b.hears("ann", words+solid)
}

func sendsOnlyText(b *bench) error {
	chat, err := b.startMet("ann")
	if err != nil {
		return err
	}
	text := "a\r\nQUIT :gone\r\n\x00\x01VERSION\x01\n.\r\n\x1b[2J<script>{\"end\":1}"
	if err := b.send(chat, text); err != nil {
		return err
	}
	if err := b.send(chat, "still here"); err != nil {
		return err
	}
	return b.hears("ann", text+"still here")
}

func sendsAtOnce(b *bench) error {
	chat, err := b.startMet("ann")
	if err != nil {
		return err
	}
	texts := numbered(8)
	errs := make([]error, len(texts))
	var sending sync.WaitGroup
	for i, text := range texts {
		sending.Go(func() { errs[i] = b.send(chat, text) })
	}
	sending.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_ = b.until("", func() bool { return len(b.Heard("ann")) >= len(texts) })
	if got := slices.Sorted(slices.Values(b.Heard("ann"))); !slices.Equal(got, texts) {
		return fmt.Errorf("heard %q, want %q in any order", got, texts)
	}
	return nil
}

func knowsNowhere(b *bench) error {
	chat, err := b.startMet("ann")
	if err != nil {
		return err
	}
	if err := fated(b.send(b.Nowhere(), "is anybody there?"), platform.Never, platform.Retry); err != nil {
		return err
	}
	if err := b.send(chat, "but you are"); err != nil {
		return err
	}
	return b.hears("ann", "but you are")
}

func heedsContext(b *bench) error {
	chat, err := b.startMet("ann")
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(b.ctx)
	cancel()
	got := make(chan error, 1)
	go func() {
		_, err := b.adapter.Send(ended, outbound(chat, "late"))
		got <- judge(err)
	}()
	select {
	case err := <-got:
		if err := fated(err, platform.Retry, platform.Unknown); err != nil {
			return err
		}
	case <-time.After(b.patience):
		return errors.New("Send went on after its context had ended")
	}
	return nil
}

func deafToItself(b *bench) error {
	chat, err := b.startMet("ann")
	if err != nil {
		return err
	}
	if err := b.send(chat, "an answer"); err != nil {
		return err
	}
	if err := b.hears("ann", "an answer"); err != nil {
		return err
	}
	if err := b.Say("ann", "thanks"); err != nil {
		return err
	}
	return b.accepted("hello from ann", "thanks")
}

func comesBack(b *bench) error {
	chat, err := b.startMet("ann")
	if err != nil {
		return err
	}
	if err := b.Cut(); err != nil {
		return err
	}
	lost := func() bool { return b.host.last().state != supervise.Ready }
	if err := b.until("the loss is reported", lost); err != nil {
		return err
	}
	noticed := func() bool {
		return slices.ContainsFunc(b.host.told(), func(r report) bool { return r.state == supervise.Degraded })
	}
	if err := b.until("degraded is reported", noticed); err != nil {
		return err
	}
	cut := b.send(chat, "into the void")
	if err := fated(cut, platform.Retry, platform.Unknown); err != nil {
		return err
	}
	if err := b.recovered(); err != nil {
		return err
	}
	if err := b.Say("ann", "are you back?"); err != nil {
		return err
	}
	if err := b.accepted("hello from ann", "are you back?"); err != nil {
		return err
	}
	if err := b.send(chat, "I am"); err != nil {
		return err
	}
	if err := b.until("the answer is heard", func() bool { return strings.HasSuffix(b.all("ann"), "I am") }); err != nil {
		return err
	}
	if platform.FateOf(cut) == platform.Retry && strings.Contains(b.all("ann"), "void") {
		return errors.New("what surely was not sent was heard")
	}
	return b.secretive(cut)
}

// secretive looks for secrets in what operators read.
func (b *bench) secretive(err error) error {
	shown := err.Error() + b.adapter.Account()
	for _, r := range b.host.told() {
		shown += r.reason
	}
	for _, secret := range b.Secrets() {
		if strings.Contains(shown, secret) {
			return fmt.Errorf("a secret is shown in %q", shown)
		}
	}
	return nil
}

func ends(b *bench) error {
	before := goroutines()
	if err := b.start(); err != nil {
		return err
	}
	if err := b.stop(); err != nil {
		return err
	}
	if err := fated(b.send("ann", "too late"), platform.Retry); err != nil {
		return err
	}
	return b.settled(before)
}
