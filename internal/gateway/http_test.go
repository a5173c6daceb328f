package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/model/modeltest"
	"github.com/hermesgw/hermes/internal/model/offline"
	"github.com/hermesgw/hermes/internal/model/openai"
	"github.com/hermesgw/hermes/internal/secret"
)

func TestOpenAIClient(t *testing.T) {
	r := start(t)
	c := r.client()

	t.Run("whole", func(t *testing.T) {
		var resp *http.Response
		got, err := c.Chat.Completions.New(t.Context(), params("hello"), option.WithResponseInto(&resp))
		if err != nil {
			t.Fatal(err)
		}
		if got.Object != "chat.completion" || got.Model != "offline" || !strings.HasPrefix(got.ID, "chatcmpl-") || got.Created == 0 {
			t.Errorf("%+v", got)
		}
		if ch := got.Choices[0]; ch.FinishReason != "stop" || ch.Message.Role != "assistant" || !strings.Contains(ch.Message.Content, "hello") {
			t.Errorf("%+v", ch)
		}
		if got.Usage.TotalTokens == 0 || got.Usage.TotalTokens != got.Usage.PromptTokens+got.Usage.CompletionTokens {
			t.Errorf("usage %+v", got.Usage)
		}
		if id := resp.Header.Get(gateway.SessionHeader); !strings.HasPrefix(id, "sess_") {
			t.Errorf("session %q", id)
		}
	})

	for _, usage := range []bool{false, true} {
		t.Run(fmt.Sprintf("stream, usage %v", usage), func(t *testing.T) {
			p := params("hello")
			if usage {
				p.StreamOptions = api.ChatCompletionStreamOptionsParam{IncludeUsage: param.NewOpt(true)}
			}
			stream := c.Chat.Completions.NewStreaming(t.Context(), p)
			acc := api.ChatCompletionAccumulator{}
			chunks := 0
			for stream.Next() {
				if !acc.AddChunk(stream.Current()) {
					t.Errorf("the client cannot add chunk %s", stream.Current().RawJSON())
				}
				chunks++
			}
			if err := stream.Err(); err != nil {
				t.Fatal(err)
			}
			if ch := acc.Choices[0]; ch.FinishReason != "stop" || ch.Message.Role != "assistant" || !strings.Contains(ch.Message.Content, "You said: hello") {
				t.Errorf("%+v", ch)
			}
			if (acc.Usage.TotalTokens > 0) != usage || chunks < 3 {
				t.Errorf("%d chunks, usage %+v", chunks, acc.Usage)
			}
		})
	}

	t.Run("models", func(t *testing.T) {
		page, err := c.Models.List(t.Context())
		if err != nil || len(page.Data) != 1 || page.Data[0].ID != "offline" || page.Data[0].OwnedBy != "hermes" {
			t.Errorf("%+v, %v", page, err)
		}
		if m, err := c.Models.Get(t.Context(), "offline"); err != nil || m.ID != "offline" {
			t.Errorf("%+v, %v", m, err)
		}
		_, err = c.Models.Get(t.Context(), "gpt-9")
		var e *api.Error
		if !errors.As(err, &e) || e.StatusCode != 404 || e.Code != "model_not_found" {
			t.Errorf("%v", err)
		}
	})

	t.Run("error", func(t *testing.T) {
		_, err := c.Chat.Completions.New(t.Context(), api.ChatCompletionNewParams{Model: "x"})
		var e *api.Error
		if !errors.As(err, &e) || e.StatusCode != 400 || e.Type != "invalid_request_error" || e.Param != "messages" {
			t.Errorf("%v", err)
		}
	})
}

// Our own gateway is an OpenAI-compatible provider like any other.
func TestModelBehindAGateway(t *testing.T) {
	modeltest.Run(t, func(t *testing.T, delay time.Duration) chat.Model {
		r := start(t, withModel(offline.New(offline.Options{Delay: delay})))
		m, err := openai.New(openai.Options{BaseURL: r.url + "/v1", Model: "offline"})
		if err != nil {
			t.Fatal(err)
		}
		return m
	})
}

func TestStreamOnTheWire(t *testing.T) {
	r := start(t, withModel(script(func(_ context.Context, _ chat.Request, emit func(string) error) (chat.Reply, error) {
		return say("hi", emit)
	})))
	resp, body := r.post(t, `{"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"x"}]}`)
	if ct := resp.Header.Get("Content-Type"); !strings.HasPrefix(ct, "text/event-stream") {
		t.Errorf("Content-Type %q", ct)
	}
	body = regexp.MustCompile(`"id":"chatcmpl-[a-z0-9]+","object":"chat.completion.chunk","created":\d+,"model":"script"`).ReplaceAllString(body, "HEAD")
	want := `data: {HEAD,"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

data: {HEAD,"choices":[{"index":0,"delta":{"content":"hi"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {HEAD,"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

data: {HEAD,"choices":[],"usage":{"completion_tokens":0,"prompt_tokens":0,"total_tokens":0}}

data: [DONE]

`
	if body != want {
		t.Errorf("got\n%s\nwant\n%s", body, want)
	}
}

func TestDeltasArriveBeforeTheEnd(t *testing.T) {
	release := make(chan struct{})
	unblock := sync.OnceFunc(func() { close(release) })
	defer unblock()
	r := start(t, withModel(script(func(_ context.Context, _ chat.Request, emit func(string) error) (chat.Reply, error) {
		if err := emit("first "); err != nil {
			return chat.Reply{}, err
		}
		<-release
		return chat.Reply{Text: "first second", Finish: chat.FinishStop}, emit("second")
	})))
	c := r.client()
	stream := c.Chat.Completions.NewStreaming(t.Context(), params("x"))
	var text strings.Builder
	for stream.Next() {
		for _, ch := range stream.Current().Choices {
			text.WriteString(ch.Delta.Content)
		}
		if text.String() == "first " {
			unblock() // only reached if the first delta did not wait for the second
		}
	}
	if err := stream.Err(); err != nil || text.String() != "first second" {
		t.Errorf("%q, %v", text.String(), err)
	}
}

func TestBadRequests(t *testing.T) {
	r := start(t)
	msg := func(s string) string { return `{"messages":[{"role":"user","content":` + s + `}]}` }
	for name, tc := range map[string]struct {
		body, want string
		header     []string
		status     int
	}{
		"empty":               {body: "", status: 400, want: "the body is empty"},
		"syntax":              {body: "{\n  \"messages\": [}\n}", status: 400, want: "at line 2, column 16"},
		"cut off":             {body: `{"messages":[`, status: 400, want: "ends too early, at line 1, column 13"},
		"goes on":             {body: hello + " x", status: 400, want: "goes on after the end"},
		"wrong type":          {body: `{"messages":"x"}`, status: 400, want: "messages must not be a JSON string (line 1, column 15"},
		"array":               {body: `[]`, status: 400, want: "the body must not be a JSON array"},
		"null":                {body: `null`, status: 400, want: "at least one message"},
		"no messages":         {body: `{}`, status: 400, want: "at least one message"},
		"role":                {body: `{"messages":[{"role":"robot","content":"x"}]}`, status: 400, want: `role \"robot\" is not supported`},
		"image":               {body: msg(`[{"type":"image_url","image_url":{"url":"x"}}]`), status: 400, want: `type \"image_url\" are not supported`},
		"content number":      {body: msg(`7`), status: 400, want: "must be a text or a list of parts"},
		"nothing to answer":   {body: `{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]}`, status: 400, want: "there is nothing to answer"},
		"only rules":          {body: `{"messages":[{"role":"system","content":"x"}]}`, status: 400, want: "there is nothing to answer"},
		"two answers":         {body: `{"n":2,"messages":[{"role":"user","content":"x"}]}`, status: 400, want: "n must be 1"},
		"session characters":  {body: hello, header: []string{gateway.SessionHeader, "a/b"}, status: 400, want: "must be 1 to 128 of"},
		"session empty":       {body: hello, header: []string{gateway.SessionHeader, ""}, status: 400, want: "must be 1 to 128 of"},
		"session long":        {body: hello, header: []string{gateway.SessionHeader, strings.Repeat("x", 129)}, status: 400, want: "must be 1 to 128 of"},
		"too large":           {body: msg(`"` + strings.Repeat("x", gateway.MaxBody) + `"`), status: 413, want: "larger than 4 MiB"},
		"foreign origin":      {body: hello, header: []string{"Origin", "http://evil.example"}, status: 403, want: "foreign_origin"},
		"foreign host":        {body: hello, header: []string{"Host", "evil.example"}, status: 403, want: "foreign_host"},
		"unknown field, fine": {body: `{"frobnicate":{"a":[1]},"messages":[{"role":"user","content":"x","name":"bob"}]}`, status: 200, want: "chat.completion"},
		"longest session":     {body: hello, header: []string{gateway.SessionHeader, strings.Repeat("x", 128)}, status: 200, want: "chat.completion"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := r.post(t, tc.body, tc.header...)
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("%s %s, want %d and %q", resp.Status, body, tc.status, tc.want)
			}
			if tc.status != 200 {
				errorShape(t, body)
			}
		})
	}
}

func TestUnknownRoutesAndMethods(t *testing.T) {
	r := start(t)
	for _, tc := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 404},
		{"GET", "/v1", 404},
		{"POST", "/v1/completions", 404},
		{"GET", "/v1/chat/completions", 405},
		{"DELETE", "/v1/models", 405},
		{"POST", "/livez", 405},
		{"POST", "/metrics", 405},
	} {
		resp, body := r.do(t, tc.method, tc.path, "")
		if resp.StatusCode != tc.status {
			t.Errorf("%s %s: %s", tc.method, tc.path, resp.Status)
		}
		if tc.status == 405 && resp.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", tc.method, tc.path)
		}
		errorShape(t, body)
	}
}

func TestKey(t *testing.T) {
	r := start(t, func(o *gateway.Options) { o.Key = secret.New("hk_1") })
	for _, path := range []string{"/v1/models", "/metrics", "/v1/chat/completions", "/nothing"} {
		for header, want := range map[string]int{"": 401, "Bearer hk_2": 401, "Basic hk_1": 401} {
			resp, body := r.do(t, http.MethodGet, path, "", "Authorization", header)
			if resp.StatusCode != want {
				t.Errorf("%s with %q: %s", path, header, resp.Status)
			}
			errorShape(t, body)
		}
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if resp, _ := r.do(t, http.MethodGet, path, ""); resp.StatusCode != 200 {
			t.Errorf("%s needs a key: %s", path, resp.Status)
		}
	}
	c := r.client(option.WithAPIKey("hk_1"))
	if _, err := c.Chat.Completions.New(t.Context(), params("x")); err != nil {
		t.Error(err)
	}
}

func TestModelErrorsBecomeStatuses(t *testing.T) {
	for kind, want := range map[chat.Kind]int{
		chat.Invalid: 400, chat.TooLong: 400, chat.Auth: 502, chat.RateLimited: 429, chat.Unavailable: 503, chat.Failed: 502,
	} {
		r := start(t, withModel(script(func(context.Context, chat.Request, func(string) error) (chat.Reply, error) {
			return chat.Reply{}, &chat.Error{Kind: kind, Message: "because", RetryAfter: 1500 * time.Millisecond}
		})))
		for _, stream := range []string{"", `"stream":true,`} {
			resp, body := r.post(t, `{`+stream+`"messages":[{"role":"user","content":"x"}]}`)
			if resp.StatusCode != want || !strings.Contains(body, "because") || resp.Header.Get("Retry-After") != "2" {
				t.Errorf("%s: %s %s", kind, resp.Status, body)
			}
			errorShape(t, body)
		}
		r.stop()
	}
}

func TestErrorInTheMiddleOfAStream(t *testing.T) {
	r := start(t, withModel(script(func(_ context.Context, _ chat.Request, emit func(string) error) (chat.Reply, error) {
		_ = emit("half")
		return chat.Reply{}, &chat.Error{Kind: chat.Unavailable, Message: "broke off"}
	})))
	c := r.client()
	stream := c.Chat.Completions.NewStreaming(t.Context(), params("x"))
	for stream.Next() {
	}
	if err := stream.Err(); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("the client sees %v", err)
	}
}

// A client that never reads must not hold up the turn or the drain.
func TestDeafClient(t *testing.T) {
	big := strings.Repeat("x", 8<<20)
	r := start(t, withModel(script(func(_ context.Context, _ chat.Request, emit func(string) error) (chat.Reply, error) {
		return say(big, emit)
	})))
	conn, err := net.Dial("tcp", r.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"stream":true,"messages":[{"role":"user","content":"x"}]}`
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}
	until(t, "the turn is answered", func() bool { return r.metric(t, "hermes_messages_answered_total") == 1 })
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

// A client that stops in the middle of its request is told so in time and hung
// up on, whether it would have been let in or not.
func TestBodyThatStops(t *testing.T) {
	for name, c := range map[string]struct{ path, key, code string }{
		"let in":         {"/v1/runs", "", "did not arrive whole"},
		"a stranger":     {"/v1/runs", "key", "invalid_api_key"},
		"a webhook":      {"/webhooks/ci", "", "did not arrive whole"},
		"nobody reads":   {"/v1/runs/run_x/stop", "", "run_not_found"},
		"nothing there":  {"/nope", "", "unknown_url"},
		"a wrong method": {"/livez", "", "method_not_allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, func(o *gateway.Options) {
				o.BodyTimeout = 50 * time.Millisecond
				o.Key = secret.New(c.key)
			})
			conn, err := net.Dial("tcp", r.Address())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"in", c.path)
			answer, err := io.ReadAll(conn) // to the end of the connection
			if err != nil || !strings.Contains(string(answer), c.code) {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
}
