package openai

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"github.com/hermesgw/hermes/internal/chat"
)

const (
	// statusOverloaded is what Anthropic, and proxies in front of it, answer
	// when they have no room: docs.anthropic.com/en/api/errors.
	statusOverloaded = 529
	// maxRefusal bounds what is read of an error's body, in bytes.
	maxRefusal = 64 << 10
)

// refusal is an answer that is an error: a status of 400 and above, or an error
// inside a stream that began well.
type refusal struct {
	status  int // 0: the error does not say
	code    string
	typ     string
	message string
	after   time.Duration
}

func (r *refusal) Error() string {
	switch {
	case r.status == 0:
		return "sent an error: " + clip(r.message)
	case r.message == "":
		return fmt.Sprintf("answered %d", r.status)
	}
	return fmt.Sprintf("answered %d: %s", r.status, clip(r.message))
}

// refuse turns an answer with an error's status into a refusal. The client
// would do so only for JSON with an error object in it; proxies answer with web
// pages and vLLM with an object of its own, and both have a status to heed.
func refuse(req *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	resp, err := next(req)
	if err != nil {
		return resp, err
	}
	bad := resp.StatusCode >= http.StatusBadRequest
	if !bad && !inOnePiece(resp) {
		return resp, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		return nil, err
	}
	r := parseRefusal(body)
	if bad {
		r.status, r.after = resp.StatusCode, retryAfter(resp.Header)
	}
	return nil, r
}

// inOnePiece is true for JSON where a stream was asked for. Servers send it for
// an error whose status they forgot to set. No stream of events begins so.
func inOnePiece(resp *http.Response) bool {
	body := bufio.NewReader(resp.Body)
	first, _ := body.Peek(1) // an error comes again at the next read
	resp.Body = struct {
		io.Reader
		io.Closer
	}{body, resp.Body}
	return string(first) == "{"
}

// parseRefusal reads {"error":{…}}, {"error":"text"} and vLLM's older bare
// {"message":…}; of anything else the text itself is the message.
func parseRefusal(body []byte) *refusal {
	var outer struct {
		Error json.RawMessage `json:"error"`
	}
	var inner struct {
		Message string          `json:"message"`
		Type    string          `json:"type"`
		Code    json.RawMessage `json:"code"` // a word or, where it repeats the status, a number
	}
	var text string
	_ = json.Unmarshal(body, &outer)
	object := []byte(cmp.Or(string(outer.Error), string(body)))
	if json.Unmarshal(object, &text) == nil {
		return &refusal{message: text}
	}
	if json.Unmarshal(object, &inner) != nil {
		return &refusal{message: string(body)}
	}
	r := &refusal{message: cmp.Or(inner.Message, string(body)), typ: inner.Type}
	if json.Unmarshal(inner.Code, &r.code) != nil {
		r.status, _ = strconv.Atoi(string(inner.Code))
	}
	return r
}

// kind tells what the caller may do. Words are looked at where the status says
// too little; each is a provider's own.
func (r *refusal) kind() chat.Kind {
	switch {
	case r.tooLong():
		return chat.TooLong
	case r.code == "insufficient_quota", r.typ == "insufficient_quota": // OpenAI's 429 that waiting does not help
		return chat.Auth
	case r.status != 0:
		return kindOfStatus(r.status)
	case strings.Contains(r.typ+r.code, "rate_limit"):
		return chat.RateLimited
	case r.typ == "invalid_request_error":
		return chat.Invalid
	default: // it broke in the middle of an answer that it had begun
		return chat.Unavailable
	}
}

// tooLong knows the words for a context that is full.
func (r *refusal) tooLong() bool {
	if r.code == "context_length_exceeded" || // OpenAI
		r.typ == "exceed_context_size_error" || // llama.cpp
		r.status == http.StatusRequestEntityTooLarge {
		return true
	}
	if r.status == http.StatusTooManyRequests {
		return false // limits of tokens per minute speak of tokens, too
	}
	said := strings.ToLower(r.message)
	for _, words := range []string{
		"maximum context length",               // OpenAI, vLLM
		"longer than the maximum model length", // vLLM
		"available context size",               // llama.cpp
		"exceed context window",                // llama-cpp-python
		"exceeds the context length",           // Ollama
		"exceeded max context length",          // Ollama
		"exceeds maximum context length",       // Ollama
		"prompt is too long",                   // Anthropic and proxies in front of it
	} {
		if strings.Contains(said, words) {
			return true
		}
	}
	return false
}

func kindOfStatus(status int) chat.Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusPaymentRequired:
		return chat.Auth
	case http.StatusNotFound: // no such model or address: the settings are wrong, not the request
		return chat.Failed
	case http.StatusTooManyRequests:
		return chat.RateLimited
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, statusOverloaded:
		return chat.Unavailable
	}
	if status >= http.StatusInternalServerError {
		return chat.Unavailable
	}
	return chat.Invalid
}

// explain gives a failure its kind. What is no refusal is a connection that was
// not there or got lost, or an answer that is no JSON.
func (m *Model) explain(err error) error {
	var r *refusal
	var event *ssestream.StreamError
	var network net.Error
	switch {
	case errors.As(err, &r):
	case errors.As(err, &event):
		r = parseRefusal(event.Event.Data)
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF):
		return m.failure(chat.Unavailable, "failed: "+clip(err.Error()), 0, err)
	default:
		return m.failure(chat.Unavailable, "sent what cannot be read: "+clip(err.Error()), 0, err)
	}
	return m.failure(r.kind(), r.Error(), r.after, err)
}

func (m *Model) failure(k chat.Kind, what string, after time.Duration, err error) error {
	return &chat.Error{Kind: k, Message: fmt.Sprintf("the model %q at %s %s", m.name, m.baseURL, what), RetryAfter: after, Err: err}
}

// retryAfter reads how long to wait: OpenAI's own milliseconds, then seconds or
// a date (RFC 9110, section 10.2.3). 0 where it is not said, or is past.
func retryAfter(h http.Header) time.Duration {
	if d, ok := number(h.Get("Retry-After-Ms"), time.Millisecond); ok {
		return d
	}
	said := h.Get("Retry-After")
	if d, ok := number(said, time.Second); ok {
		return d
	}
	at, err := http.ParseTime(said)
	if err != nil {
		return 0
	}
	return max(0, time.Until(at))
}

// number reads a count of units, which may have a fraction.
func number(s string, unit time.Duration) (time.Duration, bool) {
	n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || !(n >= 0) { // not a number is not at least 0, either
		return 0, false
	}
	if n >= float64(math.MaxInt64)/float64(unit) {
		return math.MaxInt64, true
	}
	return time.Duration(n * float64(unit)), true
}

// clip makes one short line of what a provider said.
func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}
