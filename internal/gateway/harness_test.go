package gateway_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/model/offline"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/turn"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// running is a gateway under test and how to reach it.
type running struct {
	*gateway.Gateway
	url  string
	stop func()
}

func start(t testing.TB, change ...func(*gateway.Options)) *running {
	t.Helper()
	o := gateway.Options{Profile: "default", Host: "127.0.0.1", Model: offline.New(offline.Options{}), Retries: -1}
	for _, f := range change {
		f(&o)
	}
	if o.Store == nil {
		o.Store = openStore(t, filepath.Join(t.TempDir(), store.FileName))
	}
	g, err := gateway.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-g.Ready():
	case <-time.After(patience):
		state, reason, _ := g.State()
		t.Fatalf("not ready but %s: %s", state, reason)
	}
	return &running{Gateway: g, url: "http://" + g.Address(), stop: stop}
}

func openStore(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// script is a model whose answers a test writes.
type script func(ctx context.Context, req chat.Request, emit func(string) error) (chat.Reply, error)

func (script) Name() string { return "script" }

func (s script) Complete(ctx context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
	return s(ctx, req, emit)
}

func withModel(m chat.Model) func(*gateway.Options) {
	return func(o *gateway.Options) { o.Model = m }
}

func say(text string, emit func(string) error) (chat.Reply, error) {
	return chat.Reply{Text: text, Finish: chat.FinishStop}, emit(text)
}

func (r *running) client(opts ...option.RequestOption) api.Client {
	return api.NewClient(append([]option.RequestOption{
		option.WithBaseURL(r.url + "/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0),
	}, opts...)...)
}

func params(text string) api.ChatCompletionNewParams {
	return api.ChatCompletionNewParams{Model: "any", Messages: []api.ChatCompletionMessageParamUnion{api.UserMessage(text)}}
}

func session(id string) option.RequestOption { return option.WithHeader(gateway.SessionHeader, id) }

func (r *running) ask(t testing.TB, id, text string) string {
	t.Helper()
	c := r.client(session(id))
	got, err := c.Chat.Completions.New(t.Context(), params(text))
	if err != nil {
		t.Fatal(err)
	}
	return got.Choices[0].Message.Content
}

// post sends a raw body and returns the status and the body of the answer.
func (r *running) post(t testing.TB, body string, header ...string) (*http.Response, string) {
	t.Helper()
	return r.do(t, http.MethodPost, "/v1/chat/completions", body, header...)
}

func (r *running) do(t testing.TB, method, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

const hello = `{"model":"m","messages":[{"role":"user","content":"hello"}]}`

func join(list []chat.Message) string {
	var words []string
	for _, m := range list {
		words = append(words, m.Text)
	}
	return strings.Join(words, " ")
}

func content(body string) string {
	var c struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if json.Unmarshal([]byte(body), &c) != nil || len(c.Choices) != 1 {
		return body
	}
	return c.Choices[0].Message.Content
}

// until polls until what holds.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// metric reads one sample of /metrics, summed over its labels.
func (r *running) metric(t testing.TB, name string) float64 {
	t.Helper()
	_, body := r.do(t, http.MethodGet, "/metrics", "")
	sum := 0.0
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, name+"{") {
			v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += v
		}
	}
	return sum
}

func (r *running) received(t testing.TB) float64 {
	return r.metric(t, "hermes_messages_received_total")
}

// errorShape demands OpenAI's.
func errorShape(t *testing.T, body string) {
	t.Helper()
	var e struct{ Error map[string]any }
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error["message"] == "" || e.Error["type"] == "" || e.Error["code"] == nil {
		t.Errorf("not an error in OpenAI's shape: %s", body)
	}
}

// flaky is a store whose disk can be full.
type flaky struct {
	*store.Store
	mu   sync.Mutex
	full error
}

func (f *flaky) set(err error) { f.mu.Lock(); defer f.mu.Unlock(); f.full = err }

func (f *flaky) err() error { f.mu.Lock(); defer f.mu.Unlock(); return f.full }

func (f *flaky) Accept(ctx context.Context, m turn.Message, after func(turn.Message)) (turn.Message, bool, error) {
	if err := f.err(); err != nil {
		return turn.Message{}, false, err
	}
	return f.Store.Accept(ctx, m, after)
}

func (f *flaky) Writable(ctx context.Context) error {
	if err := f.err(); err != nil {
		return err
	}
	return f.Store.Writable(ctx)
}
