package notify

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hermesgw/hermes/internal/supervise"
)

// The teller's numbers. One service that flaps for a day is worth 52 messages,
// a fleet that does 1,460; a product that told of every change sent 2,700 of one
// loop.
const (
	// settle is how long a service that failed must have served before it has
	// recovered: as long as the crash policy calls a good run.
	settle = time.Minute
	// startLimit is how long a start may take before it is a failure: as long as
	// the health check calls it well.
	startLimit = time.Minute
	// remindEvery is how often one is told that a service still fails.
	remindEvery = time.Hour
	// Of one service and of all together: how many messages at once, and how long
	// until one more.
	burst     = 4
	refill    = 30 * time.Minute
	allBurst  = 20
	allRefill = time.Minute
)

// Event is a message to the operator: what became of a service.
type Event struct {
	Service string           `json:"service"`
	Profile *string          `json:"profile"` // null but for gateways
	From    *supervise.State `json:"from"`    // what was told last; null: nothing yet
	To      supervise.State  `json:"to"`      // the same as From: it still fails
	Reason  string           `json:"reason"`
	At      time.Time        `json:"at"`   // when To was seen first; of a service that still fails, now
	Host    string           `json:"host"` // of the container

	told told // what is told by it
}

// opinion is what a state means to an operator.
type opinion string

const (
	serving opinion = "serving"
	failing opinion = "failing"
	// off is not serving, and meant so.
	off opinion = "off"
	// passing is on the way from one to another: no news.
	passing opinion = ""
)

// told is what the operator knows of a service.
type told struct {
	Opinion opinion         `json:"opinion"`
	State   supervise.State `json:"state"`
	At      time.Time       `json:"at"` // of the message; zero: it went without saying
}

// entry is what is known of a service: what the operator was told, and how it
// is now.
type entry struct {
	Told   told   `json:"told"`
	Budget budget `json:"budget"`

	now      told // At is when it was seen first
	profile  *string
	reason   string
	good     time.Time // since when one that failed serves
	failed   time.Time // since when it fails, or did
	restarts int
	seen     bool // in this life of the teller
}

// Teller decides what an operator is told: the first failure of a service, that
// it still fails once an hour, and that it has recovered; that somebody stopped
// or started it. It compares what is with what was told last, so that whatever
// went to and fro between two messages costs none. It does no I/O, reads no clock
// and is for one goroutine.
type Teller struct {
	host    string
	entries map[string]*entry
	all     budget
}

// NewTeller makes one for the container called host, which knows what memory
// says was told; memory that cannot be read is none.
func NewTeller(host string, memory []byte) *Teller {
	t := &Teller{host: host, entries: map[string]*entry{}}
	if json.Unmarshal(memory, &t.entries) != nil || t.entries == nil {
		t.entries = map[string]*entry{}
	}
	maps.DeleteFunc(t.entries, func(_ string, e *entry) bool { return e == nil })
	for _, e := range t.entries {
		e.now, e.failed = e.Told, e.Told.At
	}
	return t
}

// Memory is what NewTeller takes, so that a container that starts again and
// again does not tell the same again and again.
func (t *Teller) Memory() []byte {
	data, _ := json.Marshal(t.entries) // plain data
	return append(data, '\n')
}

// See takes in how the services are at now. One that is gone is forgotten.
func (t *Teller) See(now time.Time, services []supervise.Service) {
	there := make(map[string]bool, len(services))
	for _, s := range services {
		there[s.Name] = true
		e := t.entries[s.Name]
		if e == nil {
			e = &entry{}
			t.entries[s.Name] = e
		}
		e.see(now, s)
	}
	maps.DeleteFunc(t.entries, func(name string, _ *entry) bool { return !there[name] })
}

func (e *entry) see(now time.Time, s supervise.Service) {
	o, state, reason := opinionOf(s, now), s.State, s.Reason
	if e.seen && s.Restarts > e.restarts && o != off { // it died, and may be well again
		o, reason = failing, lastWords(s)
		if state == supervise.Ready || state == supervise.Degraded {
			state = supervise.Starting
		}
	}
	e.restarts, e.seen, e.profile = s.Restarts, true, s.Profile
	if o != serving {
		e.good = time.Time{}
	} else if e.now.Opinion == failing {
		if e.good.IsZero() {
			e.good = now
		}
		if now.Sub(e.good) < settle {
			return
		}
		reason = fmt.Sprintf("recovered; it failed for %s", e.good.Sub(e.failed).Round(time.Second))
	}
	switch {
	case o == passing:
		return
	case o != e.now.Opinion:
		e.now, e.reason = told{o, state, now}, reason
		if o == failing {
			e.failed = now
		}
	case o == failing: // the newest reason is the one to tell
		e.now.State, e.reason = state, reason
	}
	if e.Told.Opinion == "" && o != failing {
		e.Told = told{o, state, time.Time{}}
	}
}

// opinionOf says what the state of a service means. A gateway whose own port or
// database fails is up and serves nobody.
func opinionOf(s supervise.Service, now time.Time) opinion {
	switch s.State {
	case supervise.Ready:
		return serving
	case supervise.Degraded:
		if slices.ContainsFunc(s.Platforms, func(p supervise.Platform) bool {
			return p.Name == supervise.OwnPlatform && p.State != supervise.Ready
		}) {
			return failing
		}
		return serving
	case supervise.Backoff, supervise.Parked:
		return failing
	case supervise.Starting:
		if s.Since != nil && now.Sub(*s.Since) >= startLimit {
			return failing
		}
		return passing
	case supervise.Draining, supervise.Stopping:
		return passing
	case supervise.Down, supervise.Disabled, supervise.Standby:
		return off
	}
	return passing
}

func lastWords(s supervise.Service) string {
	if s.LastExit == nil {
		return s.Reason
	}
	return s.LastExit.Reason
}

// Next is what to tell now, if anything: of the services that are not as the
// operator thinks they are, the one that changed first. It takes from the
// budget. Done must follow before Next is called again.
func (t *Teller) Next(now time.Time) (Event, bool) {
	var name string
	for _, n := range slices.Sorted(maps.Keys(t.entries)) {
		e := t.entries[n]
		if e.news(now) && e.Budget.left(now, burst, refill) && (name == "" || e.now.At.Before(t.entries[name].now.At)) {
			name = n
		}
	}
	if name == "" || !t.all.left(now, allBurst, allRefill) {
		return Event{}, false
	}
	e := t.entries[name]
	e.Budget.take()
	t.all.take()
	return e.event(now, name, t.host), true
}

// news says whether the operator thinks otherwise, or has heard nothing of a
// failure for long. A clock that went back makes no silence of years.
func (e *entry) news(now time.Time) bool {
	if !e.seen || e.now.Opinion == "" {
		return false
	}
	silence := now.Sub(e.Told.At)
	return e.now.Opinion != e.Told.Opinion || e.now.Opinion == failing && (silence >= remindEvery || silence < -remindEvery)
}

func (e *entry) event(now time.Time, name, host string) Event {
	v := Event{
		Service: name, Profile: e.profile, To: e.now.State, Reason: e.reason, At: e.now.At.UTC(), Host: host,
		told: told{e.now.Opinion, e.now.State, now.UTC()},
	}
	if e.Told.Opinion != "" {
		from := e.Told.State
		v.From = &from
	}
	if e.Told.Opinion == failing && e.now.Opinion == failing {
		v.From, v.At = &v.To, now.UTC()
		v.Reason = fmt.Sprintf("still failing, since %s: %s", e.failed.UTC().Format(time.RFC3339), e.reason)
	}
	return v
}

// Done notes that e reached the operator. One that did not comes again, as far
// as the budget allows and it is still so.
func (t *Teller) Done(e Event) {
	if known := t.entries[e.Service]; known != nil {
		known.Told = e.told
	}
}

// budget bounds how often something happens: a bucket that fills with time.
type budget struct {
	Spent float64   `json:"spent"` // 0: all may be had
	At    time.Time `json:"at"`    // when Spent was right
}

// left says whether one may be had of size, one of which comes back every.
func (b *budget) left(now time.Time, size int, every time.Duration) bool {
	if passed := now.Sub(b.At); passed > 0 {
		b.Spent = max(0, b.Spent-passed.Seconds()/every.Seconds())
	}
	b.At = now
	return b.Spent <= float64(size-1)
}

func (b *budget) take() { b.Spent++ }
