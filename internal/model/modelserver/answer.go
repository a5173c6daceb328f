package modelserver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxBody bounds a request, in bytes.
const maxBody = 64 << 20

// request is what of OpenAI's request matters here.
type request struct {
	Model    string    `json:"model"`
	Stream   bool      `json:"stream"`
	Messages []message `json:"messages"`
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// last returns the number of user messages and the last one's text.
func (r request) last() (users int, text string) {
	for _, m := range r.Messages {
		if m.Role == "user" {
			users, text = users+1, m.Content
		}
	}
	return users, text
}

func (r request) record() Seen {
	users, text := r.last()
	var system []string
	hash, bytes := sha256.New(), 0
	for _, m := range r.Messages {
		fmt.Fprintf(hash, "%s\x00%s\x00", m.Role, m.Content)
		bytes += len(m.Content)
		if m.Role == "system" {
			system = append(system, m.Content)
		}
	}
	return Seen{
		Time: time.Now(), Model: r.Model, Stream: r.Stream, Users: users, Text: cut(text), System: cut(strings.Join(system, "\n")),
		Tokens: bytes / 4, Digest: hex.EncodeToString(hash.Sum(nil)[:8]), Status: http.StatusOK,
	}
}

// complete is one request for an answer.
func (s *Server) complete(w http.ResponseWriter, r *http.Request) {
	var req request
	if err := json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&req); err != nil {
		refuse(w, http.StatusBadRequest, "invalid_request_error", "", "cannot read the request: "+err.Error())
		return
	}
	_, _ = io.Copy(io.Discard, r.Body) // else the server does not see the client go
	seen := req.record()
	seen.Orphan = orphan(r.Context())
	users, text := req.last()
	act, slow := s.directives(seen, text)
	if s.o.Context > 0 && seen.Tokens > s.o.Context {
		act = directive{name: "too_long"}
	}
	a := &answering{
		w: w, gone: r.Context().Done(), stop: s.done, stream: req.Stream, slow: slow,
		model: req.Model, text: Answer(users, text), tokens: seen.Tokens, status: http.StatusOK,
	}
	number := s.begin(seen)
	// An answer that is cut off panics through here, on purpose.
	defer func() { s.end(number, a) }()
	a.run(act)
}

// begin writes the record before anything is sent: whoever has a piece of the
// answer finds its request in the record.
func (s *Server) begin(seen Seen) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen.Number = len(s.seen) + 1
	s.seen = append(s.seen, seen)
	return seen.Number
}

func (s *Server) end(number int, a *answering) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := &s.seen[number-1]
	seen.Status, seen.End, seen.Ended, seen.Pieces = a.status, a.end, time.Now(), a.pieces
}

// answering is one answer on its way.
type answering struct {
	w          http.ResponseWriter
	gone, stop <-chan struct{}
	stream     bool
	slow       time.Duration
	model      string
	text       string
	tokens     int

	status int
	end    string
	pieces int
}

// run answers, or misbehaves as told.
func (a *answering) run(act directive) {
	a.end = act.name
	if status, err := strconv.Atoi(act.name); err == nil && status >= 400 && status < 600 {
		a.refuse(status, act.argument)
		return
	}
	switch act.name {
	case "too_long":
		a.status = http.StatusBadRequest
		refuse(a.w, a.status, "invalid_request_error", "context_length_exceeded",
			fmt.Sprintf("This model's maximum context length is exceeded: your messages resulted in %d tokens.", a.tokens))
	case "silent":
		a.wait(nil)
	case "empty":
		a.say(nil, "stop")
	case "endless":
		for a.piece("and so on and on, ") {
		}
	case "reset":
		a.some(act.number(1))
		panic(http.ErrAbortHandler)
	case "truncate":
		a.some(act.number(1))
	case "json":
		a.some(1)
		a.write("data: {\"choices\":[{\"delta\":{\"cont\n\n")
	case "error":
		a.some(1)
		a.write("data: {\"error\":{\"message\":\"the engine broke\",\"type\":\"server_error\"}}\n\n")
	default:
		a.end = "answered"
		a.say(pieces(a.text), "stop")
	}
}

func (a *answering) refuse(status int, after string) {
	a.status = status
	if after != "" {
		a.w.Header().Set("Retry-After", after)
	}
	refuse(a.w, status, "scripted_error", "", "scripted refusal")
}

// say sends a whole answer.
func (a *answering) say(list []string, finish string) {
	if !a.stream {
		a.whole(list, finish)
		return
	}
	for _, p := range list {
		if !a.piece(p) {
			return
		}
	}
	a.chunk(map[string]any{"choices": []any{map[string]any{"index": 0, "delta": map[string]any{}, "finish_reason": finish}}})
	a.chunk(map[string]any{"choices": []any{}, "usage": a.usage(list)})
	a.write("data: [DONE]\n\n")
}

// some sends the first n pieces of the answer.
func (a *answering) some(n int) {
	list := pieces(a.text)
	for _, p := range list[:min(n, len(list))] {
		a.piece(p)
	}
}

// piece sends one piece of text; false: nobody listens any more.
func (a *answering) piece(text string) bool {
	if !a.wait(time.After(a.slow)) {
		return false
	}
	a.pieces++
	a.chunk(map[string]any{"choices": []any{map[string]any{"index": 0, "delta": map[string]any{"content": text}, "finish_reason": nil}}})
	return true
}

// wait returns true when it is time, false when the client is gone first.
func (a *answering) wait(time <-chan time.Time) bool {
	select {
	case <-time:
		return true
	case <-a.gone:
	case <-a.stop:
	}
	a.end = "gone"
	return false
}

func (a *answering) whole(list []string, finish string) {
	for range list {
		if !a.wait(time.After(a.slow)) {
			return
		}
		a.pieces++
	}
	a.w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(a.w).Encode(map[string]any{
		"id": "scripted", "object": "chat.completion", "created": 1, "model": a.model, "usage": a.usage(list),
		"choices": []any{map[string]any{
			"index": 0, "finish_reason": finish, "message": message{"assistant", strings.Join(list, "")},
		}},
	})
}

func (a *answering) usage(list []string) map[string]int {
	return map[string]int{"prompt_tokens": a.tokens, "completion_tokens": len(list), "total_tokens": a.tokens + len(list)}
}

func (a *answering) chunk(fields map[string]any) {
	fields["id"], fields["object"], fields["created"], fields["model"] = "scripted", "chat.completion.chunk", 1, a.model
	data, _ := json.Marshal(fields) // cannot fail: texts and numbers
	a.write("data: " + string(data) + "\n\n")
}

func (a *answering) write(text string) {
	a.w.Header().Set("Content-Type", "text/event-stream")
	_, _ = io.WriteString(a.w, text)
	_ = http.NewResponseController(a.w).Flush()
}

func refuse(w http.ResponseWriter, status int, kind, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": kind, "code": code, "param": nil}})
}

// pieces are the words of text, each with the space before it.
func pieces(text string) []string {
	return strings.SplitAfter(text, " ")
}
