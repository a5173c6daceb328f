package outbox

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hermesgw/hermes/internal/platform"
)

const (
	// retryMin is the pause after a first failure whose end the platform does not
	// tell; it doubles up to retryMax, each time a random half less.
	retryMin = time.Second
	retryMax = 2 * time.Minute
	// sendTimeout bounds one try, where the platform does not need longer. One that
	// is cut off may have arrived: it must not happen to a healthy connection.
	sendTimeout = time.Minute
	// storeRetry is the pause after a failure of the store.
	storeRetry = time.Second
	// MaxAge is how long a part is tried before it is given up.
	MaxAge = 24 * time.Hour
	// RepeatMark stands before a text that may have been sent before.
	RepeatMark = "(perhaps a repeat) "
)

// ErrDropped means that a part is not to be sent any more.
var ErrDropped = errors.New("the part was dropped")

// Store keeps parts until they are sent, and longer. Its methods block for the
// disk and are safe for concurrent use.
type Store interface {
	// OpenParts returns the parts of account that are pending or sending and
	// numbered above after, in order.
	OpenParts(ctx context.Context, account string, after int64) ([]Part, error)
	// Trying commits, to survive a power cut, that a try to send begins; ErrDropped
	// if the part is not to be sent any more.
	Trying(ctx context.Context, seq int64) error
	// Tried keeps State, Edits, Unsure, Tries, Receipt, Error, NotBefore and Finished
	// of p.
	// repeat: the try that was made was labelled as perhaps a repeat.
	Tried(ctx context.Context, p Part, repeat bool) error
	// GiveUp is Tried for a dead part, and gives what follows of the same answer up
	// with it, in one commit. It returns how many parts that are.
	GiveUp(ctx context.Context, p Part, repeat bool) (rest int, err error)
}

// Sender sends: a platform.Adapter.
type Sender interface {
	Account() string
	Limits() platform.Limits
	Send(ctx context.Context, m platform.Outbound) (platform.Receipt, error)
}

// Observer is told of every part that is sent or given up, and of every preview.
type Observer interface {
	// Delivered: took is from the part's creation; repeat as in Tried.
	Delivered(account string, took time.Duration, sent, repeat bool)
	// Previewed: an answer was shown as far as it had come, or (sent false) that was
	// dropped.
	Previewed(account string, sent bool)
}

// Options says what an outbox sends for.
type Options struct {
	Store   Store
	Sender  Sender
	Observe Observer     // may be nil
	Log     *slog.Logger // default: discards
}

// Outbox sends the parts of one account: those of a chat in order, one at a
// time; chats side by side, as fast as the platform bears. It is safe for
// concurrent use.
type Outbox struct {
	o      Options
	log    *slog.Logger
	limits platform.Limits
	editor platform.Editor // the sender; nil: it cannot edit
	gate   *gate
	wake   chan struct{}

	mu     sync.Mutex
	last   int64 // number of the last part that was taken from the store
	queues map[string]*queue
	open   int
	wg     sync.WaitGroup
}

// queue is the parts of one chat that wait.
type queue struct {
	parts []Part
	gate  *gate
	busy  bool
}

// New builds an outbox; it reads nothing yet.
func New(o Options) (*Outbox, error) {
	if o.Store == nil || o.Sender == nil {
		return nil, errors.New("cannot build an outbox without a store and a sender")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := o.Sender.Limits()
	editor, _ := o.Sender.(platform.Editor)
	return &Outbox{
		o: o, log: o.Log, limits: l, editor: editor, gate: newGate(l.PerAccount, l.Burst),
		wake: make(chan struct{}, 1), queues: map[string]*queue{},
	}, nil
}

// Wake says that parts were committed.
func (b *Outbox) Wake() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Drop forgets the parts for a chat that are numbered up to upto, which the store
// drops already: those that are messages of their own. The one that is being sent,
// or is the next, is left to the store.
func (b *Outbox) Drop(chat, thread string, upto int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queues[queueOf(chat, thread)]
	if q == nil || len(q.parts) == 0 {
		return
	}
	kept := slices.Clone(q.parts[:1])
	for _, p := range q.parts[1:] {
		if p.Seq > upto || p.Edits != "" {
			kept = append(kept, p)
		}
	}
	b.open -= len(q.parts) - len(kept)
	q.parts = kept
}

func queueOf(chat, thread string) string { return chat + "\x00" + thread }

// Open returns how many parts wait to be sent.
func (b *Outbox) Open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// Run sends until ctx ends; then a try that is under way has until its own end,
// at most sendTimeout. Parts of an earlier process come first: one that was
// being sent when that ended may be there already.
func (b *Outbox) Run(ctx context.Context) error {
	defer b.wg.Wait()
	first := true
	for {
		if err := b.fetch(ctx, first); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			b.log.Error("cannot read the outbox; trying again", "account", b.o.Sender.Account(), "error", err)
			if !sleep(ctx, storeRetry) {
				return nil
			}
			continue
		}
		first = false
		select {
		case <-b.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// fetch takes what was committed since the last time. Only at the first can a
// part be in state sending without a try of ours.
func (b *Outbox) fetch(ctx context.Context, first bool) error {
	b.mu.Lock()
	after := b.last
	b.mu.Unlock()
	parts, err := b.o.Store.OpenParts(ctx, b.o.Sender.Account(), after)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget()
	for _, p := range parts {
		if first && p.State == Sending {
			p.Unsure = true
		}
		b.last = p.Seq
		b.open++
		key := queueOf(p.Chat, p.Thread)
		q := b.queue(key)
		q.parts = append(q.parts, p)
		if !q.busy {
			q.busy = true
			b.wg.Go(func() { b.work(ctx, key, q) })
		}
	}
	return nil
}

// queue returns that of a chat; mu is held.
func (b *Outbox) queue(key string) *queue {
	q := b.queues[key]
	if q == nil {
		q = &queue{gate: newGate(b.limits.PerChat, b.limits.Burst)}
		b.queues[key] = q
	}
	return q
}

// manyQueues is how many chats are remembered before those at rest are
// forgotten.
const manyQueues = 1024

// forget drops the chats that have nothing to send and nothing to wait for; mu
// is held.
func (b *Outbox) forget() {
	if len(b.queues) < manyQueues {
		return
	}
	for key, q := range b.queues {
		if !q.busy && q.gate.idle() {
			delete(b.queues, key)
		}
	}
}

// work sends the parts of one chat until none waits.
func (b *Outbox) work(ctx context.Context, key string, q *queue) {
	for {
		b.mu.Lock()
		if len(q.parts) == 0 {
			q.busy = false
			if q.gate.idle() {
				delete(b.queues, key)
			}
			b.mu.Unlock()
			return
		}
		p := q.parts[0]
		b.mu.Unlock()
		if !b.deliver(ctx, q, p) {
			return // ctx ended
		}
		b.mu.Lock()
		q.parts = q.parts[1:]
		b.open--
		b.mu.Unlock()
	}
}

// deliver tries until p is sent or given up; false: ctx ended before.
func (b *Outbox) deliver(ctx context.Context, q *queue, p Part) bool {
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		if !sleep(ctx, p.wait(time.Now())) || !q.gate.pass(ctx) || !b.gate.pass(ctx) {
			return false
		}
		if !b.persist(ctx, func() error { return b.o.Store.Trying(ctx, p.Seq) }) {
			return ctx.Err() == nil // then it was dropped
		}
		repeat := p.Unsure && !b.limits.Dedupes && p.Edits == "" // an edit done twice is done once
		receipt, err := b.try(ctx, &p, repeat)
		b.judge(&p, q, receipt, err, pause)
		keeping, rest := context.WithoutCancel(ctx), 0
		if !b.persist(ctx, func() (keep error) {
			if p.State == Dead && !ofText(err) {
				rest, keep = b.o.Store.GiveUp(keeping, p, repeat)
				return keep
			}
			return b.o.Store.Tried(keeping, p, repeat)
		}) {
			return false
		}
		if p.State == Sent || p.State == Dead {
			b.said(p, repeat, rest)
			if rest > 0 {
				b.skip(q, p)
			}
			return true
		}
	}
}

// skip forgets what follows p of the same answer; p is the first of q.
func (b *Outbox) skip(q *queue, p Part) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := slices.Clone(q.parts[:1])
	for _, other := range q.parts[1:] {
		if !other.SameAnswer(p) {
			kept = append(kept, other)
		}
	}
	b.open -= len(q.parts) - len(kept)
	q.parts = kept
}

// ofText says whether a platform refused this text alone. Else what follows of the
// answer would fare no better, or would come after a gap: it is given up as well.
func ofText(err error) bool {
	var e *platform.SendError
	return errors.As(err, &e) && e.Text
}

// persist repeats write until the store takes it; false: ctx ended before, or the
// part was dropped. At the end of ctx it has one more try: what was sent should be
// known.
func (b *Outbox) persist(ctx context.Context, write func() error) bool {
	for {
		err := write()
		if err == nil {
			return true
		}
		if ctx.Err() != nil || errors.Is(err, ErrDropped) {
			return false
		}
		b.log.Error("cannot keep the state of a delivery; trying again", "error", err)
		if !sleep(ctx, storeRetry) {
			return write() == nil
		}
	}
}

// try is one call of the platform. A stop of the process does not cut it: the
// answer would be lost.
func (b *Outbox) try(ctx context.Context, p *Part, repeat bool) (platform.Receipt, error) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(sendTimeout, b.limits.Send))
	defer cancel()
	text := p.Text
	if repeat {
		text = RepeatMark + text
	}
	start := time.Now()
	receipt, err := b.call(limited, p.Edits, platform.Outbound{
		Delivery: p.Delivery, Chat: p.Chat, Thread: p.Thread, ReplyTo: p.ReplyTo, Text: text,
	})
	try := Try{At: start, Took: time.Since(start), Fate: string(platform.FateOf(err))}
	if err != nil {
		try.Error = err.Error()
	}
	p.Attempts++
	p.Tries = append(p.Tries, try)
	if len(p.Tries) > maxTries {
		p.Tries = p.Tries[len(p.Tries)-maxTries:]
	}
	return receipt, err
}

// call sends m, or gives its text to the message called edits.
func (b *Outbox) call(ctx context.Context, edits string, m platform.Outbound) (platform.Receipt, error) {
	switch {
	case edits == "":
		return b.o.Sender.Send(ctx, m)
	case b.editor == nil:
		return platform.Receipt{}, &platform.SendError{Fate: platform.Never, Err: errCannotEdit}
	default:
		return platform.Receipt{ID: edits}, b.editor.Edit(ctx, edits, m)
	}
}

// errCannotEdit: a version before this one could.
var errCannotEdit = errors.New("the adapter cannot edit")

// maxTries bounds how many tries of a part are remembered, the last ones.
const maxTries = 20

// judge says what a try means for p.
func (b *Outbox) judge(p *Part, q *queue, receipt platform.Receipt, err error, pause time.Duration) {
	now := time.Now()
	p.NotBefore, p.Error = time.Time{}, ""
	if err == nil {
		p.State, p.Receipt, p.Finished = Sent, receipt.ID, now
		return
	}
	p.Error = err.Error()
	switch platform.FateOf(err) {
	case platform.Never:
		if p.Edits != "" { // the preview is gone, and who asked still has no answer
			p.State, p.Edits = Pending, ""
			return
		}
		p.State, p.Finished = Dead, now
		return
	case platform.Unknown:
		p.Unsure = true
	case platform.Retry:
	}
	p.State = Pending
	wait := pause - rand.N(pause/2) // so that chats do not come back all at once
	if after := b.heed(err, q.gate); after > 0 {
		wait = after
	}
	if !p.Created.IsZero() && now.Add(wait).Sub(p.Created) > MaxAge {
		p.State, p.Finished = Dead, now
		p.Error = "given up after " + MaxAge.String() + "; last: " + p.Error
		return
	}
	p.NotBefore = now.Add(wait)
}

// heed returns how long the network asks to wait, and closes the gates until then.
func (b *Outbox) heed(err error, chat *gate) (after time.Duration) {
	var e *platform.SendError
	if !errors.As(err, &e) || e.After <= 0 {
		return 0
	}
	if e.Account {
		chat = b.gate
	}
	chat.hold(time.Now().Add(e.After))
	return e.After
}

// said tells of p, and of the rest parts of its answer that were given up with it.
func (b *Outbox) said(p Part, repeat bool, rest int) {
	if b.o.Observe != nil {
		b.o.Observe.Delivered(p.Account, time.Since(p.Created), p.State == Sent, repeat)
		for range rest {
			b.o.Observe.Delivered(p.Account, time.Since(p.Created), false, false)
		}
	}
	if p.State == Dead {
		b.log.Warn("delivery given up", "delivery", p.Delivery, "message", p.Message, "account", p.Account, "attempts", p.Attempts,
			"parts", 1+rest, "error", p.Error)
	}
}

// gate lets sends through no faster than a platform bears, and not before a time
// that the platform named.
type gate struct {
	limit *rate.Limiter

	mu    sync.Mutex
	until time.Time
}

func newGate(every time.Duration, burst int) *gate {
	g := &gate{limit: rate.NewLimiter(rate.Inf, 1)}
	if every > 0 {
		g.limit = rate.NewLimiter(rate.Every(every), max(burst, 1))
	}
	return g
}

// pass waits; false: ctx ended before.
func (g *gate) pass(ctx context.Context) bool {
	for {
		g.mu.Lock()
		wait := time.Until(g.until)
		g.mu.Unlock()
		if wait <= 0 {
			break
		}
		if !sleep(ctx, wait) {
			return false
		}
	}
	return g.limit.Wait(ctx) == nil
}

// spare says whether somebody who does not wait may pass: nothing is in the way,
// and half of the burst is left for those who do.
func (g *gate) spare() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !time.Now().Before(g.until) &&
		(g.limit.Limit() == rate.Inf || g.limit.Tokens() >= 1+float64(g.limit.Burst())/2)
}

func (g *gate) hold(until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until.After(g.until) {
		g.until = until
	}
}

// idle: nobody would have to wait, so the gate may be forgotten.
func (g *gate) idle() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().After(g.until) && (g.limit.Limit() == rate.Inf || g.limit.Tokens() >= float64(g.limit.Burst()))
}

// sleep waits d; false: ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
