package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/platform/platformtest"
	"github.com/hermesgw/hermes/internal/store"
)

// editing is a network that can edit, and fails as it is told.
type editing struct {
	*platformtest.Fake
	mu   sync.Mutex
	fail func(text string) error // of an edit; nil: none fails
}

func (e *editing) Edit(ctx context.Context, id string, m platform.Outbound) error {
	e.mu.Lock()
	fail := e.fail
	e.mu.Unlock()
	if fail != nil {
		if err := fail(m.Text); err != nil {
			return err
		}
	}
	return e.Fake.Edit(ctx, id, m)
}

// dictated is a model whose answers a test gives piece by piece, and ends.
type dictated struct {
	pieces chan string
	end    chan struct{}
}

func newDictated() *dictated { return &dictated{make(chan string), make(chan struct{})} }

func (*dictated) Name() string { return "dictated" }

func (d *dictated) Complete(ctx context.Context, _ chat.Request, emit func(string) error) (chat.Reply, error) {
	var text strings.Builder
	for {
		select {
		case piece := <-d.pieces:
			text.WriteString(piece)
			if err := emit(piece); err != nil {
				return chat.Reply{}, err
			}
		case <-d.end:
			return chat.Reply{Text: text.String(), Finish: chat.FinishStop}, nil
		case <-ctx.Done():
			return chat.Reply{}, ctx.Err()
		}
	}
}

// onFake connects a gateway to a, lets ann in, and previews as often as it can.
func onFake(a platform.Adapter, m chat.Model) func(*gateway.Options) {
	return func(o *gateway.Options) {
		o.Adapters, o.Model = []platform.Adapter{a}, m
		o.Senders = access.Senders{Allow: []string{"fake:id_ann"}}
		o.PreviewAfter, o.PreviewEvery = time.Millisecond, time.Millisecond
	}
}

func tell(t *testing.T, f *platformtest.Fake, text string) {
	t.Helper()
	if err := f.Say("ann", text); err != nil {
		t.Fatal(err)
	}
}

// reads waits until ann sees exactly these messages.
func reads(t *testing.T, f *platformtest.Fake, texts ...string) {
	t.Helper()
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("ann sees %q, not %q", got, texts)
		}
	}()
	until(t, "the messages are there", func() bool { got = f.Heard("ann"); return slices.Equal(got, texts) })
}

// One message grows, and becomes the answer; what has no room in it follows.
func TestAnswerIsShownWhileItGrows(t *testing.T) {
	f, m := platformtest.NewFake("bot"), newDictated()
	r := start(t, onFake(f, m))
	tell(t, f, "tell me")
	m.pieces <- "Once upon"
	reads(t, f, "Once upon"+outbox.PreviewMark)
	m.pieces <- " a time"
	reads(t, f, "Once upon a time"+outbox.PreviewMark)
	word := strings.Repeat("lorem ", 700) // more than one message bears
	m.pieces <- "\n" + word
	until(t, "the beginning is shown", func() bool {
		seen := f.Heard("ann")
		return len(seen) == 1 && len(seen[0]) > 3000 && len(seen[0]) <= f.Limits().Text
	})
	m.end <- struct{}{}
	until(t, "the answer is there", func() bool {
		seen := f.Heard("ann")
		return len(seen) == 2 && strings.Join(strings.Fields(seen[0]+" "+seen[1]), " ") == "Once upon a time "+strings.TrimSpace(word)
	})
	if n := r.metric(t, `hermes_previews_total`); n < 3 {
		t.Errorf("%v previews counted", n)
	}
	trace := httptest.NewRecorder()
	r.Admin().ServeHTTP(trace, httptest.NewRequest(http.MethodGet, "/admin/trace/msg_1", nil)) // as the network calls it
	if said := trace.Body.String(); strings.Count(said, "in place of its preview") != 1 {
		t.Errorf("the trace says %s", said)
	}
	adds(t, r)
}

// bare hides what an adapter can beyond the least.
type bare struct{ platform.Adapter }

// Where a network cannot edit, people see the answer and nothing else.
func TestWithoutEditingOnlyTheAnswerIsSent(t *testing.T) {
	f, m := platformtest.NewFake("bot"), newDictated()
	r := start(t, onFake(bare{f}, m))
	tell(t, f, "tell me")
	m.pieces <- "Once upon"
	m.pieces <- " a time"
	m.end <- struct{}{}
	reads(t, f, "Once upon a time")
	if n := r.metric(t, "hermes_previews_total"); n != 0 {
		t.Errorf("%v previews counted", n)
	}
}

// What is stopped or interrupted does not go on looking as if it were said.
func TestStopAndInterruptEndThePreview(t *testing.T) {
	t.Run("stop", func(t *testing.T) {
		f, m := platformtest.NewFake("bot"), newDictated()
		r := start(t, onFake(f, m))
		tell(t, f, "tell me")
		m.pieces <- "Once upon"
		reads(t, f, "Once upon"+outbox.PreviewMark)
		tell(t, f, "/stop")
		reads(t, f, "Once upon\n[stopped]", "Stopped.")
		adds(t, r)
	})
	t.Run("interrupt", func(t *testing.T) {
		f, m := platformtest.NewFake("bot"), newDictated()
		r := start(t, onFake(f, m), func(o *gateway.Options) { o.Busy = "interrupt" })
		tell(t, f, "tell me")
		m.pieces <- "Once upon"
		reads(t, f, "Once upon"+outbox.PreviewMark)
		tell(t, f, "something else")
		reads(t, f, "Once upon\n[interrupted]")
		m.pieces <- "Else"
		m.end <- struct{}{}
		reads(t, f, "Once upon\n[interrupted]", "Else")
		adds(t, r)
	})
}

// The mark has room, and nothing of what was said follows in another message.
func TestMarkEndsAPreviewThatIsFull(t *testing.T) {
	for mark, then := range map[string]string{"\n[stopped]": "/stop", "\n[interrupted]": "something else"} {
		f, m := platformtest.NewFake("bot"), newDictated()
		start(t, onFake(f, m), func(o *gateway.Options) { o.Busy = "interrupt" })
		tell(t, f, "tell me")
		m.pieces <- strings.Repeat("x", 2*f.Limits().Text)
		until(t, "it is shown", func() bool { return len(f.Heard("ann")) == 1 })
		tell(t, f, then)
		until(t, "it ends", func() bool { return strings.HasSuffix(f.Heard("ann")[0], "x"+mark) })
		if seen := f.Heard("ann"); len(seen[0]) > f.Limits().Text || len(seen) > 1 && seen[1] != "Stopped." {
			t.Errorf("%d bytes, of at most %d, then %q", len(seen[0]), f.Limits().Text, seen[1:])
		}
	}
}

// A stop while the answer waits to take the place of its preview drops the rest
// of it, not its beginning.
func TestStopLeavesTheBeginningOfAnAnswer(t *testing.T) {
	held := errors.New("429")
	f, m := &editing{Fake: platformtest.NewFake("bot")}, newDictated()
	refused := make(chan struct{}, 1)
	f.fail = func(text string) error {
		if strings.HasSuffix(text, outbox.PreviewMark) {
			return nil
		}
		select {
		case refused <- struct{}{}:
			return &platform.SendError{Fate: platform.Retry, After: 200 * time.Millisecond, Err: held}
		default:
			return nil
		}
	}
	start(t, onFake(f, m))
	tell(t, f.Fake, "tell me")
	m.pieces <- "Once upon"
	reads(t, f.Fake, "Once upon"+outbox.PreviewMark)
	m.pieces <- "\n\n" + strings.Repeat("x", f.Limits().Text-60) + "\n\nand more of it than fits into the message"
	m.end <- struct{}{}
	until(t, "the answer waits", func() bool { return len(refused) > 0 })
	tell(t, f.Fake, "/stop")
	until(t, "it ends", func() bool {
		seen := f.Heard("ann")
		return len(seen) == 2 && strings.HasSuffix(seen[0], "xxx") && strings.Contains(seen[1], "The rest of what I was saying is dropped")
	})
}

// A failed edit never becomes a new message, but for a preview that is gone: who
// asked must have the answer.
func TestFailedEditsOfAPreview(t *testing.T) {
	t.Run("it is edited again", func(t *testing.T) {
		f, m := &editing{Fake: platformtest.NewFake("bot")}, newDictated()
		failures := 2
		f.fail = func(text string) error {
			if strings.HasSuffix(text, outbox.PreviewMark) {
				return nil
			}
			if failures--; failures >= 0 {
				return &platform.SendError{Fate: platform.Unknown, After: time.Millisecond, Err: errors.New("reset")}
			}
			return nil
		}
		r := start(t, onFake(f, m))
		tell(t, f.Fake, "tell me")
		m.pieces <- "Once"
		reads(t, f.Fake, "Once"+outbox.PreviewMark)
		m.end <- struct{}{}
		reads(t, f.Fake, "Once")
		if n := r.metric(t, "hermes_messages_duplicates_total"); n != 0 {
			t.Errorf("%v deliveries labelled", n)
		}
	})
	t.Run("it is gone", func(t *testing.T) {
		f, m := platformtest.NewFake("bot"), newDictated()
		start(t, onFake(f, m))
		tell(t, f, "tell me")
		m.pieces <- "Once"
		reads(t, f, "Once"+outbox.PreviewMark)
		if err := f.Erase("ann"); err != nil {
			t.Fatal(err)
		}
		m.pieces <- " upon"
		m.end <- struct{}{}
		reads(t, f, "Once upon")
	})
}

// The next process goes on in the message that the last one left.
func TestPreviewGoesOnAcrossARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), store.FileName)
	db, f, m := openStore(t, path), platformtest.NewFake("bot"), newDictated()
	r := start(t, onFake(f, m), func(o *gateway.Options) { o.Store = db })
	tell(t, f, "tell me")
	m.pieces <- "Once"
	reads(t, f, "Once"+outbox.PreviewMark)
	r.stop()
	db.Close()
	r = start(t, onFake(f, m), func(o *gateway.Options) { o.Store = openStore(t, path) })
	m.pieces <- "Another"
	reads(t, f, "Another"+outbox.PreviewMark)
	m.pieces <- " time"
	m.end <- struct{}{}
	reads(t, f, "Another time")
	adds(t, r)
}
