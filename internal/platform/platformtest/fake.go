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
// the better networks it keeps messages until they are acknowledged. It is safe
// for concurrent use.
type Fake struct {
	account string

	mu      sync.Mutex
	changed chan struct{} // closed, and made anew, at each change
	up      bool          // the network can be reached
	running bool
	waiting []platform.Inbound
	said    int
	heard   map[string][]string
}

var (
	_ Network          = (*Fake)(nil)
	_ platform.Adapter = (*Fake)(nil)
)

// NewFake makes a network that can be reached. Its account is fake/NAME.
func NewFake(name string) *Fake {
	return &Fake{account: "fake/" + name, up: true, changed: make(chan struct{}), heard: map[string][]string{}}
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
			f.heard[person] = []string{}
		}
	})
	return nil
}

// Heard implements Network.
func (f *Fake) Heard(person string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.heard[person])
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
func (f *Fake) Limits() platform.Limits { return platform.Limits{Text: 4096, Burst: 1} }

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
func (f *Fake) Send(ctx context.Context, m platform.Outbound) (receipt platform.Receipt, err error) {
	fail := func(fate platform.Fate, err error) (platform.Receipt, error) {
		return platform.Receipt{}, &platform.SendError{Fate: fate, Err: err}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return fail(platform.Retry, ctx.Err())
	case !f.running || !f.up:
		return fail(platform.Retry, errors.New("not connected"))
	case f.heard[m.Chat] == nil:
		return fail(platform.Never, fmt.Errorf("nobody is called %q", m.Chat))
	}
	f.heard[m.Chat] = append(f.heard[m.Chat], m.Text)
	return platform.Receipt{ID: m.Delivery}, nil
}
