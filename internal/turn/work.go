package turn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
)

// failure is why a turn failed, in the words of the journal. The mark ends a
// preview whose answer will not come.
type failure struct{ reason, text, mark string }

func (f *failure) Error() string { return f.text }

// Two ways to end a turn before its time, as causes of its context.
var (
	stopped     = &failure{Cancelled, "the message was stopped before it was answered", "[stopped]"}
	interrupted = &failure{Cancelled, "a newer message interrupted the answer", "[interrupted]"}
)

// work runs the turns of one chat until none waits.
func (e *Engine) work(chat string, ln *lane) {
	for {
		l := e.next(chat, ln)
		if l == nil {
			return
		}
		select {
		case e.slots <- struct{}{}:
			e.turn(ln, l)
			<-e.slots
		case <-e.ctx.Done():
			e.leave(ln, l)
		}
	}
}

// next takes the first message that waits, or forgets the lane. While the
// engine is closed it takes only what somebody waits for: the rest is kept for
// the next process.
func (e *Engine) next(chat string, ln *lane) *Live {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(ln.waiting) > 0 {
		l := ln.waiting[0]
		ln.waiting = ln.waiting[1:]
		if e.closed && (!l.watched() || e.ctx.Err() != nil) {
			delete(e.live, l.id)
			l.end(l.message, ErrLeft)
			continue
		}
		ln.running = l
		return l
	}
	ln.busy = false
	if e.lanes[chat] == ln {
		delete(e.lanes, chat)
	}
	return nil
}

// leave gives l up for this process.
func (e *Engine) leave(ln *lane, l *Live) {
	e.mu.Lock()
	ln.running = nil
	delete(e.live, l.id)
	e.mu.Unlock()
	m, _ := l.snapshot()
	l.end(m, ErrLeft)
}

// turn runs one message, and those that are merged with it.
func (e *Engine) turn(ln *lane, l *Live) {
	e.settle(l)
	joined := e.join(ln, l)
	ctx, cancel := context.WithCancelCause(e.ctx)
	defer cancel(nil)
	l.stopBy(cancel)
	e.count(func(t *Tally) { n := int64(1 + len(joined)); t.Queued -= n; t.Running += n })

	m, news, result, err := e.attempt(ctx, l, joined)
	var why *failure
	switch asked := errors.As(context.Cause(ctx), &why); {
	case err != nil && asked:
		e.finish(l, m, joined, result, why, news...)
	case err != nil && e.ctx.Err() != nil:
		e.abandon(l, joined)
	default:
		e.finish(l, m, joined, result, err, news...)
	}
	e.mu.Lock()
	ln.running = nil
	e.mu.Unlock()
}

// merges says whether m may be a part of a burst. One that is replayed is not: it
// failed before, and would have others fail with it.
func (e *Engine) merges(m Message) bool {
	return e.o.Merge > 0 && m.Ask.To.Account != "" && m.ReplayOf == ""
}

// settle waits for more messages of a burst.
func (e *Engine) settle(l *Live) {
	m, _ := l.snapshot()
	if !e.merges(m) {
		return
	}
	left := min(e.o.Merge, time.Until(m.Received.Add(e.o.Merge))) // received in the future: the clock was set back
	wait := time.NewTimer(left)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-e.ctx.Done():
	}
}

// join takes the messages of the same sender that wait right behind l.
func (e *Engine) join(ln *lane, l *Live) []*Live {
	first, _ := l.snapshot()
	if !e.merges(first) {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var joined []*Live
	for len(ln.waiting) > 0 {
		m, loaded := ln.waiting[0].snapshot()
		if !loaded || !e.merges(m) || m.Sender != first.Sender || m.Session != first.Session {
			break
		}
		joined = append(joined, ln.waiting[0])
		ln.waiting = ln.waiting[1:]
	}
	return joined
}

// attempt is the turn itself.
func (e *Engine) attempt(ctx context.Context, l *Live, joined []*Live) (m Message, news []chat.Message, result agent.Result, err error) {
	defer func() {
		// A bug in one adapter fails its turn, not the other conversations.
		if p := recover(); p != nil {
			err = &failure{reason: Internal, text: fmt.Sprintf("internal error: %v", p)}
		}
	}()
	m, err = e.begin(ctx, l)
	if err != nil {
		return m, nil, result, err
	}
	asked := m.Ask.Messages
	for _, other := range joined {
		also, _ := other.snapshot()
		asked = append(asked, also.Ask.Messages...)
	}
	continued, news, err := e.news(ctx, m, asked)
	if err != nil {
		return m, nil, result, err
	}
	shown := e.preview(m, l)
	defer func() { m.Preview = shown() }()
	start := time.Now()
	result, err = e.o.Agent.Answer(ctx, agent.Turn{
		Session: m.Session, Continued: continued, System: m.Ask.System, News: news,
		Request: chat.Request{Temperature: m.Ask.Temperature, TopP: m.Ask.TopP, MaxTokens: m.Ask.MaxTokens, Stop: m.Ask.Stop},
		History: e.o.Journal, Out: l,
	})
	e.o.Observe.Stage("model", time.Since(start))
	return m, news, result, err
}

// begin notes the attempt and fetches what was dropped from memory.
func (e *Engine) begin(ctx context.Context, l *Live) (Message, error) {
	m, loaded := l.snapshot()
	now := time.Now()
	e.o.Observe.Stage("queue", now.Sub(m.Received))
	attempts := 0
	err := e.persist(ctx, "begin a turn", m.ID, func(ctx context.Context) (err error) {
		attempts, err = e.o.Journal.Begin(ctx, m.Seq, now)
		return err
	})
	if err == nil && !loaded {
		err = e.persist(ctx, "read a message", m.ID, func(ctx context.Context) error {
			full, err := e.o.Journal.Message(ctx, m.ID)
			if err == nil { // else what is known of it must stay
				m = full
			}
			return err
		})
	}
	if err == nil && m.Ask.TakeBack > 0 {
		err = e.persist(ctx, "take an answer back", m.ID, func(ctx context.Context) error {
			return e.o.Journal.TakeBack(ctx, m.Session, m.Ask.TakeBack)
		})
	}
	if err != nil {
		return m, err
	}
	m.State, m.Attempts, m.Started = Running, attempts, now
	l.change(func() { l.message = m })
	return m, nil
}

// news is what m says that the conversation does not hold yet.
func (e *Engine) news(ctx context.Context, m Message, asked []chat.Message) (continued bool, news []chat.Message, err error) {
	if m.Ask.Fresh {
		return false, asked, nil
	}
	err = e.persist(ctx, "read a session", m.ID, func(ctx context.Context) (err error) {
		continued, err = e.o.Journal.Continued(ctx, m.Session)
		return err
	})
	switch {
	case err != nil:
		return false, nil, err
	case !continued:
		return false, asked, nil
	}
	return true, News(asked), nil
}

// News is the part of a request that is new in a conversation that is stored. A
// client may repeat all of it: only what follows the last assistant message is
// new. The first request of a session brings its own past along.
func News(asked []chat.Message) []chat.Message {
	last := -1
	for i, m := range asked {
		if m.Role == chat.Assistant {
			last = i
		}
	}
	return asked[last+1:]
}

// persist repeats f until the journal does it: a message that was accepted must
// not fail because a disk was full for a while. It gives up when ctx ends.
func (e *Engine) persist(ctx context.Context, what, id string, f func(context.Context) error) error {
	for pause := finishRetry; ; pause = min(2*pause, finishRetryMax) {
		limited, cancel := context.WithTimeout(ctx, journalTimeout)
		err := f(limited)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		e.o.Broken()
		e.log.Error("cannot "+what+"; trying again", "message", id, "error", err)
		if !e.sleep(pause) {
			return e.ctx.Err()
		}
	}
}

// finish commits how a message ended, again and again if the disk does not take
// it: only the end of the process ends that, and then the next one begins anew.
func (e *Engine) finish(l *Live, m Message, joined []*Live, result agent.Result, err error, news ...chat.Message) {
	o := e.outcome(l, m, result, err, news)
	for _, other := range joined {
		o.Joined = append(o.Joined, other.seq)
	}
	ended := m.ended(o)
	start := time.Now()
	if e.persist(e.ctx, "store the end of a turn", m.ID, func(ctx context.Context) error {
		return e.commit(ctx, l, joined, o)
	}) != nil {
		e.abandon(l, joined)
		return
	}
	e.o.Observe.Stage("store", time.Since(start))
	e.o.Observe.Stage("total", time.Since(m.Received))
	if len(o.Parts) > 0 {
		e.o.Queued(m.Ask.To.Account)
	}
	e.say(ended)
	l.end(ended, err)
	for _, other := range joined {
		also, _ := other.snapshot()
		also = also.ended(o)
		also.Joined = m.ID
		other.end(also, err)
	}
}

// commit stores an outcome. A commit that was reported as failed may have been
// done all the same.
func (e *Engine) commit(ctx context.Context, l *Live, joined []*Live, o Outcome) error {
	certain := context.WithoutCancel(ctx)
	err := e.o.Journal.Finish(certain, o, func() { e.ended(l, joined, o) })
	if err == nil {
		return nil
	}
	if kept, kerr := e.o.Journal.Message(certain, l.id); kerr == nil && kept.State.Ended() {
		e.ended(l, joined, o)
		return nil
	}
	return err
}

// ended moves the counts and forgets the messages; it runs in the order of the
// commits.
func (e *Engine) ended(l *Live, joined []*Live, o Outcome) {
	n := int64(1 + len(joined))
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tally.Running -= n
	if o.State == Answered {
		e.tally.Answered += n
	} else {
		e.tally.Failed += n
	}
	delete(e.live, l.id)
	for _, other := range joined {
		delete(e.live, other.id)
	}
}

// sleep waits d; false means that the process ends.
func (e *Engine) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-e.ctx.Done():
		return false
	}
}

// outcome says what is to be committed.
func (e *Engine) outcome(l *Live, m Message, result agent.Result, err error, news []chat.Message) Outcome {
	l.mu.Lock()
	steps, restarts := l.steps, l.restarts
	l.mu.Unlock()
	o := Outcome{Seq: m.Seq, Session: m.Session, At: time.Now(), Attempt: m.Attempts, Restarts: restarts, Steps: steps}
	if err != nil {
		o.State, o.Reason, o.Error = Failed, reasonOf(err), err.Error()
		if errors.Is(err, interrupted) { // what was said stays said
			o.News = news
		}
		switch {
		case m.Ask.To.Account == "":
		case o.Reason != Cancelled:
			o.Parts = e.parts(m, apology(m.ID, err))
		case m.Preview != "":
			o.Parts = e.closing(m, l.Since(0).Delta, err)
		}
		return o
	}
	o.State = Answered
	o.Reply = Reply{Text: result.Reply.Text, Finish: result.Reply.Finish, Usage: result.Reply.Usage, Model: result.Model}
	o.News = append(append(o.News, news...), chat.Message{Role: chat.Assistant, Text: result.Reply.Text})
	if m.Ask.To.Account != "" {
		o.Parts = e.parts(m, result.Reply.Text)
	}
	e.o.Observe.Tokens(result.Model, result.Reply.Usage)
	return o
}

// apology is what a person reads instead of an answer: silence is none. With the
// id an operator finds out why.
func apology(id string, err error) string {
	return "Sorry, I could not answer that: " + err.Error() + "\nIt is kept as " + id + "; /retry asks again."
}

func reasonOf(err error) string {
	var f *failure
	if errors.As(err, &f) {
		return f.reason
	}
	return string(chat.KindOf(err))
}

// ended is m after outcome o.
func (m Message) ended(o Outcome) Message {
	m.State, m.Reason, m.Error, m.Finished, m.Reply, m.Restarts = o.State, o.Reason, o.Error, o.At, o.Reply, o.Restarts
	return m
}

func (e *Engine) say(m Message) {
	if m.State == Failed {
		e.log.Warn("turn failed", "message", m.ID, "session", m.Session, "reason", m.Reason, "error", m.Error)
		return
	}
	e.log.Debug("turn answered", "message", m.ID, "session", m.Session, "took", m.Finished.Sub(m.Received),
		"tokens_in", m.Reply.Usage.Input, "tokens_out", m.Reply.Usage.Output)
}

// abandon leaves a turn to the next process: nothing of it was committed.
func (e *Engine) abandon(l *Live, joined []*Live) {
	m, _ := l.snapshot()
	if err := e.o.Journal.Release(context.WithoutCancel(e.ctx), m.Seq); err != nil {
		e.log.Error("cannot note that a turn was left", "message", m.ID, "error", err)
	}
	e.mu.Lock()
	n := int64(1 + len(joined))
	e.tally.Running -= n
	e.tally.Queued += n
	delete(e.live, l.id)
	for _, other := range joined {
		delete(e.live, other.id)
	}
	e.mu.Unlock()
	m.State = Queued
	l.end(m, ErrLeft)
	for _, other := range joined {
		also, _ := other.snapshot()
		other.end(also, ErrLeft)
	}
}

// Close takes nothing new from the first call on.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
}

// Closed says whether Close was called.
func (e *Engine) Closed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

// Drain closes the engine and waits for what runs and for what somebody waits
// for. When ctx ends first, the rest is left to the next process; it returns
// how many that are.
func (e *Engine) Drain(ctx context.Context) int {
	e.Close()
	idle := make(chan struct{})
	go func() { e.wg.Wait(); close(idle) }() // ends: Abort below, or by itself
	select {
	case <-idle:
		return 0
	case <-ctx.Done():
	}
	left := int(e.Tally().Running)
	e.cancel(errAbandoned)
	<-idle
	return left
}

// Abort leaves every turn to the next process, and waits for the workers.
func (e *Engine) Abort() {
	e.Close()
	e.cancel(errAbandoned)
	e.wg.Wait()
}

var _ agent.Out = (*Live)(nil)

// Lock returns the lock that every message needs, for a test of who notices that
// nobody gets it.
func (e *Engine) Lock() sync.Locker { return &e.mu }
