// Package turn is the durable way of a message: it is committed before it is
// acknowledged, its turn runs when the turns before it in the same chat have
// ended, and what came of it is committed whole. A process that ends in
// between, however that came, leaves the rest to the next one.
//
// It knows neither the model nor the database nor the platforms; the agent, the
// store and the outbox do.
//
//	e, err := turn.New(turn.Options{Journal: db, Agent: a})
//	err = e.Resume(ctx)                       // what the last process left
//	live, fresh, err := e.Accept(ctx, message) // committed when this returns
//	p := live.Since(0)
package turn

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/outbox"
)

// Journal is the memory that outlives the process. Its methods block for the
// disk and are safe for concurrent use.
type Journal interface {
	agent.History
	// Accept commits m and returns it with its Seq; fresh is false where a message
	// with its Account and External is there already: then that one is returned
	// and nothing changed. after is called with a fresh message once it is
	// committed, in the order of Seq, and before Accept returns.
	Accept(ctx context.Context, m Message, after func(Message)) (kept Message, fresh bool, err error)
	// Begin notes that the turn of a message begins, and returns how often it has.
	// That need not survive a power cut.
	Begin(ctx context.Context, seq int64, at time.Time) (attempts int, err error)
	// Previewed keeps the platform's id of the message that shows the answer while
	// it is given. That need not survive a power cut.
	Previewed(ctx context.Context, seq int64, receipt string) error
	// Release notes that the turn was left in good order: the message is queued
	// again.
	Release(ctx context.Context, seq int64) error
	// TakeBack hides the messages of session numbered from on; doing it again
	// changes nothing.
	TakeBack(ctx context.Context, session string, from int64) error
	// Finish commits an outcome; after as in Accept.
	Finish(ctx context.Context, o Outcome, after func()) error
	// Message returns a message by its public id, with its answer; ErrUnknown if
	// there is none.
	Message(ctx context.Context, id string) (Message, error)
	// Open returns the messages that have not ended in the order of Seq, without
	// their Ask.
	Open(ctx context.Context) ([]Message, error)
	// Continued says whether session holds anything.
	Continued(ctx context.Context, session string) (bool, error)
	// Tally returns the counts.
	Tally(ctx context.Context) (Tally, error)
}

// What callers may act on.
var (
	ErrUnknown  = errors.New("there is no such message")
	ErrConflict = errors.New("this idempotency key was used for another request")
	ErrDraining = errors.New("the gateway is stopping and takes no new messages; try again in a moment")
	ErrFull     = errors.New("too many messages are waiting for an answer; try again in a moment")
	ErrLeft     = errors.New("the gateway stopped before the answer was there; the message is kept, and answered after the restart")
)

const (
	// MaxAttempts is how many processes may end while a turn runs before it is
	// taken to be the cause.
	MaxAttempts = 3
	// journalTimeout bounds one read of the journal.
	journalTimeout = 10 * time.Second
	// finishRetry is the pause before an outcome is committed again that the disk
	// did not take; it doubles up to finishRetryMax.
	finishRetry    = 200 * time.Millisecond
	finishRetryMax = 5 * time.Second
	// dropAsk is the size in bytes from which on the text of a message that waits
	// is not held in memory.
	dropAsk = 4 << 10
)

// Answerer is what answers: *agent.Agent.
type Answerer interface {
	Answer(ctx context.Context, t agent.Turn) (agent.Result, error)
}

// Observer is told times and tokens, for metrics. Its methods do not block.
type Observer interface {
	Stage(name string, took time.Duration)
	Tokens(model string, u chat.Usage)
}

// Options says what an engine is made of.
type Options struct {
	Journal Journal
	Agent   Answerer
	// Parts cuts what is said to a platform into parts of the outbox. Nil: there
	// are no platforms.
	Parts func(m Message, text string) []outbox.Part
	// Preview makes what shows the answer to m while it grows, going on with
	// m.Preview if there is one; nil: its platform cannot edit. Nil: none can.
	Preview func(m Message) Preview
	// PreviewAfter is when the first preview of an answer is shown: what is there by
	// then needs none. Default 1 s. PreviewEvery is the pause between two: people
	// read on, and most networks bear it. Default 2 s.
	PreviewAfter, PreviewEvery time.Duration
	// Queued is called after parts were committed. Nil: nobody wants to know.
	Queued func(account string)
	// Broken is told that the journal failed. Nil: nobody wants to know.
	Broken func()
	// Observe may be nil.
	Observe Observer
	// MaxRunning bounds the turns that run at once. Default 512.
	MaxRunning int
	// MaxQueued bounds the messages that wait; more are refused. Default 10000.
	MaxQueued int
	// Merge is how long a message on a platform waits for more of the same
	// sender, to be answered together. Default 0: not at all.
	Merge time.Duration
	Log   *slog.Logger // default: discards
}

func (o Options) withDefaults() Options {
	if o.MaxRunning <= 0 {
		o.MaxRunning = 512
	}
	if o.MaxQueued <= 0 {
		o.MaxQueued = 10_000
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Parts == nil {
		o.Parts = func(Message, string) []outbox.Part { return nil }
	}
	if o.Preview == nil {
		o.Preview = func(Message) Preview { return nil }
	}
	if o.PreviewAfter <= 0 {
		o.PreviewAfter = time.Second
	}
	if o.PreviewEvery <= 0 {
		o.PreviewEvery = 2 * time.Second
	}
	if o.Queued == nil {
		o.Queued = func(string) {}
	}
	if o.Broken == nil {
		o.Broken = func() {}
	}
	if o.Observe == nil {
		o.Observe = deaf{}
	}
	return o
}

type deaf struct{}

func (deaf) Stage(string, time.Duration) {}
func (deaf) Tokens(string, chat.Usage)   {}

// Engine runs turns: those of one chat one after the other in the order of
// acceptance, different chats side by side. Its methods are safe for concurrent
// use.
type Engine struct {
	o   Options
	log *slog.Logger

	ctx    context.Context // of every turn; ended by Close
	cancel context.CancelCauseFunc
	slots  chan struct{}
	wg     sync.WaitGroup // of the workers

	mu     sync.Mutex
	lanes  map[string]*lane // of the chats that have open messages
	live   map[string]*Live // by public id
	tally  Tally
	closed bool // takes nothing new
}

// lane is the open messages of one chat.
type lane struct {
	waiting []*Live
	running *Live
	busy    bool // has a worker
}

// New builds an engine; it reads nothing yet.
func New(o Options) (*Engine, error) {
	if o.Journal == nil || o.Agent == nil {
		return nil, errors.New("cannot build a turn engine without a journal and an agent")
	}
	o = o.withDefaults()
	// Turns outlive the requests that brought them: their context is the engine's
	// own, and Close ends it.
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Engine{
		o: o, log: o.Log, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, o.MaxRunning),
		lanes: map[string]*lane{}, live: map[string]*Live{},
	}, nil
}

// Resume takes up what the last process left, in order. Call it once, before
// anything is accepted. A message whose turn was under way at the end of
// MaxAttempts processes is set aside: it fails, visibly.
func (e *Engine) Resume(ctx context.Context) error {
	tally, err := e.o.Journal.Tally(ctx)
	if err != nil {
		return err
	}
	open, err := e.o.Journal.Open(ctx)
	if err != nil {
		return err
	}
	tally.Queued, tally.Running = int64(len(open)), 0
	e.mu.Lock()
	e.tally = tally
	e.mu.Unlock()
	var again []Message
	for _, m := range open {
		if m.State == Running && m.Attempts-m.Released >= MaxAttempts {
			e.setAside(ctx, m)
			continue
		}
		again = append(again, m)
	}
	for _, m := range again {
		e.enqueue(newLive(m))
	}
	if len(open) > 0 {
		e.log.Info("messages resumed", "count", len(again), "set_aside", len(open)-len(again))
	}
	return nil
}

// setAside fails a message that three processes did not survive.
func (e *Engine) setAside(ctx context.Context, m Message) {
	if full, err := e.o.Journal.Message(ctx, m.ID); err == nil {
		m = full
	}
	l := newLive(m)
	e.count(func(t *Tally) { t.Queued--; t.Running++ })
	e.finish(l, m, nil, agent.Result{}, &failure{
		reason: Crashed,
		text:   "the gateway ended three times while it answered this message; it was set aside (see: hermes deadletter show " + m.ID + ")",
	})
}

// Accept commits m and queues its turn. fresh is false when the same message
// was accepted before: live is then its turn, or nil if that has ended and m's
// Journal has the answer. The returned message says which.
func (e *Engine) Accept(ctx context.Context, m Message) (kept Message, live *Live, fresh bool, err error) {
	if err := e.admit(); err != nil {
		return Message{}, nil, false, err
	}
	if m.Received.IsZero() {
		m.Received = time.Now()
	}
	m.State, m.Behind = Queued, e.behind(m.Chat)
	start := time.Now()
	// Whether it was committed must be known, also when the client has gone.
	kept, fresh, err = e.o.Journal.Accept(context.WithoutCancel(ctx), m, func(m Message) {
		live = newLive(m)
		e.count(func(t *Tally) { t.Received++; t.Queued++ })
		e.enqueue(live)
	})
	e.o.Observe.Stage("accept", time.Since(start))
	switch {
	case err != nil:
		e.o.Broken()
		return Message{}, nil, false, &chat.Error{Kind: chat.Unavailable, Message: "the message could not be stored: " + err.Error(), Err: err}
	case fresh:
		return kept, live, true, nil
	case m.Digest != "" && m.Digest != kept.Digest:
		return kept, nil, false, ErrConflict
	}
	if live = e.Live(kept.ID); live == nil { // it has ended, perhaps just now
		kept, err = e.o.Journal.Message(ctx, kept.ID)
	}
	return kept, live, false, err
}

func (e *Engine) admit() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return ErrDraining
	case e.tally.Queued >= int64(e.o.MaxQueued):
		return ErrFull
	}
	return nil
}

func (e *Engine) behind(chat string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lanes[chat]
	if l == nil {
		return 0
	}
	n := len(l.waiting)
	if l.running != nil {
		n++
	}
	return n
}

// Waiting returns how many messages of a chat wait, and whether one is being
// answered.
func (e *Engine) Waiting(chat string) (waiting int, running bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.lanes[chat]; l != nil {
		return len(l.waiting), l.running != nil
	}
	return 0, false
}

// CountAnswered counts a message that was accepted and answered without a turn.
func (e *Engine) CountAnswered() {
	e.count(func(t *Tally) { t.Received++; t.Answered++ })
}

// CountDuplicate counts a delivery that was labelled as perhaps repeated.
func (e *Engine) CountDuplicate() { e.count(func(t *Tally) { t.Duplicates++ }) }

// Live returns the open message with this public id, or nil.
func (e *Engine) Live(id string) *Live {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.live[id]
}

// Tally returns the counts of this moment: received is the sum of the others.
func (e *Engine) Tally() Tally {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tally
}

func (e *Engine) count(f func(*Tally)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.tally)
}

// enqueue puts l behind the messages of its chat.
func (e *Engine) enqueue(l *Live) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.live[l.id] = l
	ln := e.lanes[l.chat]
	if ln == nil {
		ln = &lane{}
		e.lanes[l.chat] = ln
	}
	if m := &l.message; len(ln.waiting) == 0 && ln.running == nil || m.Ask.size() <= dropAsk {
		l.loaded = len(m.Ask.Messages) > 0
	} else {
		m.Ask = Ask{}
	}
	ln.waiting = append(ln.waiting, l)
	if !ln.busy {
		ln.busy = true
		e.wg.Go(func() { e.work(l.chat, ln) })
	}
}

// size is about what an Ask takes in memory, in bytes.
func (a Ask) size() int {
	n := 0
	for _, m := range a.Messages {
		n += len(m.Text)
	}
	for _, m := range a.System {
		n += len(m.Text)
	}
	return n
}

// Stop ends a message: at once if it waits, as soon as its model lets go if it
// runs. It returns false when there is no such open message. The message fails
// with the reason Cancelled.
func (e *Engine) Stop(id string) bool {
	e.mu.Lock()
	l := e.live[id]
	queued := l != nil && e.takeOut(l)
	e.mu.Unlock()
	switch {
	case l == nil:
		return false
	case !queued:
		l.stop(stopped)
		return true
	}
	m, _ := l.snapshot()
	e.count(func(t *Tally) { t.Queued--; t.Running++ })
	e.finish(l, m, nil, agent.Result{}, stopped)
	return true
}

// StopChat stops what runs and what waits in a chat and returns how many that
// were.
func (e *Engine) StopChat(chat string) int {
	e.mu.Lock()
	var ids []string
	if ln := e.lanes[chat]; ln != nil {
		for _, l := range ln.waiting {
			ids = append(ids, l.id)
		}
		if ln.running != nil {
			ids = append(ids, ln.running.id)
		}
	}
	e.mu.Unlock()
	n := 0
	for _, id := range ids {
		if e.Stop(id) {
			n++
		}
	}
	return n
}

// Interrupt stops the turn that runs in a chat; those that wait go on.
func (e *Engine) Interrupt(chat string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ln := e.lanes[chat]; ln != nil && ln.running != nil {
		ln.running.stop(interrupted)
	}
}

// takeOut removes l from the messages that wait; mu is held.
func (e *Engine) takeOut(l *Live) bool {
	ln := e.lanes[l.chat]
	if ln == nil {
		return false
	}
	for i, other := range ln.waiting {
		if other == l {
			ln.waiting = append(ln.waiting[:i:i], ln.waiting[i+1:]...)
			return true
		}
	}
	return false
}
