package gateway

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
)

const (
	completionsPath = "/v1/chat/completions"
	// SessionHeader continues a conversation, and names it in every answer.
	SessionHeader = "X-Hermes-Session-Id"
	// MaxBody bounds a request, in bytes.
	MaxBody = 4 << 20

	maxSession = 128 // bytes of a session's id

	// bodyTimeout is how long a client may take to send its request.
	bodyTimeout = time.Minute
	// writeTimeout is how long a client may take to read one piece.
	writeTimeout = 30 * time.Second
	// keepAliveEvery is how often a stream without news gets a comment line:
	// below the 60 s after which common proxies hang up. Before the first one
	// the status is still open, so that an early failure has its own.
	keepAliveEvery = 15 * time.Second
)

// validSession says whether id is 1 to 128 of A-Z, a-z, 0-9 and . _ : -
func validSession(id string) bool {
	foreign := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._:-", r)
	}
	return id != "" && len(id) <= maxSession && !strings.ContainsFunc(id, foreign)
}

// serveCompletion is one turn over HTTP.
func (g *Gateway) serveCompletion(w http.ResponseWriter, r *http.Request) {
	req, err := g.read(w, r)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	session, given := r.Header.Get(SessionHeader), len(r.Header.Values(SessionHeader)) > 0
	switch {
	case !given:
		session = "sess_" + strings.ToLower(rand.Text())
	case !validSession(session):
		problemOf(invalid(SessionHeader, "%s must be 1 to 128 of A-Z, a-z, 0-9, and . _ : -", SessionHeader)).write(w)
		return
	}
	w.Header().Set(SessionHeader, session)
	t := req.turn(session, !given)
	if err := g.turns.accept(t); err != nil {
		problemOf(err).write(w)
		return
	}
	answer := &answer{
		w: w, turn: t, usage: req.includeUsage(),
		id: "chatcmpl-" + strings.ToLower(rand.Text()), created: time.Now().Unix(), model: g.o.Model.Name(),
	}
	if req.Stream {
		answer.stream(r.Context().Done())
	} else {
		answer.whole(r.Context().Done())
	}
}

func (g *Gateway) read(w http.ResponseWriter, r *http.Request) (completionRequest, error) {
	if g.turns.isClosed() { // do not make it send four megabytes for nothing
		g.turns.refuse()
		return completionRequest{}, errDraining
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	_ = rc.SetReadDeadline(time.Time{})
	if err != nil {
		return completionRequest{}, bodyError(err)
	}
	return decode(body)
}

// answer writes one turn to one client.
type answer struct {
	w       http.ResponseWriter
	turn    *turn
	usage   bool // the client wants it at the end of a stream
	id      string
	created int64
	model   string

	begun bool // the stream's status and first chunk are out
	sent  int  // bytes of the text
}

// completion is OpenAI's answer and, with Delta instead of Message, a chunk.
type completion struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	// Usage is absent from chunks unless asked for, and then null in all but
	// the last.
	Usage json.RawMessage `json:"usage,omitempty"`
}

type choice struct {
	Index        int             `json:"index"`
	Message      *messageBody    `json:"message,omitempty"`
	Delta        *delta          `json:"delta,omitempty"`
	Logprobs     json.RawMessage `json:"logprobs"` // always null
	FinishReason *chat.Finish    `json:"finish_reason"`
}

type messageBody struct {
	Role    chat.Role `json:"role"`
	Content string    `json:"content"`
	Refusal *string   `json:"refusal"` // always null
}

type delta struct {
	Role    chat.Role `json:"role,omitempty"`
	Content *string   `json:"content,omitempty"`
}

func usageBody(u chat.Usage) json.RawMessage {
	data, _ := json.Marshal(map[string]int64{ // cannot fail: three numbers
		"prompt_tokens": u.Input, "completion_tokens": u.Output, "total_tokens": u.Input + u.Output,
	})
	return data
}

// whole waits for the turn and writes it in one piece. When the client goes the
// turn does not.
func (a *answer) whole(gone <-chan struct{}) {
	for {
		p := a.turn.since(0)
		if p.done {
			a.writeWhole(p)
			return
		}
		select {
		case <-gone:
			return
		case <-p.wake:
		}
	}
}

func (a *answer) writeWhole(p progress) {
	writeWithin(a.w, writeTimeout)
	if p.err != nil {
		problemOf(p.err).write(a.w)
		return
	}
	writeJSON(a.w, http.StatusOK, completion{
		ID: a.id, Object: "chat.completion", Created: a.created, Model: a.model,
		Choices: []choice{{
			Message:      &messageBody{Role: chat.Assistant, Content: p.reply.Text},
			FinishReason: &p.reply.Finish,
		}},
		Usage: usageBody(p.reply.Usage),
	})
}

// stream writes the turn as it grows, as server-sent events.
func (a *answer) stream(gone <-chan struct{}) {
	quiet := time.NewTicker(keepAliveEvery)
	defer quiet.Stop()
	for {
		p := a.turn.since(a.sent)
		if p.delta != "" {
			a.send(delta{Content: &p.delta})
			a.sent += len(p.delta)
			quiet.Reset(keepAliveEvery)
		}
		if p.done {
			a.finish(p)
			return
		}
		a.flush()
		select {
		case <-gone:
			return
		case <-p.wake:
		case <-quiet.C:
			a.begin()
			a.write(": waiting\n\n")
		}
	}
}

// begin sends the status and the chunk that opens every stream.
func (a *answer) begin() {
	if a.begun {
		return
	}
	a.begun = true
	h := a.w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no") // nginx would collect the pieces
	a.w.WriteHeader(http.StatusOK)
	empty := ""
	a.send(delta{Role: chat.Assistant, Content: &empty})
}

// finish ends the stream: with OpenAI's closing chunks, or with the error; as a
// status where nothing has been sent yet.
func (a *answer) finish(p progress) {
	if p.err != nil {
		if !a.begun {
			a.writeWhole(p)
			return
		}
		a.event(problemOf(p.err).body())
		a.flush()
		return
	}
	a.begin()
	end := a.chunk()
	end.Choices = []choice{{Delta: &delta{}, FinishReason: &p.reply.Finish}}
	a.event(end)
	if a.usage {
		last := a.chunk()
		last.Usage = usageBody(p.reply.Usage)
		a.event(last)
	}
	a.write("data: [DONE]\n\n")
	a.flush()
}

func (a *answer) send(d delta) {
	a.begin()
	c := a.chunk()
	c.Choices = []choice{{Delta: &d}}
	a.event(c)
}

func (a *answer) chunk() completion {
	c := completion{ID: a.id, Object: "chat.completion.chunk", Created: a.created, Model: a.model, Choices: []choice{}}
	if a.usage {
		c.Usage = json.RawMessage("null")
	}
	return c
}

func (a *answer) event(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		return // cannot happen: texts and numbers only
	}
	a.write("data: " + string(data) + "\n\n")
}

func (a *answer) write(s string) {
	writeWithin(a.w, writeTimeout)
	_, _ = io.WriteString(a.w, s) // a client that is gone shows by its context
}

func (a *answer) flush() {
	if a.begun {
		_ = http.NewResponseController(a.w).Flush()
	}
}
