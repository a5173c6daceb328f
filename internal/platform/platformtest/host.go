package platformtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/supervise"
)

// host is a gateway that writes down what it is told.
type host struct {
	// refuse, if set, is asked before a message is taken in.
	refuse func(m platform.Inbound) error

	mu      sync.Mutex
	all     []platform.Inbound // taken in
	offered []platform.Inbound // each time
	reports []report
	wrong   []string // what no host should have to bear
}

type report struct {
	state  supervise.State
	reason string
}

func (h *host) Accept(ctx context.Context, m platform.Inbound) error {
	h.mu.Lock()
	h.offered = append(h.offered, m)
	refuse := h.refuse
	h.mu.Unlock()
	if refuse != nil {
		if err := refuse(m); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, m)
	return nil
}

// Cursor has none: each network of the suite is new.
func (h *host) Cursor(context.Context, string) (string, error) { return "", nil }

func (h *host) Report(state supervise.State, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch state {
	case supervise.Starting, supervise.Ready, supervise.Degraded:
	default:
		h.wrong = append(h.wrong, fmt.Sprintf("the state %q was reported", state))
	}
	if state == supervise.Degraded && reason == "" {
		h.wrong = append(h.wrong, "degraded was reported without a reason")
	}
	h.reports = append(h.reports, report{state, reason})
}

func (h *host) refuseBy(f func(platform.Inbound) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refuse = f
}

func (h *host) taken() []platform.Inbound {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

func (h *host) texts() []string {
	var texts []string
	for _, m := range h.taken() {
		texts = append(texts, m.Text)
	}
	return texts
}

// offers is every attempt to hand over the message with this text.
func (h *host) offers(text string) []platform.Inbound {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(h.offered), func(m platform.Inbound) bool { return m.Text != text })
}

func (h *host) told() []report {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.reports)
}

// last is the newest report; empty: there is none.
func (h *host) last() report {
	if all := h.told(); len(all) > 0 {
		return all[len(all)-1]
	}
	return report{}
}

func (h *host) misuse() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.wrong) > 0 {
		return fmt.Errorf("the host was misused: %s", strings.Join(h.wrong, "; "))
	}
	return nil
}

// String shows what was told, for those who wonder why a test fails.
func (h *host) String() string { return fmt.Sprintf("taken in: %q; reports: %q", h.texts(), h.told()) }
