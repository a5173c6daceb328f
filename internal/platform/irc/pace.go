package irc

import (
	"errors"
	"math/rand/v2"
	"time"
)

// bucket says when the next line may go: burst at once, then one each pause.
type bucket struct {
	pause time.Duration
	burst int
	full  time.Time // when all of the burst is free again; never zero
}

// ready returns when the next line may go.
func (b *bucket) ready() time.Time { return b.full.Add(-time.Duration(b.burst-1) * b.pause) }

// take counts a line that goes now.
func (b *bucket) take(now time.Time) {
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(b.pause)
}

// refusal is an end of the connection that the server wanted, for a reason that
// trying again soon does not remove.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

// pauses says how long to wait before the next attempt to connect.
type pauses struct {
	t       Timing
	losses  time.Duration // the last pause after a loss
	refused time.Duration // the last pause after a refusal
}

// next returns the pause after a connection that ended with err and had lasted.
// It is random between a half and all of its length, so that many clients do
// not come back to a server at once.
func (p *pauses) next(err error, lasted time.Duration) time.Duration {
	if lasted >= p.t.Steady {
		p.losses, p.refused = 0, 0
	}
	var no *refusal
	wait := &p.losses
	first, most := p.t.Backoff, p.t.BackoffMax
	if errors.As(err, &no) {
		wait, first, most = &p.refused, p.t.Refused, p.t.RefusedMax
	}
	*wait = min(max(2**wait, first), most)
	return *wait/2 + rand.N(*wait/2+1)
}
