package gateway

import (
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/turn"
)

const (
	completionsPath = "/v1/chat/completions"
	// SessionHeader continues a conversation, and names it in every answer.
	SessionHeader = "X-Hermes-Session-Id"
	// messageHeader names the message of an answer, for hermes trace.
	messageHeader = "X-Hermes-Message-Id"
	// keyHeader names a request: sent again under the same name it is the same
	// message (draft-ietf-httpapi-idempotency-key-header).
	keyHeader = "Idempotency-Key"
	maxKey    = 255 // characters
	// httpAccount is the account of every client of the HTTP API.
	httpAccount = "http"
	// MaxBody bounds a request, in bytes.
	MaxBody = 4 << 20

	maxSession = 128 // bytes of a session's id

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
	m, err := g.completionMessage(r, req)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	kept, live, _, err := g.accept(r, m)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	w.Header().Set(SessionHeader, kept.Session)
	w.Header().Set(messageHeader, kept.ID)
	answer := &answer{
		w: w, follower: follow(kept, live), usage: req.includeUsage(),
		id: "chatcmpl-" + strings.TrimPrefix(kept.ID, "msg_"), created: kept.Received.Unix(), model: g.o.Model.Name(),
	}
	defer answer.follower.close()
	if req.Stream {
		answer.stream(r.Context().Done())
	} else {
		answer.whole(r.Context().Done())
	}
}

// completionMessage is the message that a request brings.
func (g *Gateway) completionMessage(r *http.Request, req completionRequest) (turn.Message, error) {
	session, given := r.Header.Get(SessionHeader), len(r.Header.Values(SessionHeader)) > 0
	if given && !validSession(session) {
		return turn.Message{}, invalid(SessionHeader, "%s must be 1 to 128 of A-Z, a-z, 0-9, and . _ : -", SessionHeader)
	}
	if !given {
		session = "sess_" + unique()
	}
	m := turn.Message{ID: "msg_" + unique(), Account: httpAccount, Session: session, Chat: platform.Key("http", session, ""), Ask: req.ask(!given)}
	return m, setKey(&m, r, "chat")
}

// accept commits m, or counts that it was refused.
func (g *Gateway) accept(r *http.Request, m turn.Message) (kept turn.Message, live *turn.Live, fresh bool, err error) {
	if err = g.checkSize(m); err == nil {
		kept, live, fresh, err = g.turns.Accept(r.Context(), m)
	}
	if err != nil {
		g.refuse()
	}
	return kept, live, fresh, err
}

// checkSize refuses a message that is longer than one may be.
func (g *Gateway) checkSize(m turn.Message) error {
	for _, part := range m.Ask.Messages {
		if len(part.Text) > g.o.MaxMessage {
			return &http.MaxBytesError{Limit: int64(g.o.MaxMessage)}
		}
	}
	return nil
}

// setKey names m by the client's key, under which it is accepted once. What is
// asked, and of which session if one is named, must be the same each time; how
// the answer is to be sent need not.
func setKey(m *turn.Message, r *http.Request, kind string) error {
	key := r.Header.Get(keyHeader)
	if key == "" {
		m.External = m.ID
		return nil
	}
	if len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) {
		return invalid(keyHeader, "%s must be 1 to %d printable ASCII characters", keyHeader, maxKey)
	}
	asked, err := json.Marshal(m.Ask)
	if err != nil {
		return invalid("", "the request cannot be kept: %s", err)
	}
	session := m.Session
	if m.Ask.Fresh {
		session = ""
	}
	m.External, m.Digest = kind+":"+key, turn.DigestOf(session, string(asked))
	return nil
}

// unique is a name that nobody guesses and nobody gets twice.
func unique() string { return strings.ToLower(rand.Text()) }

func (g *Gateway) read(w http.ResponseWriter, r *http.Request) (completionRequest, error) {
	body, err := g.readBody(w, r)
	if err != nil {
		return completionRequest{}, err
	}
	return decode(body)
}

// readBody reads a request that brings a message. A body that does not come in
// time leaves the deadline of guard in place, and the connection is closed.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if g.turns.Closed() { // do not make it send four megabytes for nothing
		g.refuse()
		return nil, turn.ErrDraining
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		return nil, bodyError(err)
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the answer may take longer
	return body, nil
}

// answer writes one turn to one client.
type answer struct {
	w        http.ResponseWriter
	follower *follower
	usage    bool // the client wants it at the end of a stream
	id       string
	created  int64
	model    string

	begun bool // the stream's status and first chunk are out
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
	Delta        *deltaBody      `json:"delta,omitempty"`
	Logprobs     json.RawMessage `json:"logprobs"` // always null
	FinishReason *chat.Finish    `json:"finish_reason"`
}

type messageBody struct {
	Role    chat.Role `json:"role"`
	Content string    `json:"content"`
	Refusal *string   `json:"refusal"` // always null
}

type deltaBody struct {
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
		p := a.follower.now()
		if p.Done {
			a.writeWhole(p)
			return
		}
		select {
		case <-gone:
			return
		case <-p.Wake:
		}
	}
}

func (a *answer) writeWhole(p turn.Progress) {
	writeWithin(a.w, writeTimeout)
	if p.Err != nil {
		problemOf(p.Err).write(a.w)
		return
	}
	reply := p.Message.Reply
	writeJSON(a.w, http.StatusOK, completion{
		ID: a.id, Object: "chat.completion", Created: a.created, Model: a.model,
		Choices: []choice{{
			Message:      &messageBody{Role: chat.Assistant, Content: reply.Text},
			FinishReason: &reply.Finish,
		}},
		Usage: usageBody(reply.Usage),
	})
}

// stream writes the turn as it grows, as server-sent events.
func (a *answer) stream(gone <-chan struct{}) {
	quiet := time.NewTicker(keepAliveEvery)
	defer quiet.Stop()
	for {
		delta, p, err := a.follower.next()
		if delta != "" {
			a.send(deltaBody{Content: &delta})
			quiet.Reset(keepAliveEvery)
		}
		if err != nil {
			p.Err, p.Done = err, true
		}
		if p.Done {
			a.finish(p)
			return
		}
		a.flush()
		select {
		case <-gone:
			return
		case <-p.Wake:
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
	a.send(deltaBody{Role: chat.Assistant, Content: &empty})
}

// finish ends the stream: with OpenAI's closing chunks, or with the error; as a
// status where nothing has been sent yet.
func (a *answer) finish(p turn.Progress) {
	if p.Err != nil {
		if !a.begun {
			a.writeWhole(p)
			return
		}
		a.event(problemOf(p.Err).body())
		a.flush()
		return
	}
	a.begin()
	end := a.chunk()
	end.Choices = []choice{{Delta: &deltaBody{}, FinishReason: &p.Message.Reply.Finish}}
	a.event(end)
	if a.usage {
		last := a.chunk()
		last.Usage = usageBody(p.Message.Reply.Usage)
		a.event(last)
	}
	a.write("data: [DONE]\n\n")
	a.flush()
}

func (a *answer) send(d deltaBody) {
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
