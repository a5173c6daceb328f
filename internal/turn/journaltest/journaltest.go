// Package journaltest is the conformance suite of turn.Journal and outbox.Store:
// what every memory must do that turns and deliveries are trusted to. It opens
// the same journal again and again, as one process after another does.
//
//	journaltest.Run(t, func(t *testing.T, dir string) journaltest.Journal { … })
package journaltest

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/turn"
)

// Journal is what is tested.
type Journal interface {
	turn.Journal
	outbox.Store
	Close() error
}

// Open opens the journal in dir, which is empty at the first time.
type Open func(t *testing.T, dir string) Journal

// Run runs the whole suite.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, *subject){
		"a message is accepted once":                  acceptedOnce,
		"after is called in the order of Seq":         orderOfAfter,
		"what is open is there for the next process":  openAgain,
		"an attempt is counted and can be left":       attempts,
		"an outcome is kept whole":                    outcomeWhole,
		"an outcome is kept once":                     outcomeOnce,
		"a failed turn says why and adds nothing":     failed,
		"merged messages end with the turn they join": merged,
		"history is read backwards in pages":          pages,
		"a summary is kept":                           summary,
		"a preview is kept":                           previewed,
		"what is taken back is not read":              takenBack,
		"parts are sent in order and remembered":      parts,
		"an unknown message is unknown":               unknown,
		"a closed journal takes nothing":              closed,
	} {
		t.Run(name, func(t *testing.T) {
			s := &subject{t: t, open: open, dir: t.TempDir()}
			s.Journal = open(t, s.dir)
			t.Cleanup(func() { s.Close() })
			test(t, s)
		})
	}
}

// subject is a journal under test that can be opened again.
type subject struct {
	Journal
	t    *testing.T
	open Open
	dir  string
}

func (s *subject) reopen() {
	s.t.Helper()
	if err := s.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.Journal = s.open(s.t, s.dir)
}

func message(id string) turn.Message {
	temperature := 0.5
	return turn.Message{
		ID: id, Account: "a", External: id, Digest: "d", Chat: "p/c", Session: "s", Sender: "alice", Behind: 2,
		Received: time.Now().UTC().Truncate(time.Microsecond),
		Ask: turn.Ask{
			Messages: []chat.Message{{Role: chat.User, Text: "hello \x00 🙂"}}, System: []chat.Message{{Role: chat.System, Text: "be brief"}},
			Temperature: &temperature, Stop: []string{"x"}, To: outbox.Address{Account: "a", Chat: "c", Thread: "t", ReplyTo: "r"},
		},
	}
}

func (s *subject) accept(m turn.Message) turn.Message {
	s.t.Helper()
	kept, fresh, err := s.Accept(s.t.Context(), m, func(turn.Message) {})
	if err != nil || !fresh {
		s.t.Fatalf("accepting %s: fresh %v, %v", m.ID, fresh, err)
	}
	return kept
}

func (s *subject) get(id string) turn.Message {
	s.t.Helper()
	m, err := s.Message(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *subject) finish(o turn.Outcome) {
	s.t.Helper()
	called := false
	if err := s.Finish(s.t.Context(), o, func() { called = true }); err != nil || !called {
		s.t.Fatalf("finishing: after called %v, %v", called, err)
	}
}

// tally checks the counts and that they add up.
func (s *subject) tally(want turn.Tally) {
	s.t.Helper()
	got, err := s.Tally(s.t.Context())
	if err != nil || got != want || got.Received != got.Answered+got.Failed+got.Queued+got.Running {
		s.t.Errorf("tally %+v, want %+v, %v", got, want, err)
	}
}

func answered(m turn.Message, text string) turn.Outcome {
	return turn.Outcome{
		Seq: m.Seq, State: turn.Answered, Session: m.Session, At: time.Now().UTC().Truncate(time.Microsecond), Attempt: 1,
		News:  []chat.Message{{Role: chat.User, Text: "hello"}, {Role: chat.Assistant, Text: text}},
		Reply: turn.Reply{Text: text, Finish: chat.FinishStop, Usage: chat.Usage{Input: 3, Output: 4}, Model: "m"},
	}
}

func acceptedOnce(t *testing.T, s *subject) {
	want := message("msg_1")
	kept := s.accept(want)
	want.Seq, want.State = kept.Seq, turn.Queued
	if got := s.get("msg_1"); kept.Seq < 1 || !reflect.DeepEqual(got, want) {
		t.Errorf("kept\n%+v, want\n%+v", got, want)
	}
	again := message("msg_2")
	again.External = want.External
	for range 2 {
		got, fresh, err := s.Accept(t.Context(), again, func(turn.Message) { t.Error("after for a message that is known") })
		if err != nil || fresh || got.ID != "msg_1" {
			t.Errorf("again: %s, fresh %v, %v", got.ID, fresh, err)
		}
		s.reopen()
	}
	other := message("msg_3")
	other.External, other.Account = want.External, "b" // ids are unique within an account
	s.accept(other)
	s.tally(turn.Tally{Received: 2, Queued: 2})
}

func orderOfAfter(t *testing.T, s *subject) {
	var seqs []int64 // guarded by the promise that is tested
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 10 {
				_, _, err := s.Accept(t.Context(), message(fmt.Sprintf("msg_%d_%d", w, i)), func(m turn.Message) { seqs = append(seqs, m.Seq) })
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := 1; i < len(seqs); i++ {
		if seqs[i] <= seqs[i-1] {
			t.Fatalf("%d came after %d", seqs[i], seqs[i-1])
		}
	}
	if len(seqs) != 80 {
		t.Errorf("%d calls", len(seqs))
	}
}

func openAgain(t *testing.T, s *subject) {
	first, second := s.accept(message("msg_1")), s.accept(message("msg_2"))
	if _, err := s.Begin(t.Context(), first.Seq, time.Now()); err != nil {
		t.Fatal(err)
	}
	s.accept(message("msg_3"))
	s.finish(answered(second, "x"))
	s.reopen()
	open, err := s.Open(t.Context())
	if err != nil || len(open) != 2 || open[0].ID != "msg_1" || open[0].State != turn.Running || open[1].ID != "msg_3" {
		t.Fatalf("open: %+v, %v", open, err)
	}
	if open[0].Attempts != 1 || open[0].Ask.To.Chat != "c" || len(open[0].Ask.Messages) != 0 || open[0].Chat != "p/c" {
		t.Errorf("%+v", open[0])
	}
	s.tally(turn.Tally{Received: 3, Answered: 1, Queued: 1, Running: 1})
}

func attempts(t *testing.T, s *subject) {
	m := s.accept(message("msg_1"))
	at := time.Now().UTC().Truncate(time.Microsecond)
	for want := 1; want <= 3; want++ {
		if n, err := s.Begin(t.Context(), m.Seq, at); err != nil || n != want {
			t.Errorf("attempt %d: %d, %v", want, n, err)
		}
		s.reopen()
	}
	if err := s.Release(t.Context(), m.Seq); err != nil {
		t.Fatal(err)
	}
	if got := s.get("msg_1"); got.Attempts != 3 || got.Released != 1 || got.State != turn.Queued || !got.Started.Equal(at) {
		t.Errorf("%+v", got)
	}
}

func outcomeWhole(t *testing.T, s *subject) {
	m := s.accept(message("msg_1"))
	o := answered(m, "the answer")
	o.Restarts = 2
	o.Steps = []agent.Step{{Kind: "model", Model: "m", Started: o.At, Ended: o.At, Tries: []agent.Try{{Error: "429", Wait: time.Second}}}}
	o.Parts = []outbox.Part{
		{Delivery: "dlv_1", Message: m.ID, Address: m.Ask.To, Part: 1, Parts: 2, Text: "the", Created: o.At},
		{Delivery: "dlv_2", Message: m.ID, Address: m.Ask.To, Part: 2, Parts: 2, Text: "answer", Created: o.At},
	}
	s.finish(o)
	s.reopen()
	got := s.get("msg_1")
	if got.State != turn.Answered || got.Reply != o.Reply || !got.Finished.Equal(o.At) || got.Restarts != 2 {
		t.Errorf("%+v", got)
	}
	list, err := s.OpenParts(t.Context(), "a", 0)
	if err != nil || len(list) != 2 || list[0].Text != "the" || list[1].Part != 2 || list[1].Address != m.Ask.To {
		t.Errorf("parts %+v, %v", list, err)
	}
	if there, err := s.Continued(t.Context(), "s"); err != nil || !there {
		t.Errorf("the session is not continued: %v", err)
	}
	s.tally(turn.Tally{Received: 1, Answered: 1})

	// One thing that cannot be kept, and nothing is.
	second := s.accept(message("msg_2"))
	bad := answered(second, "y")
	bad.Parts = []outbox.Part{{Delivery: "dlv_1", Message: second.ID, Address: m.Ask.To, Part: 1, Parts: 1, Text: "y"}} // taken
	if err := s.Finish(t.Context(), bad, func() { t.Error("after for what was not kept") }); err == nil {
		t.Error("a delivery id was given twice")
	}
	if got := s.get("msg_2"); got.State != turn.Queued {
		t.Errorf("a half outcome: %+v", got)
	}
	if h, err := s.Recent(t.Context(), "s", 0, 10); err != nil || len(h) != 2 {
		t.Errorf("history %v, %v", h, err)
	}
	s.tally(turn.Tally{Received: 2, Answered: 1, Queued: 1})
}

func outcomeOnce(t *testing.T, s *subject) {
	m := s.accept(message("msg_1"))
	s.finish(answered(m, "x"))
	if err := s.Finish(t.Context(), answered(m, "again"), func() { t.Error("after for a second end") }); err == nil {
		t.Error("a message ended twice")
	}
	if got := s.get("msg_1"); got.Reply.Text != "x" {
		t.Errorf("%q", got.Reply.Text)
	}
	s.tally(turn.Tally{Received: 1, Answered: 1})
}

func failed(t *testing.T, s *subject) {
	m := s.accept(message("msg_1"))
	s.finish(turn.Outcome{Seq: m.Seq, State: turn.Failed, Reason: "unavailable", Error: "no model", Session: "s", At: time.Now()})
	if got := s.get("msg_1"); got.State != turn.Failed || got.Reason != "unavailable" || got.Error != "no model" || got.Reply.Text != "" {
		t.Errorf("%+v", got)
	}
	if there, err := s.Continued(t.Context(), "s"); err != nil || there {
		t.Errorf("the session gained something, %v", err)
	}
	s.tally(turn.Tally{Received: 1, Failed: 1})
}

func merged(t *testing.T, s *subject) {
	first, second := s.accept(message("msg_1")), s.accept(message("msg_2"))
	o := answered(first, "both")
	o.Joined = []int64{second.Seq}
	s.finish(o)
	if got := s.get("msg_2"); got.State != turn.Answered || got.Joined != "msg_1" || got.Reply.Text != "both" {
		t.Errorf("%+v", got)
	}
	s.tally(turn.Tally{Received: 2, Answered: 2})
}

func pages(t *testing.T, s *subject) {
	for i := range 5 {
		m := s.accept(message(fmt.Sprint("msg_", i)))
		o := answered(m, fmt.Sprint("say ", i))
		o.News[0].Text = fmt.Sprint("ask ", i)
		s.finish(o)
	}
	var texts []string
	before := int64(0)
	for {
		page, err := s.Recent(t.Context(), "s", before, 3)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, m := range page {
			if before != 0 && m.Seq >= before {
				t.Errorf("%d is not before %d", m.Seq, before)
			}
			texts, before = append(texts, m.Text), m.Seq
		}
	}
	if len(texts) != 10 || texts[0] != "say 4" || texts[9] != "ask 0" {
		t.Errorf("%q", texts)
	}
}

func summary(t *testing.T, s *subject) {
	if _, ok, err := s.Summary(t.Context(), "s"); ok || err != nil {
		t.Errorf("a summary of nothing, %v", err)
	}
	s.finish(answered(s.accept(message("msg_1")), "x"))
	for i := range 3 {
		if err := s.KeepSummary(t.Context(), "s", agent.Summary{Upto: int64(i + 1), Text: fmt.Sprint("sum ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	s.reopen()
	if got, ok, err := s.Summary(t.Context(), "s"); !ok || err != nil || got != (agent.Summary{Upto: 3, Text: "sum 2"}) {
		t.Errorf("%+v %v %v", got, ok, err)
	}
}

func takenBack(t *testing.T, s *subject) {
	s.finish(answered(s.accept(message("msg_1")), "one"))
	s.finish(answered(s.accept(message("msg_2")), "two"))
	list, err := s.Recent(t.Context(), "s", 0, 10)
	if err != nil || len(list) != 4 {
		t.Fatalf("%v %v", list, err)
	}
	for range 2 { // doing it again changes nothing
		if err := s.TakeBack(t.Context(), "s", list[1].Seq); err != nil {
			t.Fatal(err)
		}
	}
	if list, err = s.Recent(t.Context(), "s", 0, 10); err != nil || len(list) != 2 || list[0].Text != "one" {
		t.Errorf("%v %v", list, err)
	}
	if got := s.get("msg_2"); got.Reply.Text != "two" { // the answer was given all the same
		t.Errorf("%+v", got)
	}
}

func parts(t *testing.T, s *subject) {
	m := s.accept(message("msg_1"))
	o := answered(m, "x")
	for i := range 3 {
		o.Parts = append(o.Parts, outbox.Part{
			Delivery: fmt.Sprint("dlv_", i), Message: m.ID, Address: m.Ask.To, Part: i + 1, Parts: 3, Text: fmt.Sprint(i), Created: o.At,
		})
	}
	s.finish(o)
	list, err := s.OpenParts(t.Context(), "a", 0)
	if err != nil || len(list) != 3 {
		t.Fatalf("%v %v", list, err)
	}
	if rest, err := s.OpenParts(t.Context(), "a", list[0].Seq); err != nil || len(rest) != 2 || rest[0].Text != "1" {
		t.Errorf("after the first: %v %v", rest, err)
	}
	if none, err := s.OpenParts(t.Context(), "b", 0); err != nil || len(none) != 0 {
		t.Errorf("of another account: %v %v", none, err)
	}
	for i := range list {
		if err := s.Trying(t.Context(), list[i].Seq); err != nil {
			t.Fatal(err)
		}
	}
	later := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	list[0].State, list[0].Receipt = outbox.Sent, "r1"
	list[1].State, list[1].Unsure, list[1].NotBefore, list[1].Attempts, list[1].Error = outbox.Pending, true, later, 1, "reset"
	list[1].Tries = []outbox.Try{{At: o.At, Took: time.Second, Error: "reset", Fate: "unknown"}}
	for i, repeat := range []bool{true, false} {
		if err := s.Tried(t.Context(), list[i], repeat); err != nil {
			t.Fatal(err)
		}
	}
	s.reopen()
	rest, err := s.OpenParts(t.Context(), "a", 0)
	if err != nil || len(rest) != 2 || rest[1].State != outbox.Sending {
		t.Fatalf("%+v %v", rest, err)
	}
	if !reflect.DeepEqual(rest[0], list[1]) {
		t.Errorf("kept\n%+v, want\n%+v", rest[0], list[1])
	}
	s.tally(turn.Tally{Received: 1, Answered: 1, Duplicates: 1})
}

func previewed(t *testing.T, s *subject) {
	m := s.accept(message("msg_1"))
	if _, err := s.Begin(t.Context(), m.Seq, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, receipt := range []string{"r0", "r1"} { // the last one counts
		if err := s.Previewed(t.Context(), m.Seq, receipt); err != nil {
			t.Fatal(err)
		}
	}
	s.reopen()
	if got := s.get("msg_1"); got.Preview != "r1" {
		t.Errorf("%+v", got)
	}
	if open, err := s.Open(t.Context()); err != nil || len(open) != 1 || open[0].Preview != "r1" {
		t.Errorf("open: %+v, %v", open, err)
	}
	o := answered(m, "x")
	o.Parts = []outbox.Part{{Delivery: "dlv_1", Message: m.ID, Address: m.Ask.To, Part: 1, Parts: 1, Text: "x", Edits: "r1", Created: o.At}}
	s.finish(o)
	s.reopen()
	for _, want := range []string{"r1", ""} { // a part can give it up
		list, err := s.OpenParts(t.Context(), "a", 0)
		if err != nil || len(list) != 1 || list[0].Edits != want {
			t.Fatalf("want %q: %+v, %v", want, list, err)
		}
		list[0].Edits = ""
		if err := s.Tried(t.Context(), list[0], false); err != nil {
			t.Fatal(err)
		}
	}
}

func unknown(t *testing.T, s *subject) {
	if _, err := s.Message(t.Context(), "msg_none"); !errors.Is(err, turn.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Begin(t.Context(), 99, time.Now()); err == nil {
		t.Error("a turn of nothing began")
	}
}

func closed(t *testing.T, s *subject) {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if _, _, err := s.Accept(t.Context(), message("msg_1"), func(turn.Message) { t.Error("after") }); err == nil {
		t.Error("a closed journal took a message")
	}
	s.Journal = s.open(t, s.dir)
	s.tally(turn.Tally{})
}
