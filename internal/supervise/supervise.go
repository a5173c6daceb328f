// Package supervise is the vocabulary of supervision: what a service is, the
// states it can be in, what its last exit was, and the pure crash policy that
// decides when a dead one comes back. It starts nothing; an adapter such as
// s6slots does.
//
//	d := supervise.Decide(death, history, limits, rand.Float64())
package supervise

import (
	"context"
	"time"
)

// State is what a service is doing, in the words of the contract.
type State string

// The states of a service.
const (
	Disabled State = "disabled" // not configured to run at all
	Down     State = "down"     // wanted down
	Starting State = "starting" // running, not ready yet
	Ready    State = "ready"    // serving
	Degraded State = "degraded" // serving, some platform failing
	Draining State = "draining" // finishing what it has, taking nothing new
	Backoff  State = "backoff"  // waiting before the next start; Until says how long
	Standby  State = "standby"  // another holder has the profile; Holder says who
	Parked   State = "parked"   // not restarted; Reason says why
	Stopping State = "stopping" // told to stop, not gone yet
)

// StateEntry is one row of the published table.
type StateEntry struct {
	State   State
	Meaning string
}

// States lists every state with its published meaning, in the order of a life.
func States() []StateEntry {
	return []StateEntry{
		{Disabled, "not configured to run; there is no process"},
		{Down, "wanted down"},
		{Starting, "running, not ready yet"},
		{Ready, "serving"},
		{Degraded, "up, but a platform is failing: which, since when and why stand under `platforms`; while that is `http`, nothing is served"},
		{Draining, "finishing what it has, taking nothing new"},
		{Backoff, "died too soon; the next start is at `until`"},
		{Standby, "another holder has the profile; `holder` says who"},
		{Parked, "not restarted; `reason` says why. Wrong configuration: until an operator acts. Too many deaths: one trial at `until`"},
		{Stopping, "told to stop, not gone yet"},
	}
}

// Kind says what sort of service a slot runs.
type Kind string

// The kinds of service.
const (
	KindGateway   Kind = "gateway"
	KindDashboard Kind = "dashboard"
	KindGuard     Kind = "guard"
	KindService   Kind = "service" // a user's own, from /etc/services.d
)

// Want is what the operator asked for.
type Want string

// The two wishes.
const (
	WantUp   Want = "up"
	WantDown Want = "down"
)

// Service is one row of `hermes gateway status`. Every key is always present
// in JSON; unknown is null. Times are UTC.
type Service struct {
	Name              string     `json:"name"` // gateway-default, dashboard, …
	Kind              Kind       `json:"kind"`
	Profile           *string    `json:"profile"` // null but for gateways
	State             State      `json:"state"`
	Want              Want       `json:"want"`
	Since             *time.Time `json:"since"` // of the present state
	PID               *int       `json:"pid"`
	Restarts          int        `json:"restarts"`           // starts after a death nobody asked for
	RequestedRestarts int        `json:"requested_restarts"` // starts after an asked-for restart
	MemoryBytes       *int64     `json:"memory_bytes"`       // resident set size
	Reason            string     `json:"reason"`
	Until             *time.Time `json:"until"` // end of a backoff, or the next trial of a parked service
	Holder            *Holder    `json:"holder"`
	LastExit          *Exit      `json:"last_exit"`
	Platforms         []Platform `json:"platforms"`
}

// Holder names who holds a profile.
type Holder struct {
	Host  string    `json:"host"`
	PID   int       `json:"pid"` // in the holder's own pid namespace
	Since time.Time `json:"since"`
}

// Exit is how the last run of a service ended. Exactly one of Code and Signal
// is set.
type Exit struct {
	Code   *int      `json:"code"`
	Signal *string   `json:"signal"` // KILL, TERM, … without SIG
	Asked  bool      `json:"asked"`  // a stop or restart was outstanding
	Reason string    `json:"reason"` // in words, for people
	At     time.Time `json:"at"`
}

// OwnPlatform is the gateway's own HTTP API among the platforms: while it is
// not ready, nothing is served.
const OwnPlatform = "http"

// Platform is one chat platform or API that a gateway serves.
type Platform struct {
	Name   string    `json:"name"` // http, telegram, …
	State  State     `json:"state"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Report is the whole answer of `hermes gateway status -o json`.
type Report struct {
	Schema   int       `json:"schema"`  // 1
	Manager  string    `json:"manager"` // s6, systemd, none
	Services []Service `json:"services"`
}

// SchemaVersion is the present version of Report.
const SchemaVersion = 1

// Lister tells the state of every service. List blocks at most for the time a
// deaf gateway is given to answer (under a second), and is safe for concurrent
// use. all adds the dashboard, the guard and the user's own services.
type Lister interface {
	List(ctx context.Context, all bool) (Report, error)
}
