package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/store"
)

func TestSessionGoesOnAcrossARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), store.FileName)
	db := openStore(t, path)
	r := start(t, func(o *gateway.Options) { o.Store = db })
	if got := r.ask(t, "s1", "one"); !strings.Contains(got, "Turn 1 ") {
		t.Errorf("first: %q", got)
	}
	if got := r.ask(t, "s1", "two"); !strings.Contains(got, "Turn 2 ") {
		t.Errorf("second: %q", got)
	}
	if got := r.ask(t, "s2", "other"); !strings.Contains(got, "Turn 1 ") {
		t.Errorf("another session: %q", got)
	}
	r.stop()
	db.Close()
	db = openStore(t, path)
	r = start(t, func(o *gateway.Options) { o.Store = db })
	if got := r.ask(t, "s1", "three"); !strings.Contains(got, "Turn 3 ") {
		t.Errorf("after a restart: %q", got)
	}
}

func TestGeneratedSessionCanBeContinued(t *testing.T) {
	r := start(t)
	resp, _ := r.post(t, hello)
	if got := r.ask(t, resp.Header.Get(gateway.SessionHeader), "again"); !strings.Contains(got, "Turn 2 ") {
		t.Errorf("%q", got)
	}
}

// What the model sees and what is kept, for every way a client may send a
// conversation.
func TestWhatIsNew(t *testing.T) {
	var seen []chat.Message
	db := openStore(t, filepath.Join(t.TempDir(), store.FileName))
	r := start(t, func(o *gateway.Options) { o.Store = db }, withModel(script(func(_ context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
		seen = slices.Clone(req.Messages)
		return say("reply", emit)
	})))
	steps := []struct{ messages, sees string }{
		// the first request brings its past along
		{`{"role":"system","content":"S1"},{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}`, "S1 a b c"},
		// a client that repeats everything
		{`{"role":"user","content":"a"},{"role":"assistant","content":"WRONG"},{"role":"user","content":"d"}`, "a b c reply d"},
		// one that sends only what is new, with a rule for this turn, in parts
		{`{"role":"user","content":"e"},{"role":"developer","content":[{"type":"text","text":"S"},{"type":"text","text":"2"}]},{"role":"user","content":"f"}`, "S2 a b c reply d reply e f"},
		// a rule before the repeated past applies too
		{`{"role":"system","content":"S3"},{"role":"assistant","content":null},{"role":"user","content":"g"}`, "S3 a b c reply d reply e f reply g"},
	}
	for i, s := range steps {
		resp, body := r.post(t, `{"messages":[`+s.messages+`]}`, gateway.SessionHeader, "s")
		if resp.StatusCode != 200 || resp.Header.Get(gateway.SessionHeader) != "s" {
			t.Fatalf("step %d: %s %s", i, resp.Status, body)
		}
		if got := join(seen); got != s.sees {
			t.Errorf("step %d: the model saw %q, want %q", i, got, s.sees)
		}
	}
	kept, err := db.History(t.Context(), "s")
	if want := "a b c reply d reply e f reply g reply"; err != nil || join(kept) != want {
		t.Errorf("kept %q, want %q, %v", join(kept), want, err)
	}
}

// Whatever the interleaving: in each session the turns run one at a time, in
// the order they were accepted, and each sees all before it.
func TestSessionsKeepTheirOrder(t *testing.T) {
	var mu sync.Mutex
	running := map[string]int{}
	r := start(t, func(o *gateway.Options) { o.MaxRunning = 3 }, withModel(script(func(_ context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
		last := req.Messages[len(req.Messages)-1].Text
		id, _, _ := strings.Cut(last, "/")
		mu.Lock()
		running[id]++
		alone := running[id] == 1
		mu.Unlock()
		defer func() { mu.Lock(); running[id]--; mu.Unlock() }()
		if !alone {
			return chat.Reply{}, errors.New("two turns of one session at once")
		}
		return say(fmt.Sprint(len(req.Messages)/2+1), emit)
	})))
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		sessions := rapid.IntRange(1, 4).Draw(rt, "sessions")
		plan := rapid.SliceOfN(rapid.IntRange(0, sessions-1), 1, 12).Draw(rt, "plan")
		var wg sync.WaitGroup
		turn := make([]int, sessions)
		answers := make([]string, len(plan))
		for i, s := range plan {
			id := fmt.Sprintf("r%d-s%d", round, s)
			turn[s]++
			accepted := r.received(t) + 1
			wg.Go(func() {
				resp, body := r.post(t, fmt.Sprintf(`{"messages":[{"role":"user","content":"%s/%d"}]}`, id, i), gateway.SessionHeader, id)
				answers[i] = fmt.Sprint(resp.StatusCode, " ", content(body))
			})
			until(t, "the message is accepted", func() bool { return r.received(t) >= accepted })
		}
		wg.Wait()
		count := make([]int, sessions)
		for i, s := range plan {
			count[s]++
			if want := fmt.Sprint("200 ", count[s]); answers[i] != want {
				rt.Fatalf("request %d of plan %v got %q, want %q", i, plan, answers[i], want)
			}
		}
	})
}

func TestPanicOfAModelFailsOneTurn(t *testing.T) {
	r := start(t, withModel(script(func(_ context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
		if req.Messages[0].Text == "hello" {
			panic("bug")
		}
		return say("fine", emit)
	})))
	if resp, body := r.post(t, hello); resp.StatusCode != 502 || strings.Contains(body, "goroutine") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if got := r.ask(t, "s", "other"); got != "fine" {
		t.Errorf("%q", got)
	}
}

func TestAcceptedMeansAnsweredThoughTheClientLeft(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	db := openStore(t, filepath.Join(t.TempDir(), store.FileName))
	r := start(t, func(o *gateway.Options) { o.Store = db }, withModel(script(func(_ context.Context, _ chat.Request, emit func(string) error) (chat.Reply, error) {
		close(begun)
		<-release
		return say("late", emit)
	})))
	ctx, leave := context.WithCancel(t.Context())
	c := r.client(session("s"))
	go func() { <-begun; leave() }()
	if _, err := c.Chat.Completions.New(ctx, params("x")); !errors.Is(err, context.Canceled) {
		t.Fatalf("the client got %v", err)
	}
	close(release)
	until(t, "the turn is stored", func() bool {
		list, err := db.History(t.Context(), "s")
		return err == nil && join(list) == "x late"
	})
}

func TestFullQueueRefuses(t *testing.T) {
	release := make(chan struct{})
	r := start(t, func(o *gateway.Options) { o.MaxRunning, o.MaxQueued = 1, 1 }, withModel(script(func(_ context.Context, _ chat.Request, emit func(string) error) (chat.Reply, error) {
		<-release
		return say("ok", emit)
	})))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(release)
	wg.Go(func() { r.post(t, hello) })
	until(t, "one runs", func() bool { return r.metric(t, "hermes_messages_running") == 1 })
	wg.Go(func() { r.post(t, hello) })
	until(t, "one waits", func() bool { return r.metric(t, "hermes_messages_queued") == 1 })
	if resp, body := r.post(t, hello); resp.StatusCode != 503 || !strings.Contains(body, "overloaded") {
		t.Errorf("%s %s", resp.Status, body)
	}
}
