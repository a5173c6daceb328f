package gateway

import (
	"time"

	"github.com/hermesgw/hermes/internal/turn"
)

// restAfter is how long nothing must have happened before memory is given back.
const restAfter = 3 * time.Second

// resting hears of turns and gives the memory of a start, or of a burst, back to
// the system once it is quiet: a gateway waits for most of its life, often as one
// of many, and the runtime alone would keep what its busiest moment took.
type resting struct {
	turn.Observer
	timer *time.Timer
}

func newResting(o turn.Observer, free func()) *resting {
	return &resting{o, time.AfterFunc(restAfter, free)}
}

// Stage implements turn.Observer.
func (r *resting) Stage(name string, took time.Duration) {
	r.timer.Reset(restAfter)
	r.Observer.Stage(name, took)
}
