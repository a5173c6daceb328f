package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/turn"
)

const (
	runsPath = "/v1/runs"
	runList  = 20  // runs in a list, unless limit says otherwise
	maxList  = 100 // and at most
)

// runBody is a run as clients see it.
type runBody struct {
	ID         string    `json:"id"`
	Object     string    `json:"object"`
	Status     string    `json:"status"`
	SessionID  string    `json:"session_id"`
	CreatedAt  int64     `json:"created_at"`
	StartedAt  *int64    `json:"started_at,omitempty"`
	FinishedAt *int64    `json:"finished_at,omitempty"`
	Attempts   int       `json:"attempts,omitempty"`
	Output     *string   `json:"output,omitempty"`
	Model      string    `json:"model,omitempty"`
	Usage      *runUsage `json:"usage,omitempty"`
	Error      *runError `json:"error,omitempty"`
}

type runUsage struct {
	InputTokens  int64 `json:"input_tokens"`
	OutputTokens int64 `json:"output_tokens"`
}

type runError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// runStatus is the state of a message in the words of a run.
func runStatus(m turn.Message) string {
	switch {
	case m.State == turn.Answered:
		return "completed"
	case m.State == turn.Failed && m.Reason == turn.Cancelled:
		return "cancelled"
	default:
		return string(m.State)
	}
}

func runOf(m turn.Message) runBody {
	r := runBody{
		ID: m.ID, Object: "run", Status: runStatus(m), SessionID: m.Session,
		CreatedAt: m.Received.Unix(), StartedAt: unix(m.Started), FinishedAt: unix(m.Finished), Attempts: m.Attempts,
	}
	switch m.State {
	case turn.Answered:
		r.Output, r.Model = &m.Reply.Text, m.Reply.Model
		r.Usage = &runUsage{m.Reply.Usage.Input, m.Reply.Usage.Output}
	case turn.Failed:
		r.Error = &runError{Code: m.Reason, Message: m.Error}
	case turn.Queued, turn.Running:
	}
	return r
}

func unix(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	s := t.Unix()
	return &s
}

// runRequest is what creates a run.
type runRequest struct {
	Input     *string `json:"input"`
	SessionID *string `json:"session_id"`
}

func decodeRun(body []byte) (runRequest, error) {
	var req runRequest
	if err := decodeOne(body, &req); err != nil {
		return req, err
	}
	switch {
	case req.Input == nil:
		return req, invalid("input", "input must be a text: what the run is to answer")
	case strings.TrimSpace(*req.Input) == "":
		return req, invalid("input", "input is empty: there is nothing to answer")
	case req.SessionID != nil && !validSession(*req.SessionID):
		return req, invalid("session_id", "session_id must be 1 to 128 of A-Z, a-z, 0-9, and . _ : -")
	}
	return req, nil
}

// createRun accepts a message and answers at once; the answer of the model is
// the run's.
func (g *Gateway) createRun(w http.ResponseWriter, r *http.Request) {
	body, err := g.readBody(w, r)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	req, err := decodeRun(body)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	session := "sess_" + unique()
	if req.SessionID != nil {
		session = *req.SessionID
	}
	m := turn.Message{
		ID: "run_" + unique(), Account: httpAccount, Session: session, Chat: platform.Key("http", session, ""),
		Ask: turn.Ask{Fresh: req.SessionID == nil, Messages: []chat.Message{{Role: chat.User, Text: *req.Input}}},
	}
	if err := setKey(&m, r, "run"); err != nil {
		problemOf(err).write(w)
		return
	}
	kept, _, fresh, err := g.accept(r, m)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	w.Header().Set("Location", runsPath+"/"+kept.ID)
	g.writeAccepted(w, kept, fresh)
}

// writeAccepted answers with a run as it was accepted, or as it is if that was
// before.
func (g *Gateway) writeAccepted(w http.ResponseWriter, kept turn.Message, fresh bool) {
	if fresh {
		writeJSON(w, http.StatusAccepted, runOf(kept))
		return
	}
	writeJSON(w, http.StatusOK, runOf(g.latest(kept)))
}

// latest is m as it is now, if it is open.
func (g *Gateway) latest(m turn.Message) turn.Message {
	if live := g.turns.Live(m.ID); live != nil {
		return live.Since(0).Message
	}
	return m
}

// run finds the run that a path names.
func (g *Gateway) run(r *http.Request) (turn.Message, error) {
	id := r.PathValue("id")
	if !strings.HasPrefix(id, "run_") {
		return turn.Message{}, turn.ErrUnknown
	}
	if live := g.turns.Live(id); live != nil {
		return live.Since(0).Message, nil
	}
	return g.o.Store.Message(r.Context(), id)
}

func (g *Gateway) getRun(w http.ResponseWriter, r *http.Request) {
	m, err := g.run(r)
	if err != nil {
		runProblem(r, err).write(w)
		return
	}
	writeJSON(w, http.StatusOK, runOf(m))
}

func runProblem(r *http.Request, err error) problem {
	if errors.Is(err, turn.ErrUnknown) {
		return problem{
			status: http.StatusNotFound, kind: "invalid_request_error", code: "run_not_found",
			message: "there is no run " + strconv.Quote(r.PathValue("id")) + "; see GET " + runsPath,
		}
	}
	return problemOf(&chat.Error{Kind: chat.Unavailable, Message: "the database failed: " + err.Error(), Err: err})
}

// stopRun cancels a run and waits until it has ended; one that has ended stays
// as it is.
func (g *Gateway) stopRun(w http.ResponseWriter, r *http.Request) {
	m, err := g.run(r)
	if err != nil {
		runProblem(r, err).write(w)
		return
	}
	live := g.turns.Live(m.ID)
	if live != nil {
		defer live.Watch()()
		g.turns.Stop(m.ID)
		m = waitEnd(r, live)
	}
	writeJSON(w, http.StatusOK, runOf(m))
}

// waitEnd waits until a message has ended or the client has gone.
func waitEnd(r *http.Request, live *turn.Live) turn.Message {
	for {
		p := live.Since(0)
		if p.Done {
			return p.Message
		}
		select {
		case <-p.Wake:
		case <-r.Context().Done():
			return p.Message
		}
	}
}

func (g *Gateway) listRuns(w http.ResponseWriter, r *http.Request) {
	f, err := g.runFilter(r)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	limit := f.Limit
	f.Limit++ // one more says whether there is more
	list, err := g.o.Store.Runs(r.Context(), f)
	if err != nil {
		runProblem(r, err).write(w)
		return
	}
	more := len(list) > limit
	data := []runBody{}
	for _, m := range list[:min(limit, len(list))] {
		data = append(data, runOf(m))
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": data, "has_more": more})
}

func (g *Gateway) runFilter(r *http.Request) (turn.Filter, error) {
	q := r.URL.Query()
	f := turn.Filter{Session: q.Get("session_id"), Limit: runList}
	switch status := q.Get("status"); status {
	case "":
	case "queued", "running":
		f.States = []turn.State{turn.State(status)}
	case "completed":
		f.States = []turn.State{turn.Answered}
	case "failed":
		f.States, f.Reason = []turn.State{turn.Failed}, "!"+turn.Cancelled
	case "cancelled":
		f.States, f.Reason = []turn.State{turn.Failed}, turn.Cancelled
	default:
		return f, invalid("status", "status must be one of queued, running, completed, failed, cancelled")
	}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxList {
			return f, invalid("limit", "limit must be a whole number from 1 to %d", maxList)
		}
		f.Limit = n
	}
	if id := q.Get("after"); id != "" {
		m, err := g.o.Store.Message(r.Context(), id)
		if err != nil {
			return f, invalid("after", "after must be the id of a run; there is no %q", id)
		}
		f.Before = m.Seq
	}
	return f, nil
}

// Ids of events. A run is one text that grows, and an id is a place in it: 1 is
// the moment it was queued; then, for each time the answer began (its
// generation), running is 2, a delta 2 + the bytes of the text up to its end, and
// done the last id there is, each + generation << 32. So an id can be found again
// in a process that has only the text.
const (
	idQueued        = 1
	idRunning       = 2
	generationShift = 32
	idDone          = 1<<generationShift - 1
	// attemptShift leaves room for 64 beginnings in an attempt.
	attemptShift = 6
)

func generation(attempt, restarts int) int64 {
	return int64(max(attempt-1, 0))<<attemptShift + int64(min(restarts, 1<<attemptShift-1))
}

// runEvents is one reader of a run's events.
type runEvents struct {
	w      http.ResponseWriter
	last   int64 // id of the last event that the client has
	gen    int64 // that it has seen begin; -1: none
	offset int   // bytes of that one that it has
}

// streamRun sends the events of a run after the last one that the client has.
func (g *Gateway) streamRun(w http.ResponseWriter, r *http.Request) {
	m, err := g.run(r)
	if err != nil {
		runProblem(r, err).write(w)
		return
	}
	last, err := lastEvent(r)
	if err != nil {
		problemOf(err).write(w)
		return
	}
	e := &runEvents{w: w, last: last, gen: -1}
	if last >= idRunning {
		e.gen, e.offset = last>>generationShift, int(last&(1<<generationShift-1))-idRunning
	}
	live := g.turns.Live(m.ID)
	if live == nil {
		if m, err = g.o.Store.Message(r.Context(), m.ID); err != nil {
			runProblem(r, err).write(w)
			return
		}
		if last >= doneID(turn.Ended(m, 0)) {
			w.WriteHeader(http.StatusNoContent) // tells an EventSource not to come again
			return
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	if live == nil {
		e.step(turn.Ended(m, 0))
		return
	}
	defer live.Watch()()
	e.follow(r, live)
}

func lastEvent(r *http.Request) (int64, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, invalid("Last-Event-ID", "Last-Event-ID must be the id of an event: a whole number")
	}
	return n, nil
}

func doneID(p turn.Progress) int64 {
	return generation(p.Attempt, p.Restarts)<<generationShift + idDone
}

func (e *runEvents) follow(r *http.Request, live *turn.Live) {
	quiet := time.NewTicker(keepAliveEvery)
	defer quiet.Stop()
	for {
		p := live.Since(max(e.offset, 0))
		if generation(p.Attempt, p.Restarts) != e.gen && p.Attempt > 0 || p.Done {
			p = live.Since(0)
		}
		if e.step(p) {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-p.Wake:
		case <-quiet.C:
			e.write(": waiting\n\n")
		}
	}
}

// step sends what is new in p, whose Delta begins at the client's offset, or at
// 0 where the answer began again or has ended. It returns true at the end.
func (e *runEvents) step(p turn.Progress) bool {
	if e.last < idQueued {
		e.send(idQueued, "run.status", map[string]any{"id": p.Message.ID, "status": "queued"})
	}
	if p.Attempt == 0 && !p.Done {
		return false
	}
	gen := generation(p.Attempt, p.Restarts)
	base, text, whole := gen<<generationShift, p.Delta, p.Done
	if gen != e.gen || e.offset < 0 {
		if p.Attempt > 0 {
			e.send(base+idRunning, "run.status", map[string]any{"id": p.Message.ID, "status": "running", "attempt": p.Attempt, "offset": 0})
		}
		e.gen, e.offset = gen, 0
	}
	if whole {
		text = p.Message.Reply.Text
		text = text[min(e.offset, len(text)):]
	}
	if text != "" {
		from := e.offset
		e.offset += len(text)
		e.send(base+idRunning+int64(e.offset), "message.delta", map[string]any{"delta": text, "offset": from})
	}
	switch {
	case p.Done && errors.Is(p.Err, turn.ErrLeft):
		return true // the next process goes on; the client comes again
	case p.Done:
		e.send(base+idDone, "run.done", runOf(p.Message))
		return true
	}
	return false
}

func (e *runEvents) send(id int64, event string, data any) {
	text, err := json.Marshal(data)
	if err != nil {
		return // cannot happen: texts and numbers only
	}
	e.write(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", id, event, text))
	e.last = id
}

func (e *runEvents) write(s string) {
	writeWithin(e.w, writeTimeout)
	_, _ = io.WriteString(e.w, s) // a client that is gone shows by its context
	_ = http.NewResponseController(e.w).Flush()
}

// methods serves several methods on one path and refuses others in our shape.
func methods(mux *http.ServeMux, pattern string, handlers map[string]http.HandlerFunc) {
	var allow []string
	for m := range handlers {
		allow = append(allow, m)
	}
	slices.Sort(allow)
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if h := handlers[method]; h != nil {
			h(w, r)
			return
		}
		w.Header().Set("Allow", strings.Join(allow, ", "))
		problem{
			status: http.StatusMethodNotAllowed, kind: "invalid_request_error", code: "method_not_allowed",
			message: r.Method + " is not for " + r.URL.Path + "; use " + strings.Join(allow, " or "),
		}.write(w)
	})
}
