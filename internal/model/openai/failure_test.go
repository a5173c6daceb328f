package openai_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/model/modeltest"
	"github.com/hermesgw/hermes/internal/model/openai"
)

// answering is a server whose every answer has this status and body.
func answering(t *testing.T, status int, body string, header ...string) *openai.Model {
	t.Helper()
	return model(t, server(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
}

func failure(t *testing.T, m *openai.Model) *chat.Error {
	t.Helper()
	_, err := complete(t, m)
	var e *chat.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a failure of the model", err)
	}
	return e
}

// What each server says when the context is full, as recorded in its sources or
// its users' reports.
func TestFullContextIsToldFromABadRequest(t *testing.T) {
	for name, answer := range map[string]struct {
		status int
		body   string
	}{
		"OpenAI":              {400, `{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`},
		"vLLM":                {400, `{"object":"error","message":"This model's maximum context length is 6048 tokens. However, you requested 6616 tokens","type":"BadRequestError","param":null,"code":400}`},
		"vLLM, the prompt":    {400, `{"error":{"message":"The decoder prompt (length 9000) is longer than the maximum model length of 4096.","type":"BadRequestError","code":400}}`},
		"llama.cpp":           {400, `{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":1407,"n_ctx":256}}`},
		"llama.cpp with 500":  {500, `{"error":{"code":500,"message":"the request exceeds the available context size. try increasing the context size or enable context shift","type":"server_error"}}`},
		"llama.cpp with 200":  {200, `{"error":{"code":400,"message":"request (4476 tokens) exceeds the available context size (4096 tokens)","type":"exceed_context_size_error"}}`},
		"llama.cpp's stream":  {200, "data: {\"error\":{\"code\":400,\"message\":\"x\",\"type\":\"exceed_context_size_error\"}}\n\n"},
		"llama-cpp-python":    {400, `{"error":{"message":"Requested tokens (2285) exceed context window of 2048","type":"invalid_request_error","code":null}}`},
		"Ollama":              {400, `{"error":{"message":"the input length exceeds the context length","type":"invalid_request_error","param":null,"code":null}}`},
		"a proxy's web page":  {413, `<html>413 Request Entity Too Large</html>`},
		"only a sentence":     {400, `{"error":"prompt is too long: 210000 tokens > 200000 maximum"}`},
		"a word in its place": {400, `{"error":{"message":"no","code":"context_length_exceeded"}}`},
	} {
		if e := failure(t, answering(t, answer.status, answer.body)); e.Kind != chat.TooLong {
			t.Errorf("%s: kind %q: %s", name, e.Kind, e.Message)
		}
	}
}

func TestKindsBeyondTheStatus(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   chat.Kind
	}{
		"no money left is no matter of waiting": {429, `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}`, chat.Auth},
		"tokens a minute are not the context":   {429, `{"error":{"message":"Limit 30000 tokens; the maximum context length is no matter","type":"tokens","code":"rate_limit_exceeded"}}`, chat.RateLimited},
		"a web page":                            {503, `<html>`, chat.Unavailable},
		"a web page for the wrong key":          {401, `<html>`, chat.Auth},
		"nothing":                               {529, ``, chat.Unavailable},
		"a limit inside the stream":             {200, "data: {\"error\":{\"message\":\"slow down\",\"type\":\"rate_limit_error\"}}\n\n", chat.RateLimited},
		"a status inside the stream":            {200, "data: {\"error\":{\"message\":\"gone\",\"code\":502}}\n\n", chat.Unavailable},
		"a refusal inside the stream":           {200, "data: {\"error\":{\"message\":\"bad\",\"type\":\"invalid_request_error\"}}\n\n", chat.Invalid},
		"an error with status 200":              {200, `{"error":{"message":"model is loading","code":503}}`, chat.Unavailable},
		"a limit of the user's":                 {400, `{"error":{"message":"temperature is too long a word"}}`, chat.Invalid},
	} {
		if e := failure(t, answering(t, c.status, c.body)); e.Kind != c.want {
			t.Errorf("%s: kind %q, want %q: %s", name, e.Kind, c.want, e.Message)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	date := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
	for name, c := range map[string]struct {
		header   []string
		min, max time.Duration
	}{
		"seconds":            {[]string{"Retry-After", "7"}, 7 * time.Second, 7 * time.Second},
		"a fraction":         {[]string{"Retry-After", "0.5"}, 500 * time.Millisecond, 500 * time.Millisecond},
		"milliseconds first": {[]string{"Retry-After", "7", "Retry-After-Ms", "250"}, 250 * time.Millisecond, 250 * time.Millisecond},
		"a date":             {[]string{"Retry-After", date}, 60 * time.Second, 90 * time.Second},
		"a date that is past": {
			[]string{"Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"}, 0, 0,
		},
		"nothing":     {nil, 0, 0},
		"negative":    {[]string{"Retry-After", "-3"}, 0, 0},
		"no number":   {[]string{"Retry-After", "NaN"}, 0, 0},
		"a word":      {[]string{"Retry-After", "soon"}, 0, 0},
		"never again": {[]string{"Retry-After", "1e300"}, 1<<63 - 1, 1<<63 - 1},
	} {
		for _, status := range []int{429, 503, 529} {
			e := failure(t, answering(t, status, "{}", c.header...))
			if e.RetryAfter < c.min || e.RetryAfter > c.max {
				t.Errorf("%s, %d: %s", name, status, e.RetryAfter)
			}
		}
	}
}

func TestErrorOfAnySizeIsOneLine(t *testing.T) {
	e := failure(t, answering(t, 500, strings.Repeat("endless\n", 1<<20)))
	if len(e.Message) > 500 || strings.Contains(e.Message, "\n") {
		t.Errorf("%d bytes: %.600q", len(e.Message), e.Message)
	}
}

// bubble returns a model whose server is reached through a pipe, so that time
// is the test's own.
func bubble(t *testing.T, h http.HandlerFunc) *openai.Model {
	t.Helper()
	m, err := openai.New(openai.Options{BaseURL: "http://model.invalid/v1", Model: "test-1", Client: modeltest.Client(t, h)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSilenceIsNotWaitedFor(t *testing.T) {
	for name, c := range map[string]struct {
		speak func(http.ResponseWriter)
		want  time.Duration
	}{
		"before the first byte": {func(http.ResponseWriter) {}, 5 * time.Minute},
		"inside the answer":     {func(w http.ResponseWriter) { say(w, "half") }, 2 * time.Minute},
		"after bytes that are no text": {func(w http.ResponseWriter) {
			for range 10 {
				time.Sleep(time.Minute)
				_, _ = io.WriteString(w, ": still thinking\n\n")
				w.(http.Flusher).Flush()
			}
		}, 12 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := bubble(t, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					w.Header().Set("Content-Type", "text/event-stream")
					c.speak(w)
					<-r.Context().Done()
				})
				start := time.Now()
				e := failure(t, m)
				if took := time.Since(start); took != c.want {
					t.Errorf("gave up after %s, want %s", took, c.want)
				}
				if e.Kind != chat.Unavailable || !strings.Contains(e.Message, "nothing came for") {
					t.Errorf("kind %q: %s", e.Kind, e.Message)
				}
			})
		})
	}
}
