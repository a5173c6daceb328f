package turn

import (
	"context"
	"errors"
	"sync"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
)

// Live is a message that has not ended, as those see it who wait for its
// answer. Its turn writes, each reader reads at a pace of its own; one that is
// slow or gone holds nobody up.
type Live struct {
	id   string
	seq  int64
	chat string

	mu       sync.Mutex
	message  Message // Ask may be dropped while it waits
	loaded   bool    // message.Ask is there
	text     spool
	restarts int // how often the answer began again
	steps    []agent.Step
	err      error
	done     bool
	watchers int
	wake     chan struct{} // closed and replaced at each change
	cancel   context.CancelCauseFunc
	stopped  error // it was stopped before it had a cancel
}

func newLive(m Message) *Live {
	return &Live{id: m.ID, seq: m.Seq, chat: m.Chat, message: m, wake: make(chan struct{})}
}

// ID returns the public id of the message.
func (l *Live) ID() string { return l.id }

// Progress is what a reader sees.
type Progress struct {
	Message Message // without Ask
	// Attempt and Restarts say which answer Delta belongs to: where one of them
	// changed, what came before is void.
	Attempt, Restarts int
	Delta             string // text since the offset that was asked for
	Done              bool   // there is nothing more to come from this process
	Err               error  // why the message failed; ErrLeft: it has not ended
	Wake              <-chan struct{}
}

// Since returns the state of the message and its text from offset on.
func (l *Live) Since(offset int) Progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.message
	m.Ask = Ask{}
	return Progress{
		Message: m, Attempt: m.Attempts, Restarts: l.restarts,
		Delta: l.text.from(offset), Done: l.done, Err: l.err, Wake: l.wake,
	}
}

// Watch says that somebody waits: a drain goes on with a message that is
// waited for and leaves others to the next process. Call the returned function
// at the end.
func (l *Live) Watch() (done func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watchers++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.watchers--
		if l.watchers == 0 && l.done {
			l.text.clear()
		}
	})
}

func (l *Live) watched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.watchers > 0
}

func (l *Live) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.wake)
	l.wake = make(chan struct{})
}

// Delta implements agent.Out.
func (l *Live) Delta(text string) (err error) {
	l.change(func() { err = l.text.write(text) })
	return err
}

// Restart implements agent.Out.
func (l *Live) Restart() {
	l.change(func() { l.text.clear(); l.restarts++ })
}

// Stepped implements agent.Out.
func (l *Live) Stepped(s agent.Step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps = append(l.steps, s)
}

// stop ends the turn, also one that has its place and has not begun.
func (l *Live) stop(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel == nil {
		l.stopped = why
		return
	}
	l.cancel(why)
}

// stopBy makes cancel what stop calls.
func (l *Live) stopBy(cancel context.CancelCauseFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel = cancel
	if l.stopped != nil {
		cancel(l.stopped)
	}
}

// end publishes how the message ended.
func (l *Live) end(m Message, err error) {
	l.change(func() {
		m.Ask = Ask{}
		l.message, l.err, l.done = m, err, true
		if l.watchers == 0 {
			l.text.clear()
		}
	})
}

// snapshot returns the message with its Ask, if that is here.
func (l *Live) snapshot() (Message, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.message, l.loaded
}

// errAbandoned ends a turn that the next process finishes.
var errAbandoned = errors.New("left to the next process")

// Ended is the progress of a message that has ended, as Since gives it. One that
// has not is no empty answer: its error is ErrLeft.
func Ended(m Message, offset int) Progress {
	p := Progress{Message: m, Attempt: m.Attempts, Restarts: m.Restarts, Done: true}
	if !m.State.Ended() {
		p.Err = ErrLeft
		return p
	}
	if m.State == Failed {
		p.Err = &chat.Error{Kind: chat.Kind(m.Reason), Message: m.Error}
	}
	if offset < len(m.Reply.Text) {
		p.Delta = m.Reply.Text[offset:]
	}
	return p
}
