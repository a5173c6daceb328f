// Package modelserver is a scripted OpenAI-compatible model server for tests.
// It answers the same to the same conversation, misbehaves where it is told to,
// and keeps a record of every request, so that a checker can compare what the
// model was asked with what users were told. It draws no random numbers,
// understands nothing, and imports nothing of the product.
//
// Directives at the very beginning of the last user message, or in the script
// that holds for all, say how to misbehave. Each acts once for each text and
// model name, in the order written, unless xN or xall follows; when all are
// used up the answer is whole:
//
//	[[429 1]] hello             refuse with Retry-After: 1, then answer
//	[[503]] [[529 2 x3]] hello  refuse once, then three times with Retry-After: 2
//	[[400]] [[401]] [[500]]     refuse with that status; any from 400 to 599
//	[[slow 20ms]] hello         wait before every piece; always
//	[[reset 3]] hello           cut the connection after 3 pieces
//	[[truncate 3]] hello        end the answer politely after 3 pieces
//	[[json]] hello              break the JSON in the middle
//	[[error]] hello             an error event in the middle
//	[[empty]] hello             an answer without text
//	[[endless]] hello           never stop talking
//	[[silent]] hello            never begin
//	[[too_long]] hello          refuse because the context is full
//
// Text that stands elsewhere is never a directive, so that a transcript of a
// conversation triggers nothing.
//
//	s := modelserver.New(modelserver.Options{})
//	http.ListenAndServe("127.0.0.1:0", s) // POST /v1/chat/completions, GET /seen, PUT /script
package modelserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxText bounds what is echoed and kept of a message, in bytes.
const maxText = 300

// Options changes what every request meets.
type Options struct {
	// Context is how many tokens of four bytes a request may have. 0: no limit.
	Context int
	// Script holds directives for messages that have none of their own.
	Script string
	// Piece is how long each piece of an answer takes. Default 0.
	Piece time.Duration
}

// Seen is the record of one request.
type Seen struct {
	Number int       `json:"number"` // from 1, in the order they came
	Time   time.Time `json:"time"`
	Model  string    `json:"model"`
	Stream bool      `json:"stream"`
	Users  int       `json:"users"`  // user messages in it
	Text   string    `json:"text"`   // the last of them, directives and all; its first 300 bytes
	System string    `json:"system"` // the system messages, likewise
	Tokens int       `json:"tokens"` // of all messages, four bytes each
	Digest string    `json:"digest"` // of all messages: equal means the same request
	Status int       `json:"status"`
	// End is "answered", "gone" (the client hung up), or the directive that acted;
	// empty while the answer is on its way.
	End string `json:"end"`
	// Orphan says that the client's end of the connection was closed already when
	// the request was read: it lay there while the client went. Only known where
	// the http.Server has KeepConnection.
	Orphan bool      `json:"orphan"`
	Ended  time.Time `json:"ended"`
	Pieces int       `json:"pieces"` // of text that were sent
}

// Server implements http.Handler. It is safe for concurrent use.
type Server struct {
	o    Options
	mux  *http.ServeMux
	done chan struct{} // ends what never ends by itself

	mu     sync.Mutex
	closed bool
	script string
	seen   []Seen
	used   map[string]int // how often a text has met its directives
}

// New returns a server that has seen nothing.
func New(o Options) *Server {
	s := &Server{o: o, script: o.Script, mux: http.NewServeMux(), used: map[string]int{}, done: make(chan struct{})}
	s.mux.HandleFunc("POST /v1/chat/completions", s.complete)
	s.mux.HandleFunc("GET /v1/models", s.models)
	s.mux.HandleFunc("GET /seen", s.serveSeen)
	s.mux.HandleFunc("PUT /script", s.serveScript)
	return s
}

// ServeHTTP serves one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Close ends the answers that are on their way. It is idempotent.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
}

// Seen returns the requests so far, oldest first.
func (s *Server) Seen() []Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// SetScript replaces the directives for messages that have none.
func (s *Server) SetScript(script string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = script
	clear(s.used)
}

// Answer is what the server says to a conversation that ends with the user's
// message text, their message number users.
func Answer(users int, text string) string {
	_, said := split(text)
	return fmt.Sprintf("Message %d of this conversation. You said: %s", users, cut(said))
}

func (s *Server) models(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"scripted","object":"model"}]}`)
}

// serveSeen gives the record from number on, all of it by default.
func (s *Server) serveSeen(w http.ResponseWriter, r *http.Request) {
	from, _ := strconv.Atoi(r.URL.Query().Get("from"))
	list := s.Seen()
	list = list[min(max(from-1, 0), len(list)):]
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(append([]Seen{}, list...))
}

func (s *Server) serveScript(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.SetScript(string(text))
	w.WriteHeader(http.StatusNoContent)
}

// directives chooses what acts on this request: its own or the script's, the
// first that is not used up, with every slow one.
func (s *Server) directives(seen Seen, text string) (act directive, slow time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, _ := split(text)
	if len(list) == 0 {
		list, _ = split(s.script)
	}
	slow = s.o.Piece
	key := seen.Model + "\n" + text
	met := s.used[key]
	for _, d := range list {
		switch {
		case d.name == "slow":
			slow, _ = time.ParseDuration(d.argument)
		case act.name == "" && met < d.times:
			act = d
			s.used[key]++
		case act.name == "":
			met -= d.times
		}
	}
	return act, slow
}

// directive is one [[name argument xN]].
type directive struct {
	name, argument string
	times          int
}

// number is the argument as a number; fallback where it is none.
func (d directive) number(fallback int) int {
	if n, err := strconv.Atoi(d.argument); err == nil {
		return n
	}
	return fallback
}

// split takes the directives off the beginning of text.
func split(text string) (list []directive, rest string) {
	for {
		inner, found := strings.CutPrefix(strings.TrimLeft(text, " "), "[[")
		inner, after, closed := strings.Cut(inner, "]]")
		fields := strings.Fields(inner)
		if !found || !closed || len(fields) == 0 || len(fields) > 3 {
			return list, strings.TrimLeft(text, " ")
		}
		list = append(list, parse(fields))
		text = after
	}
}

func parse(fields []string) directive {
	d := directive{name: fields[0], times: 1}
	for _, f := range fields[1:] {
		n, err := strconv.Atoi(strings.TrimPrefix(f, "x"))
		switch {
		case f == "xall":
			d.times = int(^uint(0) >> 1)
		case f[0] == 'x' && err == nil:
			d.times = n
		default:
			d.argument = f
		}
	}
	return d
}

func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}
