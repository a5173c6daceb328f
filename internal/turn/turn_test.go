package turn_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/turn"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// brain answers as a test wants.
type brain func(ctx context.Context, t agent.Turn) (agent.Result, error)

func (b brain) Answer(ctx context.Context, t agent.Turn) (agent.Result, error) { return b(ctx, t) }

// echo answers at once with the last thing said.
func echo(_ context.Context, t agent.Turn) (agent.Result, error) {
	text := "re: " + t.News[len(t.News)-1].Text
	if err := t.Out.Delta(text); err != nil {
		return agent.Result{}, err
	}
	return agent.Result{Reply: chat.Reply{Text: text, Finish: chat.FinishStop}, Model: "echo"}, nil
}

// held answers like echo, each turn when it is let go.
type held struct {
	began chan string
	let   chan struct{}
}

func newHeld() held { return held{make(chan string, 100), make(chan struct{})} }

func (h held) Answer(ctx context.Context, t agent.Turn) (agent.Result, error) {
	h.began <- t.News[len(t.News)-1].Text
	select {
	case <-h.let:
		return echo(ctx, t)
	case <-ctx.Done():
		return agent.Result{}, ctx.Err()
	}
}

func open(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func start(t *testing.T, db *store.Store, a turn.Answerer, change ...func(*turn.Options)) *turn.Engine {
	t.Helper()
	o := turn.Options{Journal: db, Agent: a}
	for _, f := range change {
		f(&o)
	}
	e, err := turn.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Abort)
	return e
}

func message(id, chatKey, text string) turn.Message {
	return turn.Message{
		ID: id, Account: "test", External: id, Chat: chatKey, Session: chatKey,
		Ask: turn.Ask{Messages: []chat.Message{{Role: chat.User, Text: text}}},
	}
}

func accept(t *testing.T, e *turn.Engine, m turn.Message) *turn.Live {
	t.Helper()
	_, live, fresh, err := e.Accept(t.Context(), m)
	if err != nil || !fresh {
		t.Fatalf("accepting %s: fresh %v, %v", m.ID, fresh, err)
	}
	return live
}

func wait(t *testing.T, l *turn.Live) turn.Progress {
	t.Helper()
	deadline := time.After(patience)
	for {
		p := l.Since(0)
		if p.Done {
			return p
		}
		select {
		case <-p.Wake:
		case <-deadline:
			t.Fatalf("%s is still %s", l.ID(), p.Message.State)
		}
	}
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func balanced(t *testing.T, n turn.Tally) {
	t.Helper()
	if n.Received != n.Answered+n.Failed+n.Queued+n.Running {
		t.Errorf("received is not the sum of the others: %+v", n)
	}
}

func TestTheSameMessageIsAcceptedOnce(t *testing.T) {
	h := newHeld()
	db := open(t, filepath.Join(t.TempDir(), store.FileName))
	e := start(t, db, h)
	m := message("msg_1", "c", "hello")
	m.Digest = turn.DigestOf("hello")
	first := accept(t, e, m)
	again := m
	again.ID = "msg_2"
	kept, live, fresh, err := e.Accept(t.Context(), again)
	if err != nil || fresh || live != first || kept.ID != "msg_1" {
		t.Errorf("while it is open: %s, fresh %v, the same %v, %v", kept.ID, fresh, live == first, err)
	}
	h.let <- struct{}{}
	wait(t, first)
	kept, live, fresh, err = e.Accept(t.Context(), again)
	if err != nil || fresh || live != nil || kept.Reply.Text != "re: hello" {
		t.Errorf("when it has ended: %+v, fresh %v, live %v, %v", kept, fresh, live, err)
	}
	again.Digest = turn.DigestOf("something else")
	if _, _, _, err := e.Accept(t.Context(), again); !errors.Is(err, turn.ErrConflict) {
		t.Errorf("another request under the same key: %v", err)
	}
	if n := e.Tally(); n.Received != 1 || n.Answered != 1 {
		t.Errorf("counted %+v", n)
	}
}

// Many writers to few chats: in each chat the order of the turns is that of
// acceptance, one at a time, whatever the interleaving.
func TestOrderInAChatIsThatOfAcceptance(t *testing.T) {
	var mu sync.Mutex
	ran := map[string][]string{}
	busy := map[string]bool{}
	db := open(t, filepath.Join(t.TempDir(), store.FileName))
	e := start(t, db, brain(func(ctx context.Context, at agent.Turn) (agent.Result, error) {
		mu.Lock()
		if busy[at.Session] {
			t.Errorf("two turns of %s at once", at.Session)
		}
		busy[at.Session] = true
		ran[at.Session] = append(ran[at.Session], at.News[0].Text)
		mu.Unlock()
		r, err := echo(ctx, at)
		mu.Lock()
		busy[at.Session] = false
		mu.Unlock()
		return r, err
	}))
	var writers sync.WaitGroup
	var lives sync.Map
	for w := range 8 {
		writers.Go(func() {
			for i := range 20 {
				id := fmt.Sprintf("msg_%d_%d", w, i)
				lives.Store(id, accept(t, e, message(id, fmt.Sprintf("chat%d", i%3), id)))
			}
		})
	}
	writers.Wait()
	lives.Range(func(_, l any) bool { wait(t, l.(*turn.Live)); return true })
	for session, texts := range ran {
		var last int64
		for _, id := range texts {
			m, err := db.Message(t.Context(), id)
			if err != nil || m.Seq <= last || m.State != turn.Answered {
				t.Errorf("%s: %s is number %d after %d, %s, %v", session, id, m.Seq, last, m.State, err)
			}
			last = m.Seq
		}
	}
	if n := e.Tally(); n.Answered != 160 {
		t.Errorf("counted %+v", n)
	}
}

func TestAnotherProcessAnswersWhatOneLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), store.FileName)
	db := open(t, path)
	h := newHeld()
	e := start(t, db, h)
	running := accept(t, e, message("msg_1", "c", "first"))
	queued := accept(t, e, message("msg_2", "c", strings.Repeat("long ", 2000)))
	receive(t, h.began)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if left := e.Drain(ctx); left != 1 {
		t.Errorf("%d turns were cut", left)
	}
	for _, l := range []*turn.Live{running, queued} {
		if p := wait(t, l); !errors.Is(p.Err, turn.ErrLeft) || p.Message.State.Ended() {
			t.Errorf("%s: %s, %v", l.ID(), p.Message.State, p.Err)
		}
	}
	balanced(t, e.Tally())
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	e = start(t, db, brain(echo))
	for _, id := range []string{"msg_1", "msg_2"} {
		if l := e.Live(id); l != nil {
			wait(t, l)
		}
		m, err := db.Message(t.Context(), id)
		if err != nil || m.State != turn.Answered || !strings.HasPrefix(m.Reply.Text, "re: ") {
			t.Errorf("%s: %s %q, %v", id, m.State, m.Reply.Text, err)
		}
		if m.Attempts-m.Released != 1 {
			t.Errorf("%s was tried %d times, left %d times: a drain is no crash", id, m.Attempts, m.Released)
		}
	}
	history, err := db.History(t.Context(), "c")
	if err != nil || len(history) != 4 || history[0].Text != "first" || history[1].Text != "re: first" {
		t.Errorf("the conversation: %v, %v", history, err)
	}
}

func TestDrainGoesOnWithWhatSomebodyWaitsFor(t *testing.T) {
	h := newHeld()
	e := start(t, open(t, filepath.Join(t.TempDir(), store.FileName)), h)
	accept(t, e, message("msg_1", "c", "first"))
	awaited := accept(t, e, message("msg_2", "c", "second"))
	defer awaited.Watch()()
	other := accept(t, e, message("msg_3", "c", "third"))
	receive(t, h.began)
	drained := make(chan int, 1)
	go func() { drained <- e.Drain(t.Context()) }()
	for !e.Closed() {
		time.Sleep(time.Millisecond)
	}
	h.let <- struct{}{}
	h.let <- struct{}{}
	if left := receive(t, drained); left != 0 {
		t.Errorf("%d cut", left)
	}
	if p := wait(t, awaited); p.Err != nil {
		t.Errorf("who was waited for got %v", p.Err)
	}
	if p := wait(t, other); !errors.Is(p.Err, turn.ErrLeft) {
		t.Errorf("who was not got %v", p.Err)
	}
	if _, _, _, err := e.Accept(t.Context(), message("msg_4", "c", "late")); !errors.Is(err, turn.ErrDraining) {
		t.Errorf("a late one got %v", err)
	}
}

// A turn that was under way at the end of three processes is set aside; others
// go on, and the peer is told.
func TestPoisonIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), store.FileName)
	db := open(t, path)
	poison := message("msg_poison", "c", "poison")
	poison.Ask.To = outbox.Address{Account: "irc/x", Chat: "alice"}
	for i, m := range []turn.Message{poison, message("msg_next", "c", "next"), message("msg_else", "d", "else")} {
		if _, fresh, err := db.Accept(t.Context(), m, func(turn.Message) {}); err != nil || !fresh {
			t.Fatalf("%d: %v %v", i, fresh, err)
		}
	}
	for want := 1; want <= turn.MaxAttempts; want++ { // as three processes do that die of it
		if n, err := db.Begin(t.Context(), 1, time.Now()); err != nil || n != want {
			t.Fatalf("attempt %d: %d, %v", want, n, err)
		}
	}
	var told string
	e := start(t, db, brain(echo), func(o *turn.Options) {
		o.Parts = func(m turn.Message, text string) []outbox.Part {
			told = m.ID + ": " + text
			return []outbox.Part{{Delivery: "dlv_1", Message: m.ID, Address: m.Ask.To, Part: 1, Parts: 1, Text: text}}
		}
	})
	for _, id := range []string{"msg_next", "msg_else"} {
		if l := e.Live(id); l != nil {
			wait(t, l)
		}
		if m, err := db.Message(t.Context(), id); err != nil || m.State != turn.Answered {
			t.Errorf("%s: %s %v", id, m.State, err)
		}
	}
	m, err := db.Message(t.Context(), "msg_poison")
	if err != nil || m.State != turn.Failed || m.Reason != turn.Crashed {
		t.Errorf("%s %s %v", m.State, m.Reason, err)
	}
	if !strings.HasPrefix(told, "msg_poison: Sorry") {
		t.Errorf("the peer was told %q", told)
	}
	if n := e.Tally(); n.Failed != 1 || n.Answered != 2 || n.Received != 3 {
		t.Errorf("counted %+v", n)
	}
}

func TestStopEndsWhatRunsAndWhatWaits(t *testing.T) {
	h := newHeld()
	db := open(t, filepath.Join(t.TempDir(), store.FileName))
	e := start(t, db, h)
	lives := []*turn.Live{
		accept(t, e, message("msg_1", "c", "runs")), accept(t, e, message("msg_2", "c", "waits")),
	}
	receive(t, h.began)
	if n := e.StopChat("c"); n != 2 {
		t.Errorf("stopped %d", n)
	}
	for _, l := range lives {
		if p := wait(t, l); p.Message.State != turn.Failed || p.Message.Reason != turn.Cancelled {
			t.Errorf("%s: %s %s", l.ID(), p.Message.State, p.Message.Reason)
		}
	}
	if e.Stop("msg_1") {
		t.Error("what had ended was stopped")
	}
	last := accept(t, e, message("msg_3", "c", "after"))
	receive(t, h.began)
	h.let <- struct{}{}
	if p := wait(t, last); p.Err != nil {
		t.Errorf("the next one: %v", p.Err)
	}
	balanced(t, e.Tally())
}

// A message that has its place in the chat, and waits for one among all chats, is
// stopped like any other: it was answered all the same.
func TestStopBeforeATurnBeginsIsKept(t *testing.T) {
	synctest.Test(t, stopBeforeATurnBegins)
}

func stopBeforeATurnBegins(t *testing.T) {
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), store.FileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	h := newHeld()
	e := start(t, db, h, func(o *turn.Options) { o.MaxRunning = 1 })
	first := accept(t, e, message("msg_1", "c", "first"))
	receive(t, h.began)
	second := accept(t, e, message("msg_2", "d", "second"))
	synctest.Wait() // until it waits for its place
	if n := e.StopChat("d"); n != 1 {
		t.Errorf("stopped %d", n)
	}
	h.let <- struct{}{}
	wait(t, first)
	if p := wait(t, second); p.Message.Reason != turn.Cancelled || len(h.began) > 0 {
		t.Errorf("%s %s, the model was asked: %v", p.Message.State, p.Message.Reason, len(h.began) > 0)
	}
	balanced(t, e.Tally())
}

// stoppedAtRead is a journal that somebody stops a message of while it is read.
type stoppedAtRead struct {
	*store.Store
	stop func(id string)
}

func (j *stoppedAtRead) Message(ctx context.Context, id string) (turn.Message, error) {
	j.stop(id)
	return j.Store.Message(ctx, id)
}

// A long text is not held in memory while it waits. A stop while it is read again
// ended the message without its number, which no journal takes: its chat hung.
func TestStopWhileAMessageIsRead(t *testing.T) {
	db, h := &stoppedAtRead{Store: open(t, filepath.Join(t.TempDir(), store.FileName))}, newHeld()
	e := start(t, db.Store, h, func(o *turn.Options) { o.Journal = db })
	db.stop = func(id string) { e.Stop(id) }
	first := accept(t, e, message("msg_1", "c", "first"))
	long := accept(t, e, message("msg_2", "c", strings.Repeat("long ", 2000)))
	receive(t, h.began)
	h.let <- struct{}{}
	wait(t, first)
	if p := wait(t, long); p.Message.Reason != turn.Cancelled {
		t.Errorf("%s %s", p.Message.State, p.Message.Reason)
	}
	balanced(t, e.Tally())
}

func TestInterruptKeepsWhatWasSaid(t *testing.T) {
	h := newHeld()
	db := open(t, filepath.Join(t.TempDir(), store.FileName))
	e := start(t, db, h)
	first := accept(t, e, message("msg_1", "c", "first"))
	receive(t, h.began)
	second := accept(t, e, message("msg_2", "c", "second"))
	e.Interrupt("c")
	wait(t, first)
	receive(t, h.began)
	h.let <- struct{}{}
	wait(t, second)
	history, err := db.History(t.Context(), "c")
	if err != nil || len(history) != 3 || history[0].Text != "first" || history[1].Text != "second" {
		t.Errorf("%v %v", history, err)
	}
}

// A burst of one sender on a platform is answered together.
func TestBurstIsMerged(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), store.FileName))
	var saw []chat.Message
	e := start(t, db, brain(func(ctx context.Context, at agent.Turn) (agent.Result, error) {
		saw = at.News
		return echo(ctx, at)
	}), func(o *turn.Options) { o.Merge = time.Second })
	var lives []*turn.Live
	for i := range 3 {
		m := message(fmt.Sprintf("msg_%d", i), "irc/alice", fmt.Sprintf("part %d", i))
		m.Sender, m.Ask.To = "alice", outbox.Address{Account: "irc/x", Chat: "alice"}
		lives = append(lives, accept(t, e, m))
	}
	for i, l := range lives {
		p := wait(t, l)
		if p.Err != nil || p.Message.State != turn.Answered || (p.Message.Joined == "") != (i == 0) {
			t.Errorf("%d: %+v", i, p.Message)
		}
	}
	if len(saw) != 3 {
		t.Errorf("the model saw %v", saw)
	}
	m, err := db.Message(t.Context(), "msg_2")
	if err != nil || m.Joined != "msg_0" || m.Reply.Text != "re: part 2" {
		t.Errorf("%+v %v", m, err)
	}
	if n := e.Tally(); n.Received != 3 || n.Answered != 3 {
		t.Errorf("counted %+v", n)
	}
}

// What is replayed failed before: each is a turn of its own, and fails alone.
func TestReplaysAreNotMerged(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), store.FileName))
	e := start(t, db, brain(func(ctx context.Context, at agent.Turn) (agent.Result, error) {
		if at.News[0].Text == "poison" {
			return agent.Result{}, errors.New("poisoned")
		}
		return echo(ctx, at)
	}), func(o *turn.Options) { o.Merge = time.Second })
	var lives []*turn.Live
	for i, text := range []string{"poison", "good", "good too"} {
		m := message(fmt.Sprintf("msg_%d", i), "irc/alice", text)
		m.Sender, m.Ask.To = "alice", outbox.Address{Account: "irc/x", Chat: "alice"}
		if i < 2 {
			m.ReplayOf = fmt.Sprintf("msg_old%d", i)
		}
		lives = append(lives, accept(t, e, m))
	}
	for i, want := range []turn.State{turn.Failed, turn.Answered, turn.Answered} {
		if p := wait(t, lives[i]); p.Message.State != want || p.Message.Joined != "" {
			t.Errorf("%d: %+v, want it %s by itself", i, p.Message, want)
		}
	}
}

// The clock was a day ahead when a message was accepted, and was set right before
// the process began anew: it is answered now, not in a day.
func TestClockSetBackHoldsNoTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), store.FileName)
	db := open(t, path)
	h := newHeld()
	merge := func(o *turn.Options) { o.Merge = 10 * time.Millisecond }
	e := start(t, db, h, merge)
	m := message("msg_1", "irc/alice", "hello")
	m.Sender, m.Ask.To, m.Received = "alice", outbox.Address{Account: "irc/x", Chat: "alice"}, time.Now().Add(24*time.Hour)
	l := accept(t, e, m)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	e.Drain(ctx)
	wait(t, l)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	e = start(t, db, brain(echo), merge)
	if l := e.Live("msg_1"); l != nil {
		wait(t, l)
	}
	if m, err := db.Message(t.Context(), "msg_1"); err != nil || m.State != turn.Answered || time.Until(m.Received) < 23*time.Hour {
		t.Errorf("%+v, %v", m, err)
	}
}

// full is a journal on a disk that is full for a while: left writes fail. With
// late, a failed Finish was done all the same.
type full struct {
	*store.Store
	mu   sync.Mutex
	left int
	late bool
}

func (f *full) fails() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left--
	return f.left >= 0
}

func (f *full) Begin(ctx context.Context, seq int64, at time.Time) (int, error) {
	if !f.late && f.fails() {
		return 0, errors.New("disk full")
	}
	return f.Store.Begin(ctx, seq, at)
}

func (f *full) Finish(ctx context.Context, o turn.Outcome, after func()) error {
	if !f.fails() {
		return f.Store.Finish(ctx, o, after)
	}
	if f.late {
		return errors.Join(f.Store.Finish(ctx, o, func() {}), errors.New("flush failed"))
	}
	return errors.New("disk full")
}

func TestAcceptedMessageWaitsForTheDisk(t *testing.T) {
	for name, c := range map[string]struct {
		left, broken int
		late         bool
	}{"full for a while": {3, 3, false}, "done, and reported as failed": {1, 0, true}} {
		t.Run(name, func(t *testing.T) {
			db := open(t, filepath.Join(t.TempDir(), store.FileName))
			calls, broken := 0, 0
			e := start(t, db, brain(func(ctx context.Context, at agent.Turn) (agent.Result, error) {
				calls++
				return echo(ctx, at)
			}), func(o *turn.Options) {
				o.Journal = &full{Store: db, left: c.left, late: c.late}
				o.Broken = func() { broken++ }
			})
			p := wait(t, accept(t, e, message("msg_1", "c", "x")))
			if p.Err != nil || calls != 1 || broken != c.broken {
				t.Errorf("%v after %d calls, told of %d failures", p.Err, calls, broken)
			}
			if n := e.Tally(); n.Answered != 1 || n.Running != 0 {
				t.Errorf("counted %+v", n)
			}
		})
	}
}

func TestLongAnswersAreSpooled(t *testing.T) {
	piece := strings.Repeat("0123456789abcdef", 1<<10) // 16 KiB
	e := start(t, open(t, filepath.Join(t.TempDir(), store.FileName)), brain(func(_ context.Context, at agent.Turn) (agent.Result, error) {
		for range 3 {
			if err := at.Out.Delta("void"); err != nil {
				return agent.Result{}, err
			}
			at.Out.Restart()
		}
		for range 10 {
			if err := at.Out.Delta(piece); err != nil {
				return agent.Result{}, err
			}
		}
		return agent.Result{Reply: chat.Reply{Text: strings.Repeat(piece, 10), Finish: chat.FinishStop}}, nil
	}))
	l := accept(t, e, message("msg_1", "c", "x"))
	defer l.Watch()()
	p := wait(t, l)
	if p.Delta != strings.Repeat(piece, 10) || p.Restarts != 3 {
		t.Errorf("%d bytes after %d restarts", len(p.Delta), p.Restarts)
	}
	if got := l.Since(len(piece) + 7).Delta; got != p.Delta[len(piece)+7:] {
		t.Errorf("from the middle: %d bytes", len(got))
	}
}

func TestBugOfAModelFailsOneTurn(t *testing.T) {
	e := start(t, open(t, filepath.Join(t.TempDir(), store.FileName)), brain(func(ctx context.Context, at agent.Turn) (agent.Result, error) {
		if at.News[0].Text == "bug" {
			panic("a bug")
		}
		return echo(ctx, at)
	}))
	bad, good := accept(t, e, message("msg_1", "c", "bug")), accept(t, e, message("msg_2", "c", "fine"))
	if p := wait(t, bad); p.Message.Reason != turn.Internal {
		t.Errorf("%+v", p.Message)
	}
	if p := wait(t, good); p.Err != nil {
		t.Error(p.Err)
	}
}

// An open message that nobody answers here must not look like an empty answer.
func TestOpenMessageIsNoAnswer(t *testing.T) {
	for state, left := range map[turn.State]bool{turn.Queued: true, turn.Running: true, turn.Answered: false, turn.Failed: false} {
		p := turn.Ended(turn.Message{State: state}, 0)
		if errors.Is(p.Err, turn.ErrLeft) != left || !p.Done {
			t.Errorf("%s: done %v, %v", state, p.Done, p.Err)
		}
	}
}
