// Package admin is the operator's door to what a profile keeps: the trace of a
// message, dead letters, pairings, conversations, sending, the backup. It is an
// HTTP handler below /admin/, for a socket that knows its peers or for the
// process that holds the profile; it asks for no key and decides nothing about
// who may come.
//
//	h, err := admin.New(admin.Options{Store: db, Accept: accept, Wake: wake})
//	mux.Handle("/admin/", h)
package admin

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/inbound"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/turn"
)

// What callers may act on.
var (
	// ErrNone: there is nothing of that name.
	ErrNone = errors.New("there is no such thing")
	// ErrExpired: a pairing code is older than its hour.
	ErrExpired = errors.New("the pairing code has expired; the sender gets a new one with their next message")
	// ErrBusy: a conversation has messages that are not answered yet.
	ErrBusy = errors.New("the conversation has messages that wait for an answer")
)

// none is an ErrNone that says of what, and what to do.
type none struct{ text string }

func (e *none) Error() string        { return e.text }
func (e *none) Is(target error) bool { return target == ErrNone }

func noSuch(format string, args ...any) error { return &none{fmt.Sprintf(format, args...)} }

// Step is a step of a turn as it was kept.
type Step struct {
	Attempt int
	agent.Step
}

// Session is a conversation in a list.
type Session struct {
	ID       string
	Chat     string // the last that used it; may be empty
	Messages int64
	Last     time.Time
	Title    string
}

// Paired is a sender that an operator let in.
type Paired struct {
	Platform, Sender, Name, By string
	At                         time.Time
}

// Dead counts what was given up and nobody saw to.
type Dead struct {
	Messages, Deliveries int64
	Oldest               time.Time // when it was given up; zero: there is none
}

// Store is what the profile keeps. Its methods block for the disk and are safe
// for concurrent use.
type Store interface {
	// Find returns a message by its public id, or by the id that its platform
	// gave it if only one has that; turn.ErrUnknown.
	Find(ctx context.Context, id string) (turn.Message, error)
	Steps(ctx context.Context, seq int64) ([]Step, error)
	Deliveries(ctx context.Context, message string) ([]outbox.Part, error)
	// Delivery returns one part; ErrNone.
	Delivery(ctx context.Context, id string) (outbox.Part, error)
	Enqueue(ctx context.Context, parts []outbox.Part) error

	// DeadMessages and DeadAnswers return what was given up and nobody saw to, the
	// oldest first; of an answer the parts, at least one, in their order.
	DeadMessages(ctx context.Context, limit int) ([]turn.Message, error)
	DeadAnswers(ctx context.Context, limit int) ([][]outbox.Part, error)
	// DeadAnswer returns the one that the delivery id is a part of; ErrNone.
	DeadAnswer(ctx context.Context, id string) ([]outbox.Part, error)
	// Dead counts them.
	Dead(ctx context.Context) (Dead, error)
	// SettleMessage and SettleParts note that somebody saw to it; ErrNone if it, or
	// one of them, is no dead letter.
	SettleMessage(ctx context.Context, id, how string) error
	SettleParts(ctx context.Context, parts []outbox.Part, how string) error
	// ReplayParts commits new parts in place of dead ones; ErrNone.
	ReplayParts(ctx context.Context, dead, again []outbox.Part) error

	Pairings(ctx context.Context) ([]inbound.Pairing, error)
	PairedList(ctx context.Context) ([]Paired, error)
	// Approve lets the sender of a code in; ErrNone, ErrExpired.
	Approve(ctx context.Context, code, by string, at time.Time, tell func(inbound.Pairing) []outbox.Part) (inbound.Pairing, error)
	// Revoke takes that back; ErrNone.
	Revoke(ctx context.Context, platform, sender string) error

	// AllSessions lists conversations, the last used first, after the one called
	// after.
	AllSessions(ctx context.Context, after string, limit int) ([]Session, error)
	Recent(ctx context.Context, session string, before int64, limit int) ([]agent.Stored, error)
	// RemoveSession removes a conversation; ErrNone, ErrBusy.
	RemoveSession(ctx context.Context, id string) error

	// Size is what the database takes, in bytes.
	Size(ctx context.Context) (int64, error)
	// Prunable says whether retention would find anything that it may remove.
	Prunable(ctx context.Context) (bool, error)
	// Backup writes a consistent copy to path, which must not exist.
	Backup(ctx context.Context, path string) error
}

// Options says what a handler works on.
type Options struct {
	Store Store
	// Accept accepts a message as any other; the turn engine's where one runs.
	Accept func(ctx context.Context, m turn.Message) error
	// Wake says that something is to be sent. Default: nobody sends now.
	Wake func(account string)
	// Accounts lists the accounts on chat platforms. Default: none.
	Accounts func() []string
	// KeepBytes is the size that retention keeps the database to. 0: any.
	KeepBytes int64
	// Audit writes a line of the audit log. Default: nothing.
	Audit func(pairs ...string)
}

// Handler answers below /admin/.
type Handler struct {
	o   Options
	mux *http.ServeMux
}

// New builds a handler.
func New(o Options) (*Handler, error) {
	if o.Store == nil || o.Accept == nil {
		return nil, errors.New("cannot build the operator's door without a store and a way to accept messages")
	}
	if o.Wake == nil {
		o.Wake = func(string) {}
	}
	if o.Accounts == nil {
		o.Accounts = func() []string { return nil }
	}
	if o.Audit == nil {
		o.Audit = func(...string) {}
	}
	h := &Handler{o: o, mux: http.NewServeMux()}
	for pattern, f := range map[string]func(*http.Request) (any, error){
		"GET /admin/trace/{id}":               h.trace,
		"GET /admin/deadletters":              h.deadLetters,
		"GET /admin/deadletters/{id}":         h.deadLetter,
		"POST /admin/deadletters/{id}/replay": h.replay,
		"POST /admin/deadletters/{id}/drop":   h.drop,
		"GET /admin/pairings":                 h.pairings,
		"POST /admin/pairings/{code}/approve": h.approve,
		"POST /admin/paired/revoke":           h.revoke,
		"GET /admin/sessions":                 h.sessions,
		"GET /admin/sessions/{id}":            h.session,
		"DELETE /admin/sessions/{id}":         h.removeSession,
		"POST /admin/send":                    h.send,
		"GET /admin/deliveries/{id}":          h.delivery,
		"GET /admin/storage":                  h.storage,
		"POST /admin/backup":                  h.backup,
	} {
		h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := f(r)
			if err != nil {
				writeError(w, err)
				return
			}
			writeJSON(w, http.StatusOK, answer)
		})
	}
	return h, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// badRequest is the caller's fault.
type badRequest struct{ text string }

func (e *badRequest) Error() string { return e.text }

func bad(format string, args ...any) error { return &badRequest{fmt.Sprintf(format, args...)} }

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the peer is gone; nobody is left to tell
}

func writeError(w http.ResponseWriter, err error) {
	status, code := http.StatusInternalServerError, "failed"
	var b *badRequest
	switch {
	case errors.As(err, &b):
		status, code = http.StatusBadRequest, "invalid_request"
	case errors.Is(err, ErrNone), errors.Is(err, turn.ErrUnknown):
		status, code = http.StatusNotFound, "not_found"
	case errors.Is(err, ErrExpired), errors.Is(err, ErrBusy):
		status, code = http.StatusConflict, "conflict"
	}
	var e struct {
		Error struct {
			Message string `json:"message"`
			Type    string `json:"type"`
			Code    string `json:"code"`
		} `json:"error"`
	}
	e.Error.Message, e.Error.Type, e.Error.Code = err.Error(), "admin_error", code
	writeJSON(w, status, e)
}

// maxBody bounds a request: a text to send, in bytes.
const maxBody = 2 << 20

func decode(r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return bad("cannot read the request: %s", err)
	}
	return nil
}

const maxLimit = 1000

func limit(r *http.Request, normal int) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return normal, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, bad("limit must be a whole number from 1 to %d", maxLimit)
	}
	return n, nil
}

func unique() string { return strings.ToLower(rand.Text()) }

// Letter is a dead letter: a message that was not answered, or what of an answer
// was not delivered, whatever number of parts that are.
type Letter struct {
	ID      string    `json:"id"`   // of a delivery: of its first part
	Kind    string    `json:"kind"` // message, delivery
	Chat    string    `json:"chat"`
	Sender  string    `json:"sender"`
	Reason  string    `json:"reason"` // of a message: one word
	Error   string    `json:"error"`
	Tries   int       `json:"tries"`
	At      time.Time `json:"at"` // when it was given up
	Text    string    `json:"text"`
	Message string    `json:"message"` // of a delivery: what it answers
}

func letterOf(m turn.Message) Letter {
	var text []string
	for _, said := range m.Ask.Messages {
		text = append(text, said.Text)
	}
	return Letter{
		ID: m.ID, Kind: "message", Chat: m.Chat, Sender: m.Sender, Reason: m.Reason, Error: m.Error,
		Tries: m.Attempts, At: m.Finished, Text: strings.Join(text, "\n"),
	}
}

// letterOfParts is about the first of them: the others were not tried after it.
func letterOfParts(parts []outbox.Part) Letter {
	p := parts[0]
	l := Letter{
		ID: p.Delivery, Kind: "delivery", Chat: p.Account + " " + p.Chat, Error: p.Error, Tries: p.Attempts,
		At: p.Finished, Text: p.Text, Message: p.Message,
	}
	for _, more := range parts[1:] {
		l.Text += "\n" + more.Text
	}
	if len(parts) > 1 {
		l.Error = fmt.Sprintf("parts %d to %d of %d: %s", p.Part, parts[len(parts)-1].Part, p.Parts, p.Error)
	}
	return l
}

func (h *Handler) deadLetters(r *http.Request) (any, error) {
	n, err := limit(r, maxLimit)
	if err != nil {
		return nil, err
	}
	messages, err := h.o.Store.DeadMessages(r.Context(), n)
	if err != nil {
		return nil, err
	}
	answers, err := h.o.Store.DeadAnswers(r.Context(), n)
	if err != nil {
		return nil, err
	}
	list := []Letter{}
	for _, m := range messages {
		list = append(list, letterOf(m))
	}
	for _, parts := range answers {
		list = append(list, letterOfParts(parts))
	}
	slices.SortStableFunc(list, func(a, b Letter) int { return a.At.Compare(b.At) })
	return list, nil
}

func isDelivery(id string) bool { return strings.HasPrefix(id, "dlv_") }

// dead finds the dead letter that a path names: a message, or parts of an answer.
func (h *Handler) dead(r *http.Request) (m turn.Message, parts []outbox.Part, err error) {
	id := r.PathValue("id")
	none := noSuch("%q is no dead letter; hermes deadletter list shows them", id)
	if isDelivery(id) {
		if parts, err = h.o.Store.DeadAnswer(r.Context(), id); errors.Is(err, ErrNone) {
			err = none
		}
		return m, parts, err
	}
	m, err = h.o.Store.Find(r.Context(), id)
	if err == nil && (m.State != turn.Failed || m.Settled != "") || errors.Is(err, turn.ErrUnknown) {
		err = none
	}
	return m, nil, err
}

func (h *Handler) deadLetter(r *http.Request) (any, error) {
	m, parts, err := h.dead(r)
	if err != nil {
		return nil, err
	}
	if len(parts) > 0 {
		return letterOfParts(parts), nil
	}
	return letterOf(m), nil
}

// Done is the answer to what was done to one thing.
type Done struct {
	ID  string `json:"id"`
	New string `json:"new,omitempty"` // what takes its place
}

// replay has a message answered again, or the rest of an answer delivered again.
// It is a new one, so that what was counted stays counted.
func (h *Handler) replay(r *http.Request) (any, error) {
	m, parts, err := h.dead(r)
	if err != nil {
		return nil, err
	}
	if len(parts) > 0 {
		again, now := slices.Clone(parts), time.Now()
		for i := range again {
			again[i].Delivery, again[i].State, again[i].Created = "dlv_"+unique(), outbox.Pending, now
		}
		if err := h.o.Store.ReplayParts(r.Context(), parts, again); err != nil {
			return nil, err
		}
		h.o.Wake(parts[0].Account)
		h.o.Audit("deadletter", "replayed", "id", parts[0].Delivery)
		return Done{parts[0].Delivery, again[0].Delivery}, nil
	}
	again := turn.Message{
		ID: m.ID[:4] + unique(), Account: m.Account, External: "replay:" + m.ID, Chat: m.Chat, Session: m.Session,
		Sender: m.Sender, Ask: m.Ask, ReplayOf: m.ID,
	}
	if err := h.o.Accept(r.Context(), again); err != nil {
		return nil, err
	}
	h.o.Audit("deadletter", "replayed", "id", m.ID)
	return Done{m.ID, again.ID}, nil
}

func (h *Handler) drop(r *http.Request) (any, error) {
	m, parts, err := h.dead(r)
	if err != nil {
		return nil, err
	}
	id := m.ID
	if len(parts) > 0 {
		id = parts[0].Delivery
		err = h.o.Store.SettleParts(r.Context(), parts, "dropped")
	} else {
		err = h.o.Store.SettleMessage(r.Context(), id, "dropped")
	}
	if err == nil {
		h.o.Audit("deadletter", "dropped", "id", id)
	}
	return Done{ID: id}, err
}

// Pairing is a sender that waits to be let in, or was.
type Pairing struct {
	Code     string     `json:"code,omitempty"` // of one that waits
	State    string     `json:"state"`          // waiting, paired
	Platform string     `json:"platform"`
	Sender   string     `json:"sender"`
	Name     string     `json:"name"`
	By       string     `json:"by,omitempty"`
	Since    time.Time  `json:"since"`
	Until    *time.Time `json:"until,omitempty"` // of a code
}

func (h *Handler) pairings(r *http.Request) (any, error) {
	waiting, err := h.o.Store.Pairings(r.Context())
	if err != nil {
		return nil, err
	}
	paired, err := h.o.Store.PairedList(r.Context())
	if err != nil {
		return nil, err
	}
	list := []Pairing{}
	for _, p := range waiting {
		until := p.Created.Add(inbound.PairingTime)
		if time.Now().Before(until) {
			list = append(list, Pairing{Code: p.Code, State: "waiting", Platform: p.Platform, Sender: p.Sender, Name: p.Name, Since: p.Created, Until: &until})
		}
	}
	for _, p := range paired {
		list = append(list, Pairing{State: "paired", Platform: p.Platform, Sender: p.Sender, Name: p.Name, By: p.By, Since: p.At})
	}
	return list, nil
}

func (h *Handler) approve(r *http.Request) (any, error) {
	code := strings.ToUpper(strings.TrimSpace(r.PathValue("code")))
	by := r.URL.Query().Get("by")
	p, err := h.o.Store.Approve(r.Context(), code, by, time.Now(), func(p inbound.Pairing) []outbox.Part {
		return []outbox.Part{{
			Delivery: "dlv_" + unique(), Address: p.To, Part: 1, Parts: 1, Created: time.Now(),
			Text: "You are let in. Write to me; /help says what I understand.",
		}}
	})
	if errors.Is(err, ErrNone) {
		return nil, noSuch("no sender has the code %q; hermes pairing list shows the codes", code)
	}
	if err != nil {
		return nil, err
	}
	h.o.Wake(p.To.Account)
	h.o.Audit("pairing", "approved", "platform", p.Platform, "sender", p.Sender, "by", by)
	return Pairing{State: "paired", Platform: p.Platform, Sender: p.Sender, Name: p.Name, By: by, Since: time.Now()}, nil
}

func (h *Handler) revoke(r *http.Request) (any, error) {
	platform, sender := r.URL.Query().Get("platform"), r.URL.Query().Get("sender")
	if err := h.o.Store.Revoke(r.Context(), platform, sender); err != nil {
		if errors.Is(err, ErrNone) {
			err = noSuch("%s:%s is not paired; hermes pairing list shows who is", platform, sender)
		}
		return nil, err
	}
	h.o.Audit("pairing", "revoked", "platform", platform, "sender", sender, "by", r.URL.Query().Get("by"))
	return Done{ID: platform + ":" + sender}, nil
}

// SessionInfo is a conversation in a list.
type SessionInfo struct {
	ID       string    `json:"id"`
	Chat     string    `json:"chat"`
	Messages int64     `json:"messages"`
	Last     time.Time `json:"last"`
	Title    string    `json:"title"`
}

func (h *Handler) sessions(r *http.Request) (any, error) {
	n, err := limit(r, 50)
	if err != nil {
		return nil, err
	}
	list, err := h.o.Store.AllSessions(r.Context(), r.URL.Query().Get("after"), n)
	if err != nil {
		return nil, err
	}
	infos := []SessionInfo{}
	for _, s := range list {
		infos = append(infos, SessionInfo(s))
	}
	return infos, nil
}

// Said is one message of a conversation.
type Said struct {
	Seq  int64  `json:"seq"`
	Role string `json:"role"`
	Text string `json:"text"`
}

func (h *Handler) session(r *http.Request) (any, error) {
	n, err := limit(r, maxLimit)
	if err != nil {
		return nil, err
	}
	list, err := h.o.Store.Recent(r.Context(), r.PathValue("id"), 0, n)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, noSuch("no conversation is called %q; hermes sessions list shows them", r.PathValue("id"))
	}
	said := make([]Said, 0, len(list))
	for i := len(list) - 1; i >= 0; i-- {
		said = append(said, Said{list[i].Seq, string(list[i].Role), list[i].Text})
	}
	return said, nil
}

func (h *Handler) removeSession(r *http.Request) (any, error) {
	id := r.PathValue("id")
	if err := h.o.Store.RemoveSession(r.Context(), id); err != nil {
		if errors.Is(err, ErrNone) {
			err = noSuch("no conversation is called %q; hermes sessions list shows them", id)
		}
		return nil, err
	}
	h.o.Audit("session", "removed", "id", id)
	return Done{ID: id}, nil
}

// SendRequest is a text for a chat.
type SendRequest struct {
	Account string `json:"account"` // or the name of a platform that has one account
	Chat    string `json:"chat"`
	Thread  string `json:"thread,omitempty"`
	Text    string `json:"text"`
}

// maxPart and maxLines bound what is sent in one part, in bytes and in lines; below
// every platform's limits.
const (
	maxPart  = 1000
	maxLines = 16
)

func (h *Handler) send(r *http.Request) (any, error) {
	var req SendRequest
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	account, err := h.account(req.Account)
	if err != nil {
		return nil, err
	}
	texts := outbox.Cut(req.Text, maxPart, maxLines, true)
	switch {
	case req.Chat == "":
		return nil, bad("say to which chat")
	case len(texts) == 0:
		return nil, bad("there is nothing to send")
	}
	var parts []outbox.Part
	now := time.Now() // one for all: they are one answer
	for i, text := range texts {
		parts = append(parts, outbox.Part{
			Delivery: "dlv_" + unique(), Address: outbox.Address{Account: account, Chat: req.Chat, Thread: req.Thread},
			Part: i + 1, Parts: len(texts), Text: text, Created: now,
		})
	}
	if err := h.o.Store.Enqueue(r.Context(), parts); err != nil {
		return nil, err
	}
	h.o.Wake(account)
	return Done{ID: parts[len(parts)-1].Delivery}, nil // the last one is sent when all are
}

// account finds the account that a name means.
func (h *Handler) account(name string) (string, error) {
	var match []string
	for _, a := range h.o.Accounts() {
		if platform, _, _ := strings.Cut(a, "/"); a == name || platform == name {
			match = append(match, a)
		}
	}
	switch {
	case len(match) == 1:
		return match[0], nil
	case len(match) > 1:
		return "", bad("%q has several accounts: say one of %s", name, strings.Join(match, ", "))
	case len(h.o.Accounts()) == 0:
		return "", bad("this profile has no account on a chat platform")
	default:
		return "", bad("this profile has no account %q; it has %s", name, strings.Join(h.o.Accounts(), ", "))
	}
}

// DeliveryInfo is the state of one part.
type DeliveryInfo struct {
	ID        string       `json:"id"`
	State     outbox.State `json:"state"`
	Account   string       `json:"account"`
	Chat      string       `json:"chat"`
	Part      int          `json:"part"`
	Parts     int          `json:"parts"`
	Attempts  int          `json:"attempts"`
	Unsure    bool         `json:"unsure"`
	Error     string       `json:"error"`
	Receipt   string       `json:"receipt"`
	Created   time.Time    `json:"created"`
	NotBefore *time.Time   `json:"not_before"`
	Finished  *time.Time   `json:"finished"`
	Tries     []TryInfo    `json:"tries"`
}

func deliveryOf(p outbox.Part) DeliveryInfo {
	d := DeliveryInfo{
		ID: p.Delivery, State: p.State, Account: p.Account, Chat: p.Chat, Part: p.Part, Parts: p.Parts, Attempts: p.Attempts,
		Unsure: p.Unsure, Error: p.Error, Receipt: p.Receipt, Created: p.Created, NotBefore: known(p.NotBefore),
		Finished: known(p.Finished), Tries: []TryInfo{},
	}
	for _, t := range p.Tries {
		d.Tries = append(d.Tries, TryInfo{At: t.At.UTC(), Seconds: t.Took.Seconds(), Kind: t.Fate, Error: t.Error})
	}
	return d
}

func known(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (h *Handler) delivery(r *http.Request) (any, error) {
	p, err := h.o.Store.Delivery(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return deliveryOf(p), nil
}

// Storage is how the database stands: for doctor.
type Storage struct {
	Bytes          int64      `json:"bytes"`     // without what can be used again
	MaxBytes       int64      `json:"max_bytes"` // 0: any size
	Prunable       bool       `json:"prunable"`  // there is something that retention may remove
	DeadMessages   int64      `json:"dead_messages"`
	DeadDeliveries int64      `json:"dead_deliveries"`
	OldestDead     *time.Time `json:"oldest_dead"` // when the oldest dead letter was given up
}

func (h *Handler) storage(r *http.Request) (any, error) {
	size, err := h.o.Store.Size(r.Context())
	if err != nil {
		return nil, err
	}
	prunable, err := h.o.Store.Prunable(r.Context())
	if err != nil {
		return nil, err
	}
	dead, err := h.o.Store.Dead(r.Context())
	if err != nil {
		return nil, err
	}
	return Storage{size, h.o.KeepBytes, prunable, dead.Messages, dead.Deliveries, known(dead.Oldest)}, nil
}

func (h *Handler) backup(r *http.Request) (any, error) {
	var req struct {
		Path string `json:"path"`
	}
	if err := decode(r, &req); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(req.Path, "/") {
		return nil, bad("the path must be absolute")
	}
	if err := h.o.Store.Backup(r.Context(), req.Path); err != nil {
		return nil, err
	}
	h.o.Audit("backup", "written", "path", req.Path)
	return Done{ID: req.Path}, nil
}
