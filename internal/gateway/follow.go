package gateway

import (
	"crypto/sha256"
	"errors"
	"hash"
	"math"

	"github.com/hermesgw/hermes/internal/turn"
)

// errDiffers ends a stream whose answer began again, after a failure of the
// model, and went another way than what was sent already.
var errDiffers = errors.New("the model began its answer again, with other words than those sent; " +
	"the whole answer is stored: ask again with the same Idempotency-Key, or without a stream")

// follower reads the text of a message for one stream, once and without gaps.
type follower struct {
	ended turn.Message // where live is nil
	live  *turn.Live
	done  func()

	offset     int // bytes that were read
	generation [2]int
	sum        hash.Hash // of those bytes
	behind     bool      // the answer began again and has not come as far
}

func follow(m turn.Message, live *turn.Live) *follower {
	f := &follower{ended: m, live: live, done: func() {}, sum: sha256.New()}
	if live != nil {
		f.done = live.Watch()
		p := live.Since(0)
		f.generation = [2]int{p.Attempt, p.Restarts}
	}
	return f
}

func (f *follower) close() { f.done() }

func (f *follower) since(offset int) turn.Progress {
	if f.live == nil {
		return turn.Ended(f.ended, offset)
	}
	return f.live.Since(offset)
}

// now is the state without the text.
func (f *follower) now() turn.Progress { return f.since(math.MaxInt) }

// next returns the text that follows what was returned before. An answer that
// began again is followed from the same place on if its beginning is the same
// one; else the error is errDiffers.
func (f *follower) next() (string, turn.Progress, error) {
	p := f.since(f.offset)
	f.notice(p)
	if f.behind {
		p = f.since(0)
		f.notice(p)
	}
	if p.Done && p.Err != nil {
		return "", p, nil
	}
	whole := p.Delta
	if p.Done { // the reply is what counts: the live text may be gone
		whole = p.Message.Reply.Text
	}
	if f.behind || p.Done {
		switch {
		case len(whole) < f.offset && !p.Done:
			return "", p, nil
		case len(whole) < f.offset || f.behind && !f.same(whole[:f.offset]):
			return "", p, errDiffers
		}
		f.behind = false
		whole = whole[f.offset:]
	}
	f.offset += len(whole)
	f.sum.Write([]byte(whole))
	return whole, p, nil
}

// notice sees that an answer began again.
func (f *follower) notice(p turn.Progress) {
	if now := [2]int{p.Attempt, p.Restarts}; now != f.generation {
		f.generation, f.behind = now, f.offset > 0
	}
}

func (f *follower) same(text string) bool {
	sum := sha256.Sum256([]byte(text))
	return string(sum[:]) == string(f.sum.Sum(nil))
}
