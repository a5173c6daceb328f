package supervise

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/exitcode"
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
)

// Death is how and when one run ended.
type Death struct {
	At       time.Time
	Code     int            // exit code, when Signal is 0
	Signal   syscall.Signal // 0 when it exited by itself
	ReadyFor time.Duration  // how long it had been ready, 0 if never
	Asked    bool           // a stop or restart command was outstanding
	Said     string         // its last error line, "" if it left none
}

// Describe says in words what ended a run.
func (d Death) Describe() string {
	switch {
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
	Short  int           // unrequested deaths in a row without a good run, this one included
	Reason string
}

// Decide is the whole crash policy. short is the number of unrequested deaths
// in a row before this one, backoffMax the longest pause, jitter a random
// number in [0,1). It must not be asked about a service that is wanted down.
func Decide(d Death, short int, backoffMax time.Duration, jitter float64) Decision {
	reason := d.Describe()
	if d.Signal == 0 && d.Code == exitcode.Config {
		return Decision{Action: Park, Short: short, Reason: reason}
	}
	if d.Asked {
		return Decision{Action: RestartNow, Short: short, Reason: reason}
	}
	if d.ReadyFor >= GoodRun {
		return Decision{Action: RestartNow, Reason: reason}
	}
	short++
	if short >= ParkAfter {
		return Decision{Trial, TrialEvery, short, fmt.Sprintf("%d deaths without a minute of readiness, the last: %s", short, reason)}
	}
	delay := pause(short, backoffMax, jitter)
	if delay == 0 {
		return Decision{Action: RestartNow, Short: short, Reason: reason}
	}
	return Decision{RestartAfter, delay, short, reason}
}

// pause is 0 after the first short run, then 1, 2, 4 … backoffMax seconds,
// times 0.5 to 1 so that services that died together do not come back together.
func pause(short int, backoffMax time.Duration, jitter float64) time.Duration {
	if short <= 1 {
		return 0
	}
	whole := backoffMax
	if shift := short - 2; shift < 16 { // 2^16 s is beyond any cap
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
