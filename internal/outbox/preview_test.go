package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/platform"
)

// editing is a network that can edit what it was sent.
type editing struct {
	*network
	told
	failEdit func(n int) error // of the n-th edit

	mu     sync.Mutex
	edited []string // id: text, each call
}

func (e *editing) Edit(_ context.Context, id string, m platform.Outbound) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.edited = append(e.edited, id+": "+m.Text)
	if e.failEdit == nil {
		return nil
	}
	return e.failEdit(len(e.edited))
}

func (e *editing) edits() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.edited)
}

// counted demands how many previews were sent and dropped.
func (e *editing) counted(t *testing.T, sent, dropped int) {
	t.Helper()
	e.told.mu.Lock()
	defer e.told.mu.Unlock()
	if e.shown != sent || e.dropped != dropped {
		t.Errorf("%d sent and %d dropped, want %d and %d", e.shown, e.dropped, sent, dropped)
	}
}

func preview(t *testing.T, b *outbox.Outbox, chat string) *outbox.Preview {
	t.Helper()
	p := b.Preview("msg_1", outbox.Address{Account: account, Chat: chat}, "")
	if p == nil {
		t.Fatal("no preview on a network that can edit")
	}
	return p
}

func replacing(p outbox.Part, id string) outbox.Part {
	p.Edits = id
	return p
}

func TestPreviewIsOneMessageThatGrows(t *testing.T) {
	n := &editing{network: &network{limits: platform.Limits{Text: 100, Fences: true}}}
	b, _ := send(t, open(t, dbPath(t)), n.network, n)
	p := preview(t, b, "a")
	for _, text := range []string{"", " \n", "Once", "Once", "```go\nx"} { // nothing is shown of nothing, and the same once
		p.Show(t.Context(), text)
	}
	if got := n.wait(t, 1); len(got) != 1 || got[0] != "a: Once\n…" || p.Receipt() != "r1" {
		t.Errorf("posted %q as %q", got, p.Receipt())
	}
	if got := n.edits(); !slices.Equal(got, []string{"r1: ```go\nx\n```\n…"}) {
		t.Errorf("edited %q", got)
	}
	n.counted(t, 2, 0)
	other, _ := send(t, open(t, dbPath(t)), &network{})
	if other.Preview("msg_1", outbox.Address{}, "") != nil {
		t.Error("a preview on a network that cannot edit")
	}
}

// Half of the burst stays for answers, in the chat and in the account: they pass
// at once, however much was previewed.
func TestPreviewsTakeNoPlaceOfAnAnswer(t *testing.T) {
	for name, limits := range map[string]platform.Limits{
		"of the chat":    {Text: 100, PerChat: time.Hour, Burst: 4},
		"of the account": {Text: 100, PerAccount: time.Hour, Burst: 4},
	} {
		t.Run(name, func(t *testing.T) {
			n := &editing{network: &network{limits: limits}}
			db := open(t, dbPath(t))
			b, _ := send(t, db, n.network, n)
			p := preview(t, b, "a")
			for i := range 10 {
				p.Show(t.Context(), fmt.Sprint("text ", i))
			}
			if got := n.edits(); len(got) != 1 {
				t.Errorf("edited %q", got)
			}
			n.counted(t, 2, 8)
			put(t, db, b, replacing(part("1", "a", "answer"), p.Receipt()), part("2", "a", "and more"))
			if got := n.wait(t, 2); got[1] != "a: and more" {
				t.Errorf("%q", got)
			}
		})
	}
	n := &editing{network: &network{limits: platform.Limits{Text: 100, PerChat: time.Hour, Burst: 1}}}
	b, _ := send(t, open(t, dbPath(t)), n.network, n)
	preview(t, b, "a").Show(t.Context(), "text")
	n.counted(t, 0, 1)
}

func TestRetryAfterOfAPreviewHoldsForAll(t *testing.T) {
	const after = 300 * time.Millisecond
	for name, wholeAccount := range map[string]bool{"of a chat": false, "of the account": true} {
		t.Run(name, func(t *testing.T) {
			n := &editing{network: &network{limits: platform.Limits{Text: 100}}}
			var refused time.Time
			n.failEdit = func(call int) error {
				if call > 1 {
					return nil
				}
				refused = time.Now()
				return &platform.SendError{Fate: platform.Retry, After: after, Account: wholeAccount, Err: errors.New("429")}
			}
			db := open(t, dbPath(t))
			b, _ := send(t, db, n.network, n)
			p := preview(t, b, "a")
			for _, text := range []string{"one", "one two", "one two three"} {
				p.Show(t.Context(), text)
			}
			if got := n.edits(); len(got) != 1 {
				t.Errorf("the network was asked again meanwhile: %q", got)
			}
			n.counted(t, 1, 2)
			put(t, db, b, replacing(part("1", "a", "answer"), p.Receipt()))
			kept := state(t, db, "1")
			if early := refused.Add(after).Sub(kept.Tries[0].At); early > 0 {
				t.Errorf("edited %s too early", early)
			}
			if got := n.wait(t, 1); len(got) != 1 {
				t.Errorf("%q", got)
			}
		})
	}
}

// While an answer is on its way in a chat, or waits to be, nothing is previewed.
func TestAnswerGoesFirst(t *testing.T) {
	n := &editing{network: &network{limits: platform.Limits{Text: 100}}}
	n.fail = func(int, platform.Outbound) error {
		return &platform.SendError{Fate: platform.Retry, Err: errors.New("not connected")}
	}
	db := open(t, dbPath(t))
	b, _ := send(t, db, n.network, n)
	put(t, db, b, part("1", "a", "answer"))
	<-n.news // it was tried once, and waits for more than half a second
	preview(t, b, "a").Show(t.Context(), "text")
	n.counted(t, 0, 1)
	n.network.mu.Lock()
	n.fail = nil
	n.network.mu.Unlock()
	p := preview(t, b, "b")
	p.Show(t.Context(), "text")
	if p.Receipt() == "" {
		t.Error("another chat was held up")
	}
}

func TestFailedEditNeverBecomesANewMessage(t *testing.T) {
	n := &editing{network: &network{limits: platform.Limits{Text: 100}}}
	n.failEdit = func(call int) error {
		switch call {
		case 1:
			return &platform.SendError{Fate: platform.Retry, After: time.Millisecond, Err: errors.New("429")}
		case 2:
			return &platform.SendError{Fate: platform.Unknown, After: time.Millisecond, Err: errors.New("reset")}
		default:
			return nil
		}
	}
	db := open(t, dbPath(t))
	b, _ := send(t, db, n.network, n)
	put(t, db, b, replacing(part("1", "a", "answer"), "r9"))
	p := state(t, db, "1")
	if p.State != outbox.Sent || p.Receipt != "r9" || len(p.Tries) != 3 {
		t.Errorf("%+v", p)
	}
	want := []string{"r9: answer", "r9: answer", "r9: answer"} // no label: done twice it is done once
	if got := n.edits(); !slices.Equal(got, want) {
		t.Errorf("edited %q", got)
	}
	if n.got != nil {
		t.Errorf("sent %q", n.got)
	}
	if tally, err := db.Tally(t.Context()); err != nil || tally.Duplicates != 0 {
		t.Errorf("%+v %v", tally, err)
	}
}

// Who asked gets the answer, and a label if an earlier edit may have shown it.
func TestAnswerToAPreviewThatIsGone(t *testing.T) {
	for name, doubt := range map[string]bool{"surely not shown": false, "perhaps shown": true} {
		t.Run(name, func(t *testing.T) {
			n := &editing{network: &network{limits: platform.Limits{Text: 100}}}
			n.failEdit = func(call int) error {
				if doubt && call == 1 {
					return &platform.SendError{Fate: platform.Unknown, After: time.Millisecond, Err: errors.New("reset")}
				}
				return &platform.SendError{Fate: platform.Never, Err: errors.New("no such message")}
			}
			db := open(t, dbPath(t))
			b, _ := send(t, db, n.network, n)
			put(t, db, b, replacing(part("1", "a", "answer"), "r9"), part("2", "a", "more"))
			want := "a: answer"
			if doubt {
				want = "a: " + outbox.RepeatMark + "answer"
			}
			if got := n.wait(t, 2); !slices.Equal(got, []string{want, "a: more"}) {
				t.Errorf("%q", got)
			}
			if p := state(t, db, "1"); p.State != outbox.Sent || p.Edits != "" || p.Receipt != "r1" {
				t.Errorf("%+v", p)
			}
		})
	}
}

// A process that ended while it was editing, and a next one that can or cannot.
func TestCrashWhileEditing(t *testing.T) {
	for name, able := range map[string]bool{"it edits again": true, "the adapter cannot any more": false} {
		t.Run(name, func(t *testing.T) {
			path := dbPath(t)
			db := open(t, path)
			put(t, db, nil, replacing(part("1", "a", "answer"), "r9"))
			if err := db.Trying(t.Context(), 1); err != nil { // and then it died
				t.Fatal(err)
			}
			db.Close()
			db = open(t, path)
			n := &editing{network: &network{limits: platform.Limits{Text: 100}}}
			if !able {
				send(t, db, n.network)
				if got := n.wait(t, 1); got[0] != "a: "+outbox.RepeatMark+"answer" {
					t.Errorf("%q", got)
				}
				return
			}
			send(t, db, n.network, n)
			if p := state(t, db, "1"); p.Receipt != "r9" || n.got != nil {
				t.Errorf("sent %q: %+v", n.got, p)
			}
			if got := n.edits(); !slices.Equal(got, []string{"r9: answer"}) {
				t.Errorf("edited %q", got)
			}
		})
	}
}

// A preview whose post is in doubt is not posted again, unless the network drops
// the second one; one that surely failed is.
func TestPreviewInDoubt(t *testing.T) {
	for _, c := range []struct {
		name    string
		fate    platform.Fate
		dedupes bool
		posts   int
	}{{"in doubt", platform.Unknown, false, 1}, {"harmless", platform.Unknown, true, 2}, {"surely not there", platform.Retry, false, 2}, {"never", platform.Never, true, 1}} {
		t.Run(c.name, func(t *testing.T) {
			n := &editing{network: &network{limits: platform.Limits{Text: 100, Dedupes: c.dedupes}}}
			var ids []string
			n.fail = func(call int, m platform.Outbound) error {
				ids = append(ids, m.Delivery)
				if call == 1 {
					return &platform.SendError{Fate: c.fate, Err: errors.New("reset")}
				}
				return nil
			}
			b, _ := send(t, open(t, dbPath(t)), n.network, n)
			p := preview(t, b, "a")
			p.Show(t.Context(), "one")
			p.Show(t.Context(), "one two")
			if len(ids) != c.posts || (p.Receipt() != "") != (c.posts > 1) || ids[0] != ids[len(ids)-1] {
				t.Errorf("posted as %q, receipt %q", ids, p.Receipt())
			}
		})
	}
}

// What ends a preview is not dropped with the rest: it would look as if there
// were more to come.
func TestDropLeavesWhatEndsAPreview(t *testing.T) {
	n := &editing{network: &network{limits: platform.Limits{Text: 100}}}
	n.fail = func(call int, _ platform.Outbound) error {
		if call == 1 {
			return &platform.SendError{Fate: platform.Retry, After: 100 * time.Millisecond, Err: errors.New("429")}
		}
		return nil
	}
	db := open(t, dbPath(t))
	b, _ := send(t, db, n.network, n)
	put(t, db, b, part("1", "a", "said"), replacing(part("2", "a", "ends"), "r9"), part("3", "a", "more"))
	<-n.news // the first was tried, and the others are behind it
	dropped, upto, err := db.Drop(t.Context(), outbox.Address{Account: account, Chat: "a"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b.Drop("a", "", upto)
	if p := state(t, db, "2"); p.State != outbox.Sent || p.Receipt != "r9" {
		t.Errorf("%+v", p)
	}
	if p := state(t, db, "3"); p.State != outbox.Dead || dropped == 0 {
		t.Errorf("%d dropped, %+v", dropped, p)
	}
}
