package platformtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/supervise"
)

// shows waits until a person sees exactly these messages.
func (b *bench) shows(person string, texts ...string) error {
	got := func() []string {
		var all []string
		for _, text := range b.Heard(person) {
			all = append(all, squeeze(text))
		}
		return all
	}
	var want []string
	for _, text := range texts {
		want = append(want, squeeze(text))
	}
	_ = b.until("", func() bool { return slices.Equal(got(), want) })
	if now := got(); !slices.Equal(now, want) {
		return fmt.Errorf("%s sees %q, want %q", person, now, want)
	}
	return nil
}

// posted starts the adapter, meets ann and sends her texts.
func (b *bench) posted(texts ...string) (chat string, ids []string, err error) {
	if chat, err = b.startMet("ann"); err != nil {
		return "", nil, err
	}
	for _, text := range texts {
		id, err := b.post(outbound(chat, text))
		switch {
		case err != nil:
			return "", nil, err
		case id == "":
			return "", nil, errors.New("the receipt names no message, so it cannot be edited")
		case slices.Contains(ids, id):
			return "", nil, fmt.Errorf("two messages are called %q", id)
		}
		ids = append(ids, id)
	}
	return chat, ids, nil
}

func edits(b *bench) error {
	chat, ids, err := b.posted("once", "another")
	if err != nil {
		return err
	}
	for _, text := range []string{"once upon", "once upon a time", "once upon a time"} { // again is no error
		if err := b.edit(chat, ids[0], text); err != nil {
			return err
		}
		if err := b.shows("ann", text, "another"); err != nil {
			return err
		}
	}
	return nil
}

func editsText(b *bench) error {
	chat, ids, err := b.posted("text")
	if err != nil {
		return err
	}
	most := b.adapter.Limits().Text
	for _, text := range []string{
		"two lines\nand grüße, 世界 🎉", "/quit", "a\r\nQUIT :gone\r\n\x00.\r\n\x1b[2J<script>{\"end\":1}",
		strings.Repeat("lorem ipsum dolor sit amet ", most/27+1)[:most], "short again",
	} {
		if err := b.edit(chat, ids[0], text); err != nil {
			return err
		}
		if err := b.shows("ann", text); err != nil {
			return err
		}
	}
	return nil
}

// A message that is gone is surely gone, and nothing takes its place: only then
// may the gateway send a new one.
func knowsGone(b *bench) error {
	network, can := b.Network.(Eraser)
	if !can {
		return errors.New("the network of an adapter that edits must implement Eraser")
	}
	chat, ids, err := b.posted("stays", "goes")
	if err != nil {
		return err
	}
	if err := network.Erase("ann"); err != nil {
		return err
	}
	if err := fated(b.edit(chat, ids[1], "is back"), platform.Never); err != nil {
		return err
	}
	if err := b.edit(chat, ids[0], "is here"); err != nil {
		return err
	}
	return b.shows("ann", "is here")
}

// What can be edited again later is not given up, and what is reported as not
// edited is not edited behind our back.
func editsConnected(b *bench) error {
	if err := fated(b.edit("ann", "1", "too early"), platform.Retry); err != nil {
		return err
	}
	chat, ids, err := b.posted("before")
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(b.ctx)
	cancel()
	late := b.editIn(ended, chat, ids[0], "late")
	if err := fated(late, platform.Retry, platform.Unknown); err != nil {
		return err
	}
	if err := b.Cut(); err != nil {
		return err
	}
	if err := b.until("the loss is reported", func() bool { return b.host.last().state != supervise.Ready }); err != nil {
		return err
	}
	cut := b.edit(chat, ids[0], "void")
	if err := fated(cut, platform.Retry, platform.Unknown); err != nil {
		return err
	}
	if err := b.recovered(); err != nil {
		return err
	}
	if platform.FateOf(cut) == platform.Retry && platform.FateOf(late) == platform.Retry {
		if err := b.shows("ann", "before"); err != nil {
			return err
		}
	}
	if err := b.edit(chat, ids[0], "after"); err != nil {
		return err
	}
	if err := b.shows("ann", "after"); err != nil {
		return err
	}
	if err := b.stop(); err != nil {
		return err
	}
	return fated(b.edit(chat, ids[0], "too late"), platform.Retry)
}

func dedupes(b *bench) error {
	chat, err := b.startMet("ann")
	if err != nil {
		return err
	}
	m := outbound(chat, "once")
	first, err := b.post(m)
	if err != nil {
		return err
	}
	again, err := b.post(m)
	if err != nil || again != first {
		return fmt.Errorf("sent again it is called %q after %q (%w)", again, first, err)
	}
	if err := b.send(chat, "another"); err != nil {
		return err
	}
	return b.hears("ann", "onceanother")
}
