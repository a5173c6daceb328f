package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/store"
)

const (
	account  = "test/bot"
	patience = 10 * time.Second
)

// network takes messages and fails as it is told.
type network struct {
	limits platform.Limits
	mu     sync.Mutex
	got    []string // chat: text
	at     []time.Time
	fail   func(n int, m platform.Outbound) error // of the n-th call
	lost   bool                                   // a failed call arrives all the same
	calls  int
	news   chan struct{}
}

func (n *network) Account() string         { return account }
func (n *network) Limits() platform.Limits { return n.limits }

func (n *network) Send(_ context.Context, m platform.Outbound) (platform.Receipt, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	var err error
	if n.fail != nil {
		err = n.fail(n.calls, m)
	}
	if err == nil || n.lost {
		n.got = append(n.got, m.Chat+": "+m.Text)
		n.at = append(n.at, time.Now())
	}
	select {
	case n.news <- struct{}{}:
	default:
	}
	return platform.Receipt{ID: fmt.Sprint("r", n.calls)}, err
}

func (n *network) wait(t *testing.T, count int) []string {
	t.Helper()
	deadline := time.After(patience)
	for {
		n.mu.Lock()
		got := slices.Clone(n.got)
		n.mu.Unlock()
		if len(got) >= count {
			return got
		}
		select {
		case <-n.news:
		case <-deadline:
			t.Fatalf("%d of %d messages arrived: %q", len(got), count, got)
		}
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

func dbPath(t *testing.T) string { return filepath.Join(t.TempDir(), store.FileName) }

// send starts an outbox and returns what ends it. It sends as a network that can
// edit, if one is given.
func send(t *testing.T, db *store.Store, n *network, editor ...*editing) (*outbox.Outbox, func()) {
	t.Helper()
	n.news = make(chan struct{}, 1)
	o := outbox.Options{Store: db, Sender: n}
	for _, e := range editor {
		o.Sender, o.Observe = e, e
	}
	b, err := outbox.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return b, stop
}

func part(id, chat, text string) outbox.Part {
	return outbox.Part{
		Delivery: id, Message: "msg_" + id, Address: outbox.Address{Account: account, Chat: chat},
		Part: 1, Parts: 1, Text: text, Created: time.Now(),
	}
}

func put(t *testing.T, db *store.Store, b *outbox.Outbox, parts ...outbox.Part) {
	t.Helper()
	if err := db.Enqueue(t.Context(), parts); err != nil {
		t.Fatal(err)
	}
	if b != nil {
		b.Wake()
	}
}

// state waits until the one part of a message is in a state that stays.
func state(t *testing.T, db *store.Store, id string) outbox.Part {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		list, err := db.Deliveries(t.Context(), "msg_"+id)
		if err != nil || len(list) != 1 {
			t.Fatalf("%v %v", list, err)
		}
		if list[0].State == outbox.Sent || list[0].State == outbox.Dead {
			return list[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s", id, list[0].State)
		}
	}
}

func TestPartsOfAChatGoInOrderAndChatsSideBySide(t *testing.T) {
	db, n := open(t, dbPath(t)), &network{}
	n.fail = func(_ int, m platform.Outbound) error {
		if m.Chat == "slow" {
			return &platform.SendError{Fate: platform.Retry, After: time.Hour, Err: errors.New("later")}
		}
		return nil
	}
	put(t, db, nil, part("s", "slow", "never comes"))
	for i := range 5 {
		put(t, db, nil, part(fmt.Sprint("a", i), "a", fmt.Sprint(i)))
	}
	b, _ := send(t, db, n)
	put(t, db, b, part("b", "b", "x"))
	got := n.wait(t, 6)
	var a []string
	for _, m := range got {
		if text, ok := strings.CutPrefix(m, "a: "); ok {
			a = append(a, text)
		}
	}
	if strings.Join(a, "") != "01234" || !slices.Contains(got, "b: x") {
		t.Errorf("%q", got)
	}
	if p := state(t, db, "b"); p.Receipt == "" || p.Attempts != 1 {
		t.Errorf("%+v", p)
	}
	for deadline := time.Now().Add(patience); b.Open() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d open", b.Open())
		}
	}
}

func TestRetryAfterIsHonouredExactly(t *testing.T) {
	const after = 300 * time.Millisecond
	for name, wholeAccount := range map[string]bool{"a chat": false, "the account": true} {
		t.Run(name, func(t *testing.T) {
			db, n := open(t, dbPath(t)), &network{}
			var refused time.Time
			n.fail = func(call int, _ platform.Outbound) error {
				if call > 1 {
					return nil
				}
				refused = time.Now()
				return &platform.SendError{Fate: platform.Retry, After: after, Account: wholeAccount, Err: errors.New("429")}
			}
			b, _ := send(t, db, n)
			put(t, db, b, part("1", "a", "1"))
			if wholeAccount {
				<-n.news
				put(t, db, b, part("2", "b", "2"))
				n.wait(t, 2)
			}
			n.wait(t, 1)
			for _, at := range n.at {
				if early := refused.Add(after).Sub(at); early > 0 {
					t.Errorf("sent %s too early", early)
				}
			}
			if p := state(t, db, "1"); p.Attempts != 2 || len(p.Tries) != 2 || p.Tries[0].Error != "429" {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestWhatIsRefusedForEverIsDeadAndTheNextOneGoes(t *testing.T) {
	db, n := open(t, dbPath(t)), &network{}
	n.fail = func(_ int, m platform.Outbound) error {
		if m.Text == "bad" {
			return &platform.SendError{Fate: platform.Never, Err: errors.New("no such channel")}
		}
		return nil
	}
	b, _ := send(t, db, n)
	put(t, db, b, part("1", "a", "bad"), part("2", "a", "good"))
	if p := state(t, db, "1"); p.State != outbox.Dead || p.Error != "no such channel" || p.Attempts != 1 {
		t.Errorf("%+v", p)
	}
	if got := n.wait(t, 1); got[0] != "a: good" {
		t.Errorf("%q", got)
	}
}

// answer is many parts that are committed together.
func answer(id, chat string, texts ...string) []outbox.Part {
	now := time.Now()
	var parts []outbox.Part
	for i, text := range texts {
		p := part(fmt.Sprint(id, "-", i+1), chat, text)
		p.Message, p.Part, p.Parts, p.Created = "msg_"+id, i+1, len(texts), now
		parts = append(parts, p)
	}
	return parts
}

// told counts what an observer is told.
type told struct {
	mu             sync.Mutex
	sent, dead     int
	shown, dropped int // previews
}

func (o *told) Delivered(_ string, _ time.Duration, sent, _ bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if sent {
		o.sent++
	} else {
		o.dead++
	}
}

func (o *told) Previewed(_ string, sent bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if sent {
		o.shown++
	} else {
		o.dropped++
	}
}

// Who leaves in the middle of a long answer: what is left of it is one dead
// letter, of which the rest is not tried; other answers go their way.
func TestAnAnswerIsGivenUpAsOne(t *testing.T) {
	db, n, o := open(t, dbPath(t)), &network{news: make(chan struct{}, 1)}, &told{}
	n.fail = func(_ int, m platform.Outbound) error {
		if m.Chat == "gone" && m.Text != "1" && m.Text != "next" {
			return &platform.SendError{Fate: platform.Never, Err: errors.New("no such nick")}
		}
		return nil
	}
	put(t, db, nil, answer("long", "gone", "1", "2", "3", "4", "5")...)
	put(t, db, nil, answer("next", "gone", "next")...)
	put(t, db, nil, answer("other", "other", "a", "b")...)
	b, err := outbox.New(outbox.Options{Store: db, Sender: n, Observe: o})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	n.wait(t, 4)
	for deadline := time.Now().Add(patience); b.Open() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d open", b.Open())
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n.calls != 5 || o.sent != 4 || o.dead != 4 {
		t.Errorf("%d calls, told of %d sent and %d given up", n.calls, o.sent, o.dead)
	}
	dead, err := db.DeadAnswers(t.Context(), 10)
	if err != nil || len(dead) != 1 || len(dead[0]) != 4 {
		t.Fatalf("%+v %v", dead, err)
	}
	for i, p := range dead[0] {
		if p.Text != fmt.Sprint(i+2) || p.Unsure || !p.Finished.Equal(dead[0][0].Finished) {
			t.Errorf("part %d of the letter: %+v", i, p)
		}
	}
	if d, err := db.Dead(t.Context()); err != nil || d.Deliveries != 1 {
		t.Errorf("%+v %v", d, err)
	}
	if p := dead[0][3]; p.Attempts != 0 || p.Error != "not tried after part 2 of 5, long-2: no such nick" {
		t.Errorf("the last part: %+v", p)
	}
}

// A text that a platform refuses says nothing about the next.
func TestARefusedTextIsDeadAlone(t *testing.T) {
	db, n := open(t, dbPath(t)), &network{}
	n.fail = func(_ int, m platform.Outbound) error {
		if m.Text == "bad" {
			return &platform.SendError{Fate: platform.Never, Text: true, Err: errors.New("no text")}
		}
		return nil
	}
	put(t, db, nil, answer("a", "a", "1", "bad", "3")...)
	send(t, db, n)
	if got := n.wait(t, 2); strings.Join(got, " ") != "a: 1 a: 3" {
		t.Errorf("%q", got)
	}
}

// A try that may have arrived is made again under a label, unless the network
// drops the second one itself.
func TestUnsureIsLabelledOrHarmless(t *testing.T) {
	for name, dedupes := range map[string]bool{"labelled": false, "harmless": true} {
		t.Run(name, func(t *testing.T) {
			db, n := open(t, dbPath(t)), &network{lost: true, limits: platform.Limits{Dedupes: dedupes}}
			n.fail = func(call int, _ platform.Outbound) error {
				if call == 1 {
					return errors.New("connection reset")
				}
				return nil
			}
			b, _ := send(t, db, n)
			put(t, db, b, part("1", "a", "x"))
			got := n.wait(t, 2)
			want, duplicates := "a: "+outbox.RepeatMark+"x", int64(1)
			if dedupes {
				want, duplicates = "a: x", 0
			}
			if got[0] != "a: x" || got[1] != want {
				t.Errorf("%q", got)
			}
			state(t, db, "1")
			if tally, err := db.Tally(t.Context()); err != nil || tally.Duplicates != duplicates {
				t.Errorf("%+v %v", tally, err)
			}
		})
	}
}

// A process that ended while it was sending: the next one cannot know.
func TestCrashInTheUnknownWindow(t *testing.T) {
	path := dbPath(t)
	db := open(t, path)
	put(t, db, nil, part("1", "a", "x"), part("2", "a", "y"))
	if err := db.Trying(t.Context(), 1); err != nil { // and then it died
		t.Fatal(err)
	}
	db.Close()
	db, n := open(t, path), &network{}
	send(t, db, n)
	if got := n.wait(t, 2); got[0] != "a: "+outbox.RepeatMark+"x" || got[1] != "a: y" {
		t.Errorf("%q", got)
	}
}

// The clock was a day ahead when a try failed, and was set right before the process
// began anew: the part waits as long as it was told to, not for a day.
func TestClockSetBackHoldsNoDelivery(t *testing.T) {
	path := dbPath(t)
	db := open(t, path)
	put(t, db, nil, part("1", "a", "x"))
	list, err := db.Deliveries(t.Context(), "msg_1")
	if err != nil || len(list) != 1 {
		t.Fatalf("%v %v", list, err)
	}
	p, failed := list[0], time.Now().Add(24*time.Hour)
	p.State, p.NotBefore, p.Tries = outbox.Pending, failed.Add(100*time.Millisecond), []outbox.Try{{At: failed, Error: "not connected"}}
	if err := db.Tried(t.Context(), p, false); err != nil {
		t.Fatal(err)
	}
	db.Close()
	db, n := open(t, path), &network{}
	began := time.Now()
	send(t, db, n)
	n.wait(t, 1)
	if took := n.at[0].Sub(began); took < 100*time.Millisecond {
		t.Errorf("sent after %s already", took)
	}
}

func TestPaceOfTheNetworkIsKept(t *testing.T) {
	const pause = 40 * time.Millisecond
	db, n := open(t, dbPath(t)), &network{limits: platform.Limits{PerAccount: pause, Burst: 3}}
	b, _ := send(t, db, n)
	began := time.Now()
	for i := range 8 {
		put(t, db, b, part(fmt.Sprint(i), fmt.Sprint("chat", i), "x"))
	}
	n.wait(t, 8)
	if took := n.at[7].Sub(began); took < 5*pause {
		t.Errorf("eight in %s", took)
	}
}

func TestStopBetweenTriesLosesNothing(t *testing.T) {
	path := dbPath(t)
	db := open(t, path)
	n := &network{fail: func(int, platform.Outbound) error {
		return &platform.SendError{Fate: platform.Retry, Err: errors.New("not connected")}
	}}
	b, stop := send(t, db, n)
	put(t, db, b, part("1", "a", "x"))
	<-n.news
	stop()
	db.Close()
	db, n = open(t, path), &network{}
	send(t, db, n)
	if got := n.wait(t, 1); got[0] != "a: x" { // surely not sent before: no label
		t.Errorf("%q", got)
	}
}
