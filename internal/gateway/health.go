package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/supervise"
)

const (
	// checkEvery is the pause between two self-checks while all is well. Each
	// writes to the disk, so not more often than a person would look.
	checkEvery = 10 * time.Second
	// recheckEvery is the pause after a failed one: recovery shows in a second.
	recheckEvery = time.Second
	// checkTimeout is when a check that hangs has failed.
	checkTimeout = 2 * time.Second
)

// probe is one thing that must work for the gateway to be ready.
type probe struct {
	name string
	run  func(context.Context) error
}

// probes asks the port as a client would, and writes to the store.
func (g *Gateway) probes(addr net.Addr) []probe {
	return []probe{
		{"the HTTP port does not answer", func(ctx context.Context) error { return askSelf(ctx, addr) }},
		{"the store is not writable", g.o.Store.Writable},
	}
}

// askSelf sends a real request through the listener.
func askSelf(ctx context.Context, addr net.Addr) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+reachable(addr)+"/livez", nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: this is us
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/livez answered %s", resp.Status)
	}
	return nil
}

// reachable turns "every interface" into the IPv4 loopback address: Go listens
// on both families then, whichever was named, and a container may have no ::1.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	local := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: tcp.Port}
	return local.String()
}

// health is the state of the gateway, made of the last self-check, of what
// platforms report and of whether it drains.
type health struct {
	log     *slog.Logger
	changed func(Health)  // told of each change, under mu
	first   chan struct{} // closed at the first readiness
	again   chan struct{} // asks for a check now

	mu       sync.Mutex
	checked  bool   // a check has succeeded at least once
	broken   string // why the last check failed; empty: it did not
	draining string
	list     map[string]supervise.Platform
	now      supervise.State
	reason   string
	since    time.Time
	told     Health // what was told last
}

// Health is how a gateway is: what State and Platforms say, at one moment.
type Health struct {
	State     supervise.State
	Reason    string
	Since     time.Time // of State
	Platforms []supervise.Platform
}

func (h Health) equal(other Health) bool {
	return h.State == other.State && h.Reason == other.Reason && h.Since.Equal(other.Since) && slices.Equal(h.Platforms, other.Platforms)
}

func newHealth(log *slog.Logger, changed func(Health)) *health {
	h := &health{
		log: log, changed: changed, first: make(chan struct{}), again: make(chan struct{}, 1),
		list: map[string]supervise.Platform{}, now: supervise.Starting, since: time.Now().UTC(),
	}
	h.list[supervise.OwnPlatform] = supervise.Platform{Name: supervise.OwnPlatform, State: supervise.Starting, Since: h.since}
	return h
}

// watch checks until ctx ends.
func (h *health) watch(ctx context.Context, probes []probe) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.again:
		case <-timer.C:
		}
		broken := check(ctx, probes)
		if ctx.Err() != nil {
			return
		}
		h.checkedNow(broken)
		pause := checkEvery
		if broken != "" {
			pause = recheckEvery
		}
		timer.Reset(pause)
	}
}

// recheck asks for a check soon; it does not block.
func (h *health) recheck() {
	select {
	case h.again <- struct{}{}:
	default:
	}
}

// check returns why the first probe that fails does, or nothing.
func check(ctx context.Context, probes []probe) string {
	for _, p := range probes {
		limited, cancel := context.WithTimeout(ctx, checkTimeout)
		err := p.run(limited)
		cancel()
		if err != nil {
			return p.name + ": " + err.Error()
		}
	}
	return ""
}

func (h *health) checkedNow(broken string) {
	state := supervise.Ready
	if broken != "" {
		state = supervise.Degraded
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set(supervise.OwnPlatform, state, broken)
	h.broken = broken
	first := broken == "" && !h.checked
	h.checked = h.checked || first
	h.settle()
	if first { // after those who look were told
		close(h.first)
	}
}

// report takes the word of a platform. One that failed and only tries again has
// not recovered: it is degraded, since then and for that reason, until it is ready.
func (h *health) report(name string, state supervise.State, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if state == supervise.Starting && h.list[name].State == supervise.Degraded {
		return
	}
	h.set(name, state, reason)
	h.settle()
}

// set notes the state of one platform; mu is held.
func (h *health) set(name string, state supervise.State, reason string) {
	p := h.list[name]
	if p.Name == "" || p.State != state {
		p.Since = time.Now().UTC()
	}
	p.Name, p.State, p.Reason = name, state, reason
	h.list[name] = p
}

// is says whether platform name is in state.
func (h *health) is(name string, state supervise.State) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.list[name].State == state
}

func (h *health) drain(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining == "" {
		h.draining = reason
	}
	h.settle()
}

// settle derives the state from its parts and tells of it, before anybody can
// see it; mu is held.
func (h *health) settle() {
	state, reason := h.derive()
	if state != h.now {
		h.since = time.Now().UTC()
		h.say(state, reason)
	}
	h.now, h.reason = state, reason
	now := Health{state, reason, h.since, h.sorted()}
	if h.changed != nil && !now.equal(h.told) {
		h.told = now
		h.changed(now)
	}
}

// say logs a change of state. The first readiness is app's to announce, with
// the address.
func (h *health) say(state supervise.State, reason string) {
	switch {
	case h.now == supervise.Starting && state == supervise.Ready:
	case reason == "":
		h.log.Info("gateway state", "state", string(state))
	default:
		h.log.Info("gateway state", "state", string(state), "reason", reason)
	}
}

func (h *health) derive() (supervise.State, string) {
	switch {
	case h.draining != "":
		return supervise.Draining, h.draining
	case !h.checked:
		return supervise.Starting, h.broken
	case h.broken != "":
		return supervise.Degraded, h.broken
	}
	for _, p := range h.sorted() {
		if p.State == supervise.Degraded {
			return supervise.Degraded, p.Name + ": " + p.Reason
		}
	}
	return supervise.Ready, ""
}

func (h *health) sorted() []supervise.Platform {
	list := make([]supervise.Platform, 0, len(h.list))
	for _, p := range h.list {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b supervise.Platform) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (h *health) platforms() []supervise.Platform {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sorted()
}

func (h *health) state() (supervise.State, string, time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now, h.reason, h.since
}

// serving says whether a message sent now would be answered. A gateway that is
// degraded by a platform serves; one whose own check fails does not.
func (h *health) serving() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.checked && h.broken == "" && h.draining == ""
}
