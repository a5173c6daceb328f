package dashboard

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

const (
	// An address may fail burst times at once and then once per refill: about
	// 8,600 guesses a day, hopeless against any password worth the name, while
	// somebody who mistypes waits seconds, not minutes.
	burst  = 5
	refill = 10 * time.Second
	// maxAddresses bounds memory; beyond it all further addresses share one
	// bucket.
	maxAddresses = 4096
	// sitePrefix groups IPv6 addresses: one customer has a whole /64.
	sitePrefix = 64
)

// limiter counts failed logins by address. Proxies are not believed: behind
// one, everybody shares its address.
type limiter struct {
	mu     sync.Mutex
	spent  map[string]time.Time // when the bucket of an address is full again
	shared time.Time
}

func newLimiter() *limiter { return &limiter{spent: map[string]time.Time{}} }

// take uses one attempt, or says how long to wait for the next.
func (l *limiter) take(from string, now time.Time) (wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	full := later(l.get(from), now).Add(refill)
	if over := full.Sub(now) - burst*refill; over > 0 {
		return over
	}
	l.set(from, full)
	return 0
}

// giveBack returns an attempt that succeeded.
func (l *limiter) giveBack(from string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set(from, later(l.get(from).Add(-refill), now))
}

func (l *limiter) get(from string) time.Time {
	if full, ok := l.spent[from]; ok || len(l.spent) < maxAddresses {
		return full
	}
	return l.shared
}

func (l *limiter) set(from string, full time.Time) {
	if _, ok := l.spent[from]; ok || len(l.spent) < maxAddresses {
		l.spent[from] = full
		return
	}
	l.shared = full
}

// sweep forgets addresses whose bucket is full, once there are many.
func (l *limiter) sweep(now time.Time) {
	if len(l.spent) < maxAddresses {
		return
	}
	for from, full := range l.spent {
		if !full.After(now) {
			delete(l.spent, from)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// remote is the address that a request came from, without its port.
func remote(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if site, err := addr.Prefix(sitePrefix); err == nil {
			return site.String()
		}
	}
	return addr.String()
}
