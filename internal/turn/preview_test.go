package turn_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/turn"
)

// screen shows a preview in a message called "shown", or in the one that it was
// made with.
type screen struct {
	receipt string
	texts   chan string
	hang    chan struct{} // if set, Show waits for it
}

func newScreen() *screen { return &screen{texts: make(chan string, 1)} }

func (s *screen) Show(_ context.Context, text string) {
	if text == "" {
		return
	}
	select {
	case s.texts <- text:
	default:
	}
	if s.hang != nil {
		<-s.hang
	}
	if s.receipt == "" {
		s.receipt = "shown"
	}
}

func (s *screen) Receipt() string { return s.receipt }

// shownOn makes a platform that can edit, where a part has at most 40 bytes.
func shownOn(s *screen) func(*turn.Options) {
	return func(o *turn.Options) {
		o.PreviewAfter, o.PreviewEvery = time.Millisecond, time.Millisecond
		o.Preview = func(m turn.Message) turn.Preview { s.receipt = m.Preview; return s }
		o.Parts = func(m turn.Message, text string) (parts []outbox.Part) {
			for chunk := range slices.Chunk([]byte(text), 40) {
				parts = append(parts, outbox.Part{
					Delivery: fmt.Sprint(m.ID, "_", len(parts)), Message: m.ID, Address: m.Ask.To,
					Part: len(parts) + 1, Parts: 9, Text: string(chunk), Created: time.Now(),
				})
			}
			return parts
		}
	}
}

func addressed(id, text string) turn.Message {
	m := message(id, "net/alice", text)
	m.Ask.To = outbox.Address{Account: "net/bot", Chat: "alice"}
	return m
}

// begun says half an answer, then waits to be let go on or to be stopped.
func begun(let <-chan struct{}) brain {
	return func(ctx context.Context, t agent.Turn) (agent.Result, error) {
		half, rest := "Once upon", " a time, and so on for more than one part."
		if err := t.Out.Delta(half); err != nil {
			return agent.Result{}, err
		}
		select {
		case <-let:
		case <-ctx.Done():
			return agent.Result{}, ctx.Err()
		}
		return agent.Result{Reply: chat.Reply{Text: half + rest, Finish: chat.FinishStop}}, nil
	}
}

// said is what goes out in answer to a message. Only the first part may edit.
func said(t *testing.T, db *store.Store, id string) (texts []string, edits string) {
	t.Helper()
	parts, err := db.Deliveries(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range parts {
		if i == 0 {
			edits = p.Edits
		} else if p.Edits != "" {
			t.Errorf("part %d edits %q", i+1, p.Edits)
		}
		texts = append(texts, p.Text)
	}
	return texts, edits
}

// The answer takes the place of the preview with its first part; what is stopped
// ends it, and says so.
func TestPreviewEndsInTheAnswerOrInAMark(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(e *turn.Engine, let chan<- struct{})
		want []string
	}{
		{"answered", func(_ *turn.Engine, let chan<- struct{}) { close(let) }, []string{"Once upon a time, and so on for more tha", "n one part."}},
		{"stopped", func(e *turn.Engine, _ chan<- struct{}) { e.StopChat("net/alice") }, []string{"Once upon\n[stopped]"}},
		{"interrupted", func(e *turn.Engine, _ chan<- struct{}) { e.Interrupt("net/alice") }, []string{"Once upon\n[interrupted]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, s, let := open(t, filepath.Join(t.TempDir(), store.FileName)), newScreen(), make(chan struct{})
			e := start(t, db, begun(let), shownOn(s))
			l := accept(t, e, addressed("msg_1", "tell"))
			if text := receive(t, s.texts); text != "Once upon" {
				t.Errorf("shown %q", text)
			}
			c.end(e, let)
			wait(t, l)
			if got, edits := said(t, db, "msg_1"); !slices.Equal(got, c.want) || edits != "shown" {
				t.Errorf("said %q, the first edits %q", got, edits)
			}
		})
	}
}

// paced notes when it was asked to show something.
type paced struct {
	*screen
	at *[]time.Duration
	t0 time.Time
}

func (p paced) Show(ctx context.Context, text string) {
	*p.at = append(*p.at, time.Since(p.t0))
	p.screen.Show(ctx, text)
}

// The first preview comes after a second, the next ones every two; an answer that
// is there before is not previewed.
func TestPreviewsKeepTheirPace(t *testing.T) {
	for _, c := range []struct {
		takes time.Duration
		want  []time.Duration
	}{{900 * time.Millisecond, nil}, {6 * time.Second, []time.Duration{time.Second, 3 * time.Second, 5 * time.Second}}} {
		synctest.Test(t, func(t *testing.T) {
			db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), store.FileName))
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			var at []time.Duration
			slow := brain(func(ctx context.Context, turn agent.Turn) (agent.Result, error) {
				for range 10 {
					time.Sleep(c.takes / 10) // of the bubble's clock
					if err := turn.Out.Delta("word "); err != nil {
						return agent.Result{}, err
					}
				}
				return agent.Result{Reply: chat.Reply{Text: "done", Finish: chat.FinishStop}}, nil
			})
			e, err := turn.New(turn.Options{Journal: db, Agent: slow, Preview: func(turn.Message) turn.Preview {
				return paced{newScreen(), &at, time.Now()}
			}})
			if err != nil {
				t.Fatal(err)
			}
			wait(t, accept(t, e, addressed("msg_1", "tell")))
			e.Drain(t.Context())
			if !slices.Equal(at, c.want) {
				t.Errorf("an answer that takes %s is shown after %v, want %v", c.takes, at, c.want)
			}
		})
	}
}

// What was stopped before anything was shown is no message.
func TestStopWithoutAPreviewSaysNothing(t *testing.T) {
	db, h := open(t, filepath.Join(t.TempDir(), store.FileName)), newHeld()
	e := start(t, db, h, shownOn(newScreen()))
	l := accept(t, e, addressed("msg_1", "tell"))
	receive(t, h.began)
	e.StopChat("net/alice")
	wait(t, l)
	if got, _ := said(t, db, "msg_1"); got != nil {
		t.Errorf("said %q", got)
	}
}

// A turn that ends while the platform is being called waits for it: only then is
// it known which message shows the answer.
func TestAnswerWaitsForThePreviewThatIsPosted(t *testing.T) {
	db, s, let := open(t, filepath.Join(t.TempDir(), store.FileName)), newScreen(), make(chan struct{})
	s.hang = make(chan struct{})
	e := start(t, db, begun(let), shownOn(s))
	l := accept(t, e, addressed("msg_1", "tell"))
	receive(t, s.texts)
	close(let)
	close(s.hang)
	wait(t, l)
	if _, edits := said(t, db, "msg_1"); edits != "shown" {
		t.Errorf("it edits %q", edits)
	}
}

// counting is a journal that counts what is written of previews.
type counting struct {
	*store.Store
	previews int
}

func (c *counting) Previewed(ctx context.Context, seq int64, receipt string) error {
	c.previews++
	return c.Store.Previewed(ctx, seq, receipt)
}

// telling tells which id of a preview was kept.
type telling struct {
	*store.Store
	kept chan<- string
}

func (j telling) Previewed(ctx context.Context, seq int64, receipt string) error {
	err := j.Store.Previewed(ctx, seq, receipt)
	if err == nil {
		j.kept <- receipt
	}
	return err
}

// ours is how many goroutines are in the engine.
func ours() (n int) {
	stacks := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		if strings.Contains(stack, "hermes/internal/turn.") {
			n++
		}
	}
	return n
}

// Where nobody can edit, a turn starts nothing and writes nothing.
func TestWithoutEditingATurnCostsNothing(t *testing.T) {
	for _, c := range []struct {
		name       string
		preview    func(turn.Message) turn.Preview
		goroutines int // the chat's own among them
	}{
		{"there are no previews", nil, 1},
		{"nobody can edit", func(turn.Message) turn.Preview { return nil }, 1},
		{"somebody can", func(turn.Message) turn.Preview { return newScreen() }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			db, h := &counting{Store: open(t, filepath.Join(t.TempDir(), store.FileName))}, newHeld()
			e := start(t, db.Store, h, shownOn(newScreen()), func(o *turn.Options) {
				o.Journal, o.Preview, o.PreviewAfter = db, c.preview, time.Hour // nothing is shown
			})
			l := accept(t, e, addressed("msg_1", "x"))
			receive(t, h.began)
			// Those of an earlier test may take a moment to end; those of this turn stay.
			for deadline := time.Now().Add(patience); ours() != c.goroutines; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d goroutines, want %d", ours(), c.goroutines)
				}
			}
			h.let <- struct{}{}
			wait(t, l)
			if got, edits := said(t, db.Store, "msg_1"); db.previews != 0 || edits != "" || strings.Join(got, "|") != "re: x" {
				t.Errorf("%d writes, said %q, editing %q", db.previews, got, edits)
			}
		})
	}
}

// previewUntilKilled accepts a message, shows half the answer, says so once that
// is committed, and ends only by a signal.
func previewUntilKilled(path string) {
	ctx := context.Background()
	db, err := store.Open(ctx, path)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	kept := make(chan string, 1)
	o := turn.Options{Journal: telling{db, kept}, Agent: begun(nil)}
	shownOn(newScreen())(&o)
	e, err := turn.New(o)
	if err == nil {
		_, _, _, err = e.Accept(ctx, addressed("msg_1", "tell"))
	}
	if err == nil {
		fmt.Println("shown as", <-kept)
		select {}
	}
	fmt.Println("error", err)
	os.Exit(1)
}

// A process is killed with -9 while a preview is there. The next one goes on with
// that one, or ends it: it leaves no orphan.
func TestPreviewOfAKilledProcessIsTakenUp(t *testing.T) {
	for _, c := range []struct {
		name string
		then func(e *turn.Engine, let chan<- struct{})
		want string
	}{
		{"answered", func(_ *turn.Engine, let chan<- struct{}) { close(let) }, "Once upon a time, and so on for more tha"},
		{"stopped before anything more is said", func(e *turn.Engine, _ chan<- struct{}) { e.StopChat("net/alice") }, "[stopped]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), store.FileName)
			if lines := runAndKill(t, 0, killDatabase+"="+path, killPreview+"=1"); !slices.Equal(lines, []string{"shown as shown"}) {
				t.Fatalf("the process said %q", lines)
			}
			db, let := open(t, path), make(chan struct{})
			if m, err := db.Message(t.Context(), "msg_1"); err != nil || m.State != turn.Running {
				t.Fatalf("%+v %v", m, err)
			}
			quiet := brain(func(ctx context.Context, at agent.Turn) (agent.Result, error) {
				select {
				case <-let:
					return begun(let)(ctx, at)
				case <-ctx.Done():
					return agent.Result{}, ctx.Err()
				}
			})
			e := start(t, db, quiet, shownOn(newScreen()))
			l := e.Live("msg_1")
			if l == nil {
				t.Fatal("it was not taken up")
			}
			c.then(e, let)
			if p := wait(t, l); errors.Is(p.Err, turn.ErrLeft) {
				t.Fatal(p.Err)
			}
			if got, edits := said(t, db, "msg_1"); len(got) == 0 || got[0] != c.want || edits != "shown" {
				t.Errorf("said %q, the first edits %q", got, edits)
			}
		})
	}
}
