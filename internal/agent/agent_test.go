package agent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
)

// model answers as its script says, call after call; the last line stands for all
// that follow.
type model struct {
	name   string
	script []func(req chat.Request, emit func(string) error) (chat.Reply, error)
	asked  []chat.Request
	at     []time.Time
}

func (m *model) Name() string { return m.name }

func (m *model) Complete(ctx context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
	if err := ctx.Err(); err != nil {
		return chat.Reply{}, err
	}
	step := m.script[min(len(m.asked), len(m.script)-1)]
	m.asked, m.at = append(m.asked, req), append(m.at, time.Now())
	return step(req, emit)
}

func say(text string) func(chat.Request, func(string) error) (chat.Reply, error) {
	return func(_ chat.Request, emit func(string) error) (chat.Reply, error) {
		return chat.Reply{Text: text, Finish: chat.FinishStop, Usage: chat.Usage{Input: 1, Output: 2}}, emit(text)
	}
}

func fail(kind chat.Kind, after time.Duration) func(chat.Request, func(string) error) (chat.Reply, error) {
	return func(chat.Request, func(string) error) (chat.Reply, error) {
		return chat.Reply{}, &chat.Error{Kind: kind, Message: string(kind), RetryAfter: after}
	}
}

func breaks(text string) func(chat.Request, func(string) error) (chat.Reply, error) {
	return func(_ chat.Request, emit func(string) error) (chat.Reply, error) {
		return chat.Reply{}, errors.Join(emit(text), &chat.Error{Kind: chat.Unavailable, Message: "reset"})
	}
}

// memory is a conversation and its summaries.
type memory struct {
	said      []agent.Stored
	summaries []agent.Summary
	read      int // messages that were handed out
}

func (m *memory) add(role chat.Role, text string) {
	m.said = append(m.said, agent.Stored{Seq: int64(len(m.said) + 1), Message: chat.Message{Role: role, Text: text}})
}

func (m *memory) Recent(_ context.Context, _ string, before int64, limit int) (list []agent.Stored, _ error) {
	for _, s := range slices.Backward(m.said) {
		if (before == 0 || s.Seq < before) && len(list) < limit {
			list = append(list, s)
		}
	}
	m.read += len(list)
	return list, nil
}

func (m *memory) Since(_ context.Context, _ string, after int64, limit int) (list []agent.Stored, _ error) {
	for _, s := range m.said {
		if s.Seq > after && len(list) < limit {
			list = append(list, s)
		}
	}
	return list, nil
}

func (m *memory) Summary(context.Context, string) (agent.Summary, bool, error) {
	if len(m.summaries) == 0 {
		return agent.Summary{}, false, nil
	}
	return m.summaries[len(m.summaries)-1], true, nil
}

func (m *memory) KeepSummary(_ context.Context, _ string, s agent.Summary) error {
	m.summaries = append(m.summaries, s)
	return nil
}

// view is what a reader of the answer sees.
type view struct {
	text     string
	restarts int
	steps    []agent.Step
}

func (v *view) Delta(text string) error { v.text += text; return nil }
func (v *view) Restart()                { v.text = ""; v.restarts++ }
func (v *view) Stepped(s agent.Step)    { v.steps = append(v.steps, s) }

func answer(t *testing.T, o agent.Options, h *memory, news string) (agent.Result, *view, error) {
	t.Helper()
	a, err := agent.New(o)
	if err != nil {
		t.Fatal(err)
	}
	v := &view{}
	turn := agent.Turn{Session: "s", News: []chat.Message{{Role: chat.User, Text: news}}, Out: v}
	if h != nil {
		turn.History, turn.Continued = h, true
	}
	r, err := a.Answer(t.Context(), turn)
	return r, v, err
}

// What may pass is asked again, after the pause that the provider names or one
// that grows; what cannot pass is not.
func TestRetriesByClass(t *testing.T) {
	for name, c := range map[string]struct {
		first func(chat.Request, func(string) error) (chat.Reply, error)
		calls int
		wait  time.Duration // exactly; 0: 0.25 s to 0.5 s
		kind  chat.Kind     // of the failure; empty: answered
	}{
		"429 with Retry-After":     {fail(chat.RateLimited, 7*time.Second), 2, 7 * time.Second, ""},
		"429 without":              {fail(chat.RateLimited, 0), 2, 0, ""},
		"5xx":                      {fail(chat.Unavailable, 0), 2, 0, ""},
		"a reset in mid-stream":    {breaks("half an"), 2, 0, ""},
		"an empty answer":          {say(" "), 2, 0, ""},
		"a refused key":            {fail(chat.Auth, 0), 1, 0, chat.Auth},
		"a refused request":        {fail(chat.Invalid, 0), 1, 0, chat.Invalid},
		"a wait beyond the turn's": {fail(chat.RateLimited, time.Hour), 1, 0, chat.RateLimited},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &model{name: "m", script: []func(chat.Request, func(string) error) (chat.Reply, error){c.first, say("whole")}}
				r, v, err := answer(t, agent.Options{Model: m}, nil, "hello")
				if len(m.asked) != c.calls || chat.KindOf(err) != c.kind {
					t.Fatalf("%d calls, %v", len(m.asked), err)
				}
				if len(v.steps) != 1 || len(v.steps[0].Tries) != c.calls {
					t.Errorf("steps %+v", v.steps)
				}
				if c.kind != "" {
					return
				}
				waited := m.at[1].Sub(m.at[0])
				if c.wait > 0 && waited != c.wait || c.wait == 0 && (waited < 250*time.Millisecond || waited > 500*time.Millisecond) {
					t.Errorf("waited %s", waited)
				}
				if r.Reply.Text != "whole" || v.text != "whole" || v.steps[0].Tries[0].Wait != waited {
					t.Errorf("%q, seen %q, %+v", r.Reply.Text, v.text, v.steps[0].Tries)
				}
			})
		})
	}
}

func TestRetriesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{name: "m", script: []func(chat.Request, func(string) error) (chat.Reply, error){fail(chat.Unavailable, 0)}}
		_, v, err := answer(t, agent.Options{Model: m, Retries: 2}, nil, "x")
		if chat.KindOf(err) != chat.Unavailable || len(m.asked) != 3 || v.steps[0].Error == "" {
			t.Errorf("%d calls, %v", len(m.asked), err)
		}
	})
}

func TestFallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &model{name: "first", script: []func(chat.Request, func(string) error) (chat.Reply, error){fail(chat.Auth, 0)}}
		second := &model{name: "second", script: []func(chat.Request, func(string) error) (chat.Reply, error){say("here")}}
		r, v, err := answer(t, agent.Options{Model: first, Fallback: second}, nil, "x")
		if err != nil || r.Model != "second" || r.Reply.Text != "here" || len(v.steps) != 2 {
			t.Errorf("%+v, %d steps, %v", r, len(v.steps), err)
		}
		// What is the request's own fault is nobody else's to answer.
		first.script[0] = fail(chat.Invalid, 0)
		if _, _, err := answer(t, agent.Options{Model: first, Fallback: second}, nil, "x"); chat.KindOf(err) != chat.Invalid || len(second.asked) != 1 {
			t.Errorf("%v after %d calls", err, len(second.asked))
		}
	})
}

func TestEndlessAnswerIsCut(t *testing.T) {
	m := &model{name: "m", script: []func(chat.Request, func(string) error) (chat.Reply, error){
		func(_ chat.Request, emit func(string) error) (chat.Reply, error) {
			for {
				if err := emit("again and again "); err != nil {
					return chat.Reply{}, err
				}
			}
		},
	}}
	r, v, err := answer(t, agent.Options{Model: m, MaxAnswer: 100}, nil, "x")
	if err != nil || r.Reply.Finish != chat.FinishLength || !strings.Contains(r.Reply.Text, "cut off here") || v.text != r.Reply.Text {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestTimeoutOfATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &model{name: "slow", script: []func(chat.Request, func(string) error) (chat.Reply, error){
			func(chat.Request, func(string) error) (chat.Reply, error) {
				time.Sleep(time.Minute)
				return chat.Reply{}, context.DeadlineExceeded
			},
		}}
		_, _, err := answer(t, agent.Options{Model: m, Timeout: 30 * time.Second}, nil, "x")
		if chat.KindOf(err) != chat.Unavailable || !strings.Contains(err.Error(), "did not answer within 30s") {
			t.Errorf("%v", err)
		}
	})
}

// long is a conversation that no window of the tests holds.
func long() *memory {
	h := &memory{}
	for i := range 200 {
		h.add(chat.User, fmt.Sprintf("question %d %s", i, strings.Repeat("word ", 20)))
		h.add(chat.Assistant, fmt.Sprintf("answer %d %s", i, strings.Repeat("word ", 20)))
	}
	return h
}

func isSummary(req chat.Request) bool {
	return strings.Contains(req.Messages[0].Text, "You keep the record of a conversation")
}

func sizeOf(req chat.Request) (n int) {
	for _, m := range req.Messages {
		n += len(m.Text)/4 + 4
	}
	return n
}

// The older part of a conversation is summarised, once, and the newest part is
// shown word for word; no call is over the budget, whatever the conversation.
func TestWhatDoesNotFitIsSummarised(t *testing.T) {
	h := long()
	m := &model{name: "m"}
	m.script = []func(chat.Request, func(string) error) (chat.Reply, error){
		func(req chat.Request, emit func(string) error) (chat.Reply, error) {
			if isSummary(req) {
				return say("SUMMARY")(req, emit)
			}
			return say("yes")(req, emit)
		},
	}
	const budget = 4000
	for turn := range 4 { // a long conversation is caught up with over some turns
		if _, _, err := answer(t, agent.Options{Model: m, ContextTokens: budget}, h, "and now?"); err != nil {
			t.Fatalf("turn %d: %v", turn, err)
		}
	}
	for i, req := range m.asked {
		if sizeOf(req) > budget {
			t.Errorf("call %d has about %d tokens", i, sizeOf(req))
		}
	}
	last := m.asked[len(m.asked)-1]
	if !strings.Contains(last.Messages[0].Text, "SUMMARY") || !strings.Contains(last.Messages[len(last.Messages)-2].Text, "answer 199") {
		t.Errorf("the window begins %q and ends %q", last.Messages[0].Text, last.Messages[len(last.Messages)-2].Text)
	}
	// What was kept is not asked for again, and a window is all that is read.
	calls, read := len(m.asked), h.read
	if _, _, err := answer(t, agent.Options{Model: m, ContextTokens: budget}, h, "more"); err != nil || len(m.asked) != calls+1 {
		t.Errorf("%d calls more, %v", len(m.asked)-calls, err)
	}
	if h.read-read > 150 {
		t.Errorf("read %d of %d messages", h.read-read, len(h.said))
	}
}

// Where a summary cannot be had, the model is told how much it does not see.
func TestNothingIsDroppedSilently(t *testing.T) {
	m := &model{name: "m"}
	m.script = []func(chat.Request, func(string) error) (chat.Reply, error){
		func(req chat.Request, emit func(string) error) (chat.Reply, error) {
			if isSummary(req) {
				return fail(chat.Invalid, 0)(req, emit)
			}
			return say("yes")(req, emit)
		},
	}
	if _, _, err := answer(t, agent.Options{Model: m, ContextTokens: 4000}, long(), "x"); err != nil {
		t.Fatal(err)
	}
	if first := m.asked[len(m.asked)-1].Messages[0]; first.Role != chat.System || !strings.Contains(first.Text, "earlier messages of this conversation are not shown here") {
		t.Errorf("%+v", first)
	}
}

// A model that takes less than is set is asked with less.
func TestContextThatIsTooLong(t *testing.T) {
	const takes = 1500
	m := &model{name: "m"}
	m.script = []func(chat.Request, func(string) error) (chat.Reply, error){
		func(req chat.Request, emit func(string) error) (chat.Reply, error) {
			switch {
			case sizeOf(req) > takes:
				return fail(chat.TooLong, 0)(req, emit)
			case isSummary(req):
				return say("SUMMARY")(req, emit)
			}
			return say("yes")(req, emit)
		},
	}
	h := &memory{}
	for i := range 40 {
		h.add(chat.User, fmt.Sprint(i, strings.Repeat(" word", 30)))
		h.add(chat.Assistant, "ok")
	}
	if _, _, err := answer(t, agent.Options{Model: m, ContextTokens: 4000}, h, "x"); err != nil {
		t.Fatal(err)
	}
	_, _, err := answer(t, agent.Options{Model: m, ContextTokens: 4000}, nil, strings.Repeat("word ", 5000))
	if chat.KindOf(err) != chat.TooLong || !strings.Contains(err.Error(), "the message is too long") {
		t.Errorf("news that fit nowhere: %v", err)
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for _, o := range []agent.Options{{}, {Model: &model{}, ContextTokens: 5}, {Model: &model{}, Timeout: -1}} {
		if _, err := agent.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
