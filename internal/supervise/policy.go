package supervise

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/unix"
)

// The crash policy's numbers.
const (
	// GoodRun is how long a service must have been ready for its death to be
	// an accident rather than a step in a loop.
	GoodRun = 60 * time.Second
	// DefaultBackoffMax is the longest pause between two starts.
	DefaultBackoffMax = 60 * time.Second
	// ParkAfter unrequested deaths without one good run park the service.
	ParkAfter = 20
	// TrialEvery is the pause before a parked service is tried once more: an
	// outage elsewhere must not keep it dark for ever.
	TrialEvery = 30 * time.Minute
	// ForgiveEvery is how long a run must live to take one earlier death off
	// the meter, ready or not: a gateway that stood by for a day is in no loop.
	ForgiveEvery = 10 * time.Minute
	// RateStarts is the most starts there are in any RateWindow, after the
	// first FreeStarts, however short the longest pause was set.
	RateStarts = 10
	RateWindow = time.Minute
	FreeStarts = 3
	// clockSlack is how far a clock that is only corrected, not set, can differ
	// over the longest usual pause: Linux slews by at most 0.5 ms in a second.
	clockSlack = time.Second
)

// Meter is what the policy remembers of the deaths before. It decays: a good
// run clears it, a long one that never got ready takes some deaths off.
type Meter struct {
	// Deaths are those nobody asked for, less the forgiven ones.
	Deaths int `json:"deaths"`
	// Starts are the latest after the first FreeStarts, planned ones included,
	// oldest first; at most RateStarts.
	Starts []time.Time `json:"starts,omitempty"`
}

// count adds one death to what the run before it did not forgive.
func (m Meter) count(d Death) Meter {
	m.Deaths = max(0, m.Deaths-int(max(0, d.Lived)/ForgiveEvery)) + 1
	return m
}

// until is the meter without the starts that lie ahead of now: they are a
// clock's that was set back, and say nothing.
func (m Meter) until(now time.Time) Meter {
	latest := now.Add(clockSlack)
	m.Starts = slices.DeleteFunc(slices.Clone(m.Starts), func(at time.Time) bool { return at.After(latest) })
	return m
}

// wait is how long the rate forbids the next start.
func (m Meter) wait(now time.Time) time.Duration {
	if m.Deaths < FreeStarts || len(m.Starts) < RateStarts {
		return 0
	}
	return max(0, m.Starts[len(m.Starts)-RateStarts].Add(RateWindow).Sub(now))
}

// start notes the next start.
func (m Meter) start(at time.Time) Meter {
	if m.Deaths < FreeStarts { // the first start of all had no death before it
		return m
	}
	m.Starts = append(slices.Clone(m.Starts[max(0, len(m.Starts)-RateStarts+1):]), at.UTC())
	return m
}

// Death is how and when one run ended.
type Death struct {
	At       time.Time
	Code     int            // exit code, when Signal is 0
	Signal   syscall.Signal // 0 when it exited by itself
	Lived    time.Duration  // how long the run lasted, its pause excluded; by a clock that nobody sets
	ReadyFor time.Duration  // how long it had been ready, 0 if never; at most Lived
	NoMemory bool           // the kernel killed for want of memory while it ran
	Asked    bool           // a stop or restart command was outstanding
	Said     string         // its last error line, or why the guard ended it; "" if neither left any
}

// Describe says in words what ended a run.
func (d Death) Describe() string {
	switch {
	case d.Signal != 0 && d.Said != "":
		return "killed by signal " + SignalName(d.Signal) + ": " + d.Said
	case d.Signal == syscall.SIGKILL && d.NoMemory:
		return "killed by signal KILL while the container was out of memory" // the kernel counts for all of its processes
	case d.Signal != 0:
		return "killed by signal " + SignalName(d.Signal)
	case d.Said != "":
		return fmt.Sprintf("exit code %d: %s", d.Code, d.Said)
	case d.Code == exitcode.Config:
		return "exit code 78: the configuration is wrong"
	case d.Code == exitcode.Restart:
		return "exit code 75: asked to be restarted"
	}
	return fmt.Sprintf("exit code %d", d.Code)
}

// Action is what happens after a death.
type Action string

// The actions.
const (
	RestartNow   Action = "restart"
	RestartAfter Action = "backoff"
	Park         Action = "park"  // until an operator acts
	Trial        Action = "trial" // parked, with one try after Delay
)

// Decision is the answer of Decide.
type Decision struct {
	Action Action
	Delay  time.Duration // for RestartAfter and Trial
	Meter  Meter         // this death included
	Reason string
}

// Decide is the whole crash policy. m is the meter before this death,
// backoffMax the longest pause, jitter a random number in [0,1). It must not be
// asked about a service that is wanted down.
func Decide(d Death, m Meter, backoffMax time.Duration, jitter float64) Decision {
	reason := d.Describe()
	if d.Signal == 0 && d.Code == exitcode.Config {
		return Decision{Action: Park, Meter: m, Reason: reason}
	}
	if d.Asked {
		return Decision{Action: RestartNow, Meter: m, Reason: reason}
	}
	if d.ReadyFor >= GoodRun {
		return Decision{Action: RestartNow, Reason: reason}
	}
	m = m.count(d).until(d.At)
	if m.Deaths >= ParkAfter {
		m.Starts = nil // the trials are far apart
		return Decision{Trial, TrialEvery, m, fmt.Sprintf("%d deaths without a minute of readiness, the last: %s", m.Deaths, reason)}
	}
	delay := max(pause(m.Deaths, backoffMax, jitter), m.wait(d.At))
	m = m.start(d.At.Add(delay))
	if delay == 0 {
		return Decision{Action: RestartNow, Meter: m, Reason: reason}
	}
	return Decision{RestartAfter, delay, m, reason}
}

// pause is 0 after the first short run, then 1, 2, 4 … backoffMax seconds,
// times 0.5 to 1 so that services that died together do not come back together.
func pause(short int, backoffMax time.Duration, jitter float64) time.Duration {
	if short <= 1 {
		return 0
	}
	whole := backoffMax
	if shift := short - 2; shift <= 16 { // 2^17 s is beyond any cap, 86,400 s
		whole = min(time.Second<<shift, backoffMax)
	}
	return time.Duration(float64(whole) * (0.5 + jitter/2))
}

// SignalName returns a signal's name without SIG, or its number.
func SignalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(s))
}
