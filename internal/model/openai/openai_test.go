package openai_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/model/modeltest"
	"github.com/hermesgw/hermes/internal/model/openai"
	"github.com/hermesgw/hermes/internal/secret"
)

// server is a small OpenAI-compatible provider on loopback.
func server(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/v1"
}

func model(t *testing.T, url string) *openai.Model {
	t.Helper()
	m, err := openai.New(openai.Options{BaseURL: url, Model: "test-1", APIKey: secret.New("sk-test")})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func event(w io.Writer, v string) {
	fmt.Fprintf(w, "data: %s\n\n", v)
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

func say(w io.Writer, text string) {
	data, _ := json.Marshal(text)
	event(w, `{"id":"c","object":"chat.completion.chunk","created":1,"model":"test-1","choices":[{"index":0,"delta":{"content":`+string(data)+`},"finish_reason":null}]}`)
}

func finish(w io.Writer, why string) {
	event(w, `{"id":"c","object":"chat.completion.chunk","created":1,"model":"test-1","choices":[{"index":0,"delta":{},"finish_reason":"`+why+`"}]}`)
	event(w, `{"id":"c","object":"chat.completion.chunk","created":1,"model":"test-1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`)
	event(w, "[DONE]")
}

func request() chat.Request {
	return chat.Request{Messages: []chat.Message{{Role: chat.User, Text: "hi"}}}
}

func complete(t *testing.T, m chat.Model) (chat.Reply, error) {
	t.Helper()
	return m.Complete(t.Context(), request(), func(string) error { return nil })
}

func TestConformance(t *testing.T) {
	modeltest.Run(t, func(t *testing.T, delay time.Duration) chat.Model {
		return model(t, server(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // else the server does not see the client go
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			say(w, "hello ")
			say(w, "wörld")
			finish(w, "stop")
		}))
	})
}

func TestWhatIsSent(t *testing.T) {
	var got map[string]any
	var auth string
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		auth = r.Header.Get("Authorization")
		_ = json.NewDecoder(r.Body).Decode(&got)
		w.Header().Set("Content-Type", "text/event-stream")
		say(w, "ok")
		finish(w, "length")
	})
	temperature := 0.5
	reply, err := model(t, url).Complete(t.Context(), chat.Request{
		Messages:    []chat.Message{{Role: chat.System, Text: "s"}, {Role: chat.User, Text: "a"}, {Role: chat.Assistant, Text: "b"}, {Role: chat.User, Text: "c"}},
		Temperature: &temperature, MaxTokens: 7, Stop: []string{"END"},
	}, func(string) error { return nil })
	if err != nil || reply.Finish != chat.FinishLength || reply.Usage != (chat.Usage{Input: 3, Output: 2}) {
		t.Fatalf("%+v, %v", reply, err)
	}
	if auth != "Bearer sk-test" {
		t.Errorf("Authorization %q", auth)
	}
	data, _ := json.Marshal(got)
	want := `{"max_tokens":7,"messages":[{"content":"s","role":"system"},{"content":"a","role":"user"},{"content":"b","role":"assistant"},{"content":"c","role":"user"}],` +
		`"model":"test-1","stop":["END"],"stream":true,"stream_options":{"include_usage":true},"temperature":0.5}`
	if string(data) != want {
		t.Errorf("sent\n%s\nwant\n%s", data, want)
	}
}

// A key in the environment may be another profile's.
func TestNothingComesFromTheEnvironment(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "sk-foreign")
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/")
	t.Setenv("OPENAI_ORG_ID", "org-foreign")
	var header http.Header
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		w.Header().Set("Content-Type", "text/event-stream")
		say(w, "ok")
		finish(w, "stop")
	})
	m, err := openai.New(openai.Options{BaseURL: url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := complete(t, m); err != nil {
		t.Fatal(err)
	}
	if all := fmt.Sprint(header); strings.Contains(all, "foreign") {
		t.Errorf("sent %s", all)
	}
}

func TestErrorsHaveAKind(t *testing.T) {
	for status, want := range map[int]chat.Kind{
		400: chat.Invalid, 422: chat.Invalid, 401: chat.Auth, 402: chat.Auth, 403: chat.Auth, 404: chat.Failed,
		413: chat.TooLong, 429: chat.RateLimited, 500: chat.Unavailable, 503: chat.Unavailable, 529: chat.Unavailable,
	} {
		var calls atomic.Int32
		url := server(t, func(w http.ResponseWriter, _ *http.Request) {
			calls.Add(1)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"error":{"message":"no\nway","type":"x","code":"y"}}`)
		})
		_, err := complete(t, model(t, url))
		if chat.KindOf(err) != want || !strings.Contains(err.Error(), "no way") || !strings.Contains(err.Error(), "test-1") {
			t.Errorf("%d: kind %q: %v", status, chat.KindOf(err), err)
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("%d: asked %d times; retries are the caller's, who shows them", status, n)
		}
		if strings.Contains(err.Error(), "sk-test") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%d: %q", status, err)
		}
	}
}

func TestBrokenStreams(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"ends early": func(w http.ResponseWriter, _ *http.Request) { say(w, "half of it") },
		"hangs up":   func(w http.ResponseWriter, _ *http.Request) { say(w, "half"); panic(http.ErrAbortHandler) },
		"error event": func(w http.ResponseWriter, _ *http.Request) {
			say(w, "half")
			event(w, `{"error":{"message":"overloaded"}}`)
		},
		"no json": func(w http.ResponseWriter, _ *http.Request) { event(w, `{{{`) },
		"a web page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>")
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := complete(t, model(t, server(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				h(w, r)
			})))
			if chat.KindOf(err) != chat.Unavailable {
				t.Errorf("kind %q: %v", chat.KindOf(err), err)
			}
			if unread := strings.Contains(err.Error(), "sent what cannot be read: "); unread != (name == "no json") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	_, err := complete(t, model(t, s.URL))
	if chat.KindOf(err) != chat.Unavailable || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("kind %q: %v", chat.KindOf(err), err)
	}
}

func TestOpenAIItselfNeedsAKey(t *testing.T) {
	if _, err := openai.New(openai.Options{}); err == nil || !strings.Contains(err.Error(), "HERMES_MODEL_API_KEY") {
		t.Errorf("got %v", err)
	}
}
