package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
)

// storeTimeout bounds reading a history and storing a turn. The latter starts
// after the turn's own time is over, if need be: what was answered is stored.
const storeTimeout = 10 * time.Second

var (
	errDraining = errors.New("the gateway is stopping and takes no new messages; try again in a moment")
	errFull     = errors.New("too many messages are waiting for an answer; try again in a moment")
)

// turn is one message on its way: what to ask, and what has come back so far.
// The worker of its session writes, the HTTP handler reads at its own pace; a
// reader that is slow or gone holds nobody up.
type turn struct {
	session  string
	fresh    bool           // nothing can be stored under this session yet
	system   []chat.Message // apply to this turn only
	messages []chat.Message // what the client sent but system, oldest first
	request  chat.Request   // all but Messages
	received time.Time

	mu    sync.Mutex
	text  []byte
	reply chat.Reply
	err   error
	done  bool
	wake  chan struct{} // closed and replaced at each change
}

func (t *turn) change(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	close(t.wake)
	t.wake = make(chan struct{})
}

// progress is what a reader sees of a turn.
type progress struct {
	delta string // text since the offset asked for
	done  bool
	reply chat.Reply // of a turn that is done
	err   error      // of a turn that failed
	wake  <-chan struct{}
}

func (t *turn) since(offset int) progress {
	t.mu.Lock()
	defer t.mu.Unlock()
	return progress{delta: string(t.text[offset:]), done: t.done, reply: t.reply, err: t.err, wake: t.wake}
}

// observer is told the times and tokens of turns.
type observer interface {
	stage(name string, took time.Duration)
	tokens(model string, u chat.Usage)
}

// counts are the messages by where they are: received = answered + queued +
// running + failed, at every moment.
type counts struct {
	received, answered, failed, refused int
	queued, running                     int
}

// turns runs turns: those of one session one after the other in the order they
// came, different sessions side by side, at most MaxRunning at once.
type turns struct {
	o           Options
	log         *slog.Logger
	observe     observer
	storeFailed func()

	ctx    context.Context // of every turn; ended by abort
	cancel context.CancelFunc
	slots  chan struct{}
	wg     sync.WaitGroup // of the workers

	mu       sync.Mutex
	sessions map[string][]*turn // waiting; a key has a worker
	counts   counts
	closed   bool
}

func newTurns(o Options) *turns {
	// Turns outlive the requests that brought them, so their context is the
	// gateway's own; abort ends it.
	ctx, cancel := context.WithCancel(context.Background())
	return &turns{
		o: o, log: o.Log, ctx: ctx, cancel: cancel,
		slots:    make(chan struct{}, o.MaxRunning),
		sessions: map[string][]*turn{},
	}
}

// accept takes t in, in the order of the calls, or refuses it.
func (ts *turns) accept(t *turn) error {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	switch {
	case ts.closed:
		ts.counts.refused++
		return errDraining
	case ts.counts.queued >= ts.o.MaxQueued:
		ts.counts.refused++
		return errFull
	}
	t.received, t.wake = time.Now(), make(chan struct{})
	ts.counts.received++
	ts.counts.queued++
	waiting, busy := ts.sessions[t.session]
	ts.sessions[t.session] = append(waiting, t)
	if !busy {
		ts.wg.Go(func() { ts.work(t.session) })
	}
	return nil
}

// refuse counts a message that policy did not let in.
func (ts *turns) refuse() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.counts.refused++
}

func (ts *turns) snapshot() counts {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.counts
}

// work runs the turns of one session until none waits.
func (ts *turns) work(session string) {
	for {
		t := ts.next(session)
		if t == nil {
			return
		}
		ts.slots <- struct{}{} // running turns end by themselves or by abort
		ts.count(func(c *counts) { c.queued--; c.running++ })
		reply, err := ts.run(t)
		ts.count(func(c *counts) {
			c.running--
			if err != nil {
				c.failed++
			} else {
				c.answered++
			}
		})
		<-ts.slots
		t.change(func() { t.done, t.reply, t.err = true, reply, err })
	}
}

// next takes the first waiting turn, or forgets the session.
func (ts *turns) next(session string) *turn {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	waiting := ts.sessions[session]
	if len(waiting) == 0 {
		delete(ts.sessions, session)
		return nil
	}
	ts.sessions[session] = waiting[1:]
	return waiting[0]
}

func (ts *turns) count(f func(*counts)) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	f(&ts.counts)
}

// run is one turn: history, model, store. A turn counts as answered only when
// it is stored.
func (ts *turns) run(t *turn) (reply chat.Reply, err error) {
	defer func() {
		// A bug in one adapter fails its turn, not the other conversations.
		if p := recover(); p != nil {
			err = &chat.Error{Kind: chat.Failed, Message: fmt.Sprintf("internal error: %v", p)}
		}
		ts.conclude(t, reply, err)
	}()
	ts.observe.stage("queue", time.Since(t.received))
	if ts.ctx.Err() != nil { // it waited until the end of the drain
		return chat.Reply{}, errDraining
	}
	history, err := ts.history(t)
	if err != nil {
		return chat.Reply{}, err
	}
	fresh := news(t.messages, len(history) > 0)
	req := t.request
	req.Messages = slices.Concat(t.system, history, fresh)
	reply, err = ts.ask(t, req)
	if err != nil {
		return chat.Reply{}, err
	}
	stored := append(slices.Clone(fresh), chat.Message{Role: chat.Assistant, Text: reply.Text})
	if err := ts.keep(t.session, stored); err != nil {
		return chat.Reply{}, err
	}
	return reply, nil
}

// news is what a request says that the conversation does not hold yet. A client
// that continues one may repeat all of it: only what follows its last assistant
// message is new. The first request of a session brings its own past along.
func news(messages []chat.Message, continued bool) []chat.Message {
	if !continued {
		return messages
	}
	last := -1
	for i, m := range messages {
		if m.Role == chat.Assistant {
			last = i
		}
	}
	return messages[last+1:]
}

func (ts *turns) history(t *turn) ([]chat.Message, error) {
	if t.fresh {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ts.ctx, storeTimeout)
	defer cancel()
	list, err := ts.o.Store.History(ctx, t.session)
	if err != nil {
		return nil, ts.broken(err)
	}
	return list, nil
}

func (ts *turns) ask(t *turn, req chat.Request) (chat.Reply, error) {
	ctx, cancel := context.WithTimeout(ts.ctx, ts.o.TurnTimeout)
	defer cancel()
	start := time.Now()
	reply, err := ts.o.Model.Complete(ctx, req, func(delta string) error {
		t.change(func() { t.text = append(t.text, delta...) })
		return ctx.Err()
	})
	ts.observe.stage("model", time.Since(start))
	switch {
	case err == nil:
		ts.observe.tokens(ts.o.Model.Name(), reply.Usage)
	case ts.ctx.Err() != nil:
		err = errDraining
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = &chat.Error{
			Kind: chat.Unavailable, Err: err,
			Message: fmt.Sprintf("the model %q did not answer within %s", ts.o.Model.Name(), ts.o.TurnTimeout),
		}
	}
	return reply, err
}

// keep stores a turn; that must not fail because the time of the turn is over.
func (ts *turns) keep(session string, messages []chat.Message) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ts.ctx), storeTimeout)
	defer cancel()
	start := time.Now()
	err := ts.o.Store.Append(ctx, session, messages)
	ts.observe.stage("store", time.Since(start))
	if err != nil {
		return ts.broken(err)
	}
	return nil
}

// broken wraps a failure of the store and has readiness look at it.
func (ts *turns) broken(err error) error {
	ts.storeFailed()
	return &chat.Error{Kind: chat.Unavailable, Message: "the message could not be stored: " + err.Error(), Err: err}
}

func (ts *turns) conclude(t *turn, reply chat.Reply, err error) {
	took := time.Since(t.received)
	ts.observe.stage("total", took)
	if err != nil {
		ts.log.Warn("turn failed", "session", t.session, "kind", string(chat.KindOf(err)), "error", err)
		return
	}
	ts.log.Debug("turn answered", "session", t.session, "took", took, "tokens_in", reply.Usage.Input, "tokens_out", reply.Usage.Output)
}

// close refuses what comes from now on.
func (ts *turns) close() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.closed = true
}

func (ts *turns) isClosed() bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.closed
}

// drain waits for every turn. When ctx ends first it cancels them, waits for
// the workers and returns how many did not get their answer.
func (ts *turns) drain(ctx context.Context) int {
	ts.close()
	idle := make(chan struct{})
	go func() { ts.wg.Wait(); close(idle) }() // ends: abort below, or by itself
	select {
	case <-idle:
		return 0
	case <-ctx.Done():
	}
	before := ts.snapshot().failed
	ts.cancel()
	<-idle
	return ts.snapshot().failed - before
}

// abort ends every turn now and waits for the workers.
func (ts *turns) abort() {
	ts.close()
	ts.cancel()
	ts.wg.Wait()
}
