package platformtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/supervise"
)

// Fake is a network in memory, and the adapter of the one account on it. Like
// the better networks it keeps messages until they are acknowledged, says a
// delivery once, and can edit. It is safe for concurrent use.
type Fake struct {
	account string

	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, at each change
	up      bool          // the network can be reached
	running bool
	waiting []platform.Inbound
	said    int // by people
	sent    int // by us
	heard   map[string][]heard
}

// heard is a message of ours as a person sees it.
type heard struct{ id, delivery, text string }

var (
	_ Eraser           = (*Fake)(nil)
	_ platform.Adapter = (*Fake)(nil)
	_ platform.Editor  = (*Fake)(nil)
)

// NewFake makes a network that can be reached. Its account is fake/NAME.
func NewFake(name string) *Fake {
	return &Fake{account: "fake/" + name, up: true, changed: make(chan struct{}), heard: map[string][]heard{}}
}

// change does something to the network and wakes the adapter.
func (f *Fake) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

// Adapter implements Network.
func (f *Fake) Adapter() platform.Adapter { return f }

// Say implements Network. It does not wait until the message is taken in.
func (f *Fake) Say(person, text string) error {
	f.change(func() {
		f.said++
		f.waiting = append(f.waiting, platform.Inbound{
			Account: f.account, ID: fmt.Sprintf("msg_%d", f.said), Chat: person, Direct: true,
			Sender: platform.Sender{ID: "id_" + person, Name: person}, Text: text, At: time.Now(),
		})
		if f.heard[person] == nil {
			f.heard[person] = []heard{}
		}
	})
	return nil
}

// Heard implements Network.
func (f *Fake) Heard(person string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var texts []string
	for _, m := range f.heard[person] {
		texts = append(texts, m.text)
	}
	return texts
}

// Erase implements Eraser.
func (f *Fake) Erase(person string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.heard[person]
	if len(all) == 0 {
		return fmt.Errorf("%s heard nothing", person)
	}
	f.heard[person] = all[:len(all)-1]
	return nil
}

// Cut implements Network.
func (f *Fake) Cut() error {
	f.change(func() { f.up = false })
	return nil
}

// Mend implements Network.
func (f *Fake) Mend() error {
	f.change(func() { f.up = true })
	return nil
}

// Nowhere implements Network: whoever has not spoken is not there.
func (f *Fake) Nowhere() string { return "nobody" }

// Secrets implements Network.
func (f *Fake) Secrets() []string { return []string{"fake-secret"} }

// Platform implements platform.Adapter.
func (f *Fake) Platform() string { return "fake" }

// Account implements platform.Adapter.
func (f *Fake) Account() string { return f.account }

// Limits implements platform.Adapter.
func (f *Fake) Limits() platform.Limits { return platform.Limits{Text: 4096, Burst: 1, Dedupes: true} }

// Run implements platform.Adapter.
func (f *Fake) Run(ctx context.Context, host platform.Host) error {
	f.change(func() { f.running = true })
	defer f.change(func() { f.running = false })
	host.Report(supervise.Starting, "")
	told := supervise.Starting
	for ctx.Err() == nil {
		f.mu.Lock()
		up, waiting, changed := f.up, f.waiting, f.changed
		f.mu.Unlock()
		switch {
		case up && told != supervise.Ready:
			told = supervise.Ready
			host.Report(told, "")
		case !up && told != supervise.Degraded:
			told = supervise.Degraded
			host.Report(told, "the network cannot be reached")
		case up && len(waiting) > 0:
			f.hand(ctx, host, waiting[0])
		default:
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// hand offers the first message, and drops it from the network when it is taken.
func (f *Fake) hand(ctx context.Context, host platform.Host, m platform.Inbound) {
	if err := host.Accept(ctx, m); err == nil {
		f.change(func() { f.waiting = f.waiting[1:] })
		return
	}
	const pause = time.Millisecond // before the host is asked again
	select {
	case <-time.After(pause):
	case <-ctx.Done():
	}
}

// Send implements platform.Adapter.
func (f *Fake) Send(ctx context.Context, m platform.Outbound) (platform.Receipt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refuse(ctx, m); err != nil {
		return platform.Receipt{}, err
	}
	i := slices.IndexFunc(f.heard[m.Chat], func(h heard) bool { return h.delivery == m.Delivery })
	if i >= 0 {
		return platform.Receipt{ID: f.heard[m.Chat][i].id}, nil
	}
	f.sent++
	id := fmt.Sprintf("out_%d", f.sent)
	f.heard[m.Chat] = append(f.heard[m.Chat], heard{id, m.Delivery, m.Text})
	return platform.Receipt{ID: id}, nil
}

// Edit implements platform.Editor.
func (f *Fake) Edit(ctx context.Context, id string, m platform.Outbound) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refuse(ctx, m); err != nil {
		return err
	}
	i := slices.IndexFunc(f.heard[m.Chat], func(h heard) bool { return h.id == id })
	if i < 0 {
		return &platform.SendError{Fate: platform.Never, Err: fmt.Errorf("there is no message %q", id)}
	}
	f.heard[m.Chat][i].text = m.Text
	return nil
}

// refuse says why nothing can be said now; mu is held.
func (f *Fake) refuse(ctx context.Context, m platform.Outbound) error {
	switch {
	case ctx.Err() != nil:
		return &platform.SendError{Fate: platform.Retry, Err: ctx.Err()}
	case !f.running || !f.up:
		return &platform.SendError{Fate: platform.Retry, Err: errors.New("not connected")}
	case f.heard[m.Chat] == nil:
		return &platform.SendError{Fate: platform.Never, Err: fmt.Errorf("nobody is called %q", m.Chat)}
	}
	return nil
}
