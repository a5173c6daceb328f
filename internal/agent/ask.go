package agent

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
)

// The pauses between tries double from the first to the longest, each times a
// random 0.5 to 1 so that many turns do not come back at once. These few lines
// take the place of a library: what matters here is that a provider's own
// Retry-After is kept to the millisecond, that a pause longer than what is left
// of the turn is not begun, and that every try is on record.
const (
	firstPause   = 500 * time.Millisecond
	longestPause = 20 * time.Second
)

// ask has the first model that is left answer req, and goes on to the next for
// the rest of the turn when it cannot.
func (r *run) ask(ctx context.Context, kind string, req chat.Request, d *draft) (chat.Reply, error) {
	var given error
	for {
		m := r.models[0]
		reply, err := r.step(ctx, kind, m, req, d)
		if err == nil || len(r.models) == 1 || ctx.Err() != nil || d.err != nil || !givesWay(err) {
			return reply, both(given, err)
		}
		given, r.models = err, r.models[1:]
		r.a.log.Warn("asking the fallback model", "model", m.Name(), "fallback", r.models[0].Name(), "error", err)
	}
}

// givesWay says whether another model may do better.
func givesWay(err error) bool {
	switch chat.KindOf(err) {
	case chat.Auth, chat.RateLimited, chat.Unavailable, chat.Failed:
		return true
	}
	return false
}

// both tells of the failures of two models. What may be done about it is what
// the second's failure says; the wait is the shorter one.
func both(first, second error) error {
	var one, two *chat.Error
	if second == nil || !errors.As(first, &one) || !errors.As(second, &two) {
		return second
	}
	after := min(one.RetryAfter, two.RetryAfter)
	if after == 0 {
		after = max(one.RetryAfter, two.RetryAfter)
	}
	return &chat.Error{
		Kind: two.Kind, RetryAfter: after, Err: errors.Join(first, second),
		Message: one.Message + "; then its fallback: " + two.Message,
	}
}

// step asks m until it answers or asking again is of no use.
func (r *run) step(ctx context.Context, kind string, m chat.Model, req chat.Request, d *draft) (chat.Reply, error) {
	s := Step{Kind: kind, Model: m.Name(), Started: time.Now()}
	p := patience{retries: r.a.o.Retries}
	for {
		try := Try{Started: time.Now()}
		reply, err := d.fill(ctx, m, req)
		try.Took = time.Since(try.Started)
		again := false
		if err != nil {
			try.Kind, try.Error = chat.KindOf(err), err.Error()
			try.Wait, again = p.again(ctx, err)
			again = again && d.err == nil
		}
		s.Tries = append(s.Tries, try)
		if again {
			r.a.log.Info("asking the model again", "model", s.Model, "try", len(s.Tries)+1, "wait", try.Wait, "error", err)
			if again, err = pause(ctx, try.Wait); again {
				continue
			}
		}
		s.Ended, s.Usage = time.Now(), reply.Usage
		if err != nil {
			s.Error = err.Error()
		}
		r.t.Out.Stepped(s)
		return reply, err
	}
}

// patience decides whether a step goes on.
type patience struct {
	retries int
	tries   int // that failed so far
	empties int // of them without a word
}

// again says whether to try once more after err, and when.
func (p *patience) again(ctx context.Context, err error) (wait time.Duration, again bool) {
	p.tries++
	if ctx.Err() != nil || p.tries > p.retries || !p.mayHelp(err) {
		return 0, false
	}
	wait = backoff(p.tries)
	var e *chat.Error
	if errors.As(err, &e) {
		wait = cmp.Or(e.RetryAfter, wait)
	}
	if deadline, ok := ctx.Deadline(); ok && wait >= time.Until(deadline) {
		return 0, false
	}
	return wait, true
}

func (p *patience) mayHelp(err error) bool {
	if errors.Is(err, errEmpty) {
		p.empties++
		return p.empties == 1
	}
	kind := chat.KindOf(err)
	return kind == chat.RateLimited || kind == chat.Unavailable
}

// backoff is the pause after the nth failure, from 1.
func backoff(n int) time.Duration {
	longest := longestPause
	if n < 7 { // 2^6 times the first is above the longest
		longest = min(longest, firstPause<<(n-1))
	}
	return longest/2 + rand.N(longest/2)
}

// pause is true when d has passed; ctx may end first.
func pause(ctx context.Context, d time.Duration) (bool, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case <-t.C:
		return true, nil
	}
}
