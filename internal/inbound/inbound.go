// Package inbound is where messages of chat platforms come in: who may talk,
// what is a command, what becomes a turn. It accepts through the turn engine and
// answers through the outbox; it knows no network and runs no turn.
//
// Silence is never an answer: whoever writes to us directly is told what became
// of it, also when the answer is no.
//
//	desk, err := inbound.New(inbound.Options{Turns: e, Store: db, Senders: policy})
//	err = adapter.Run(ctx, desk.Host(adapter, report))
package inbound

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/turn"
)

// Turns is the turn engine.
type Turns interface {
	Accept(ctx context.Context, m turn.Message) (turn.Message, *turn.Live, bool, error)
	StopChat(chat string) int
	Interrupt(chat string)
	Waiting(chat string) (waiting int, running bool)
	CountAnswered()
	Tally() turn.Tally
}

// Store is what outlives the process. Its methods block for the disk and are
// safe for concurrent use.
type Store interface {
	// Chat returns what a chat is set to; a zero Session: it is new.
	Chat(ctx context.Context, key string) (Chat, error)
	// Command commits a message that a command answered at once: it counts as
	// received and answered, once; after is called if it was new.
	Command(ctx context.Context, m turn.Message, c Change, reply []outbox.Part, after func()) error
	// Enqueue commits parts that answer no accepted message.
	Enqueue(ctx context.Context, parts []outbox.Part) error
	Cursor(ctx context.Context, account string) (string, error)
	// Last returns the last message of a chat that was a question, with the number
	// of its first stored message (0: none is stored); turn.ErrUnknown if none.
	Last(ctx context.Context, chatKey, session string) (turn.Message, int64, error)
	// Usage sums the tokens of a session.
	Usage(ctx context.Context, session string) (Usage, error)
	// Sessions lists the sessions of a chat, the last used first.
	Sessions(ctx context.Context, chatKey string, limit int) ([]Session, error)

	// Paired says whether an operator approved a sender.
	Paired(ctx context.Context, platform, sender string) (bool, error)
	// Pair keeps p unless its sender has a code that is younger than its time, or
	// the platform has as many open ones as it may; it returns the one that holds,
	// with fresh true for p itself. ErrTooMany.
	Pair(ctx context.Context, p Pairing) (kept Pairing, fresh bool, err error)
}

// ErrTooMany means that more wait to be paired than may.
var ErrTooMany = errors.New("too many pairing codes are open")

// Chat is what a chat is set to.
type Chat struct {
	Session string
	Busy    string // Queue, Interrupt; empty: the setting
}

// What a new message does while a turn runs.
const (
	Queue     = "queue"
	Interrupt = "interrupt"
)

// Change is what a command changes in its chat; empty fields change nothing.
type Change struct {
	Session string
	Busy    string
}

// Usage is what a session cost.
type Usage struct {
	Messages            int64
	TokensIn, TokensOut int64
}

// Session is one conversation of a chat.
type Session struct {
	ID       string
	Messages int64 // that were questions
	Last     time.Time
	Title    string // how it began
}

// Pairing is the wish of a sender to be let in.
type Pairing struct {
	Code     string
	Platform string
	Sender   string
	Name     string
	Created  time.Time
	To       outbox.Address // where the sender is told that they were let in
}

const (
	// PairingTime is how long a code may be approved.
	PairingTime = time.Hour
	// MaxPairings bounds the open codes of one platform: strangers must not fill
	// the database.
	MaxPairings = 100
	codeLength  = 8
	// codeLetters leaves out what is easily taken for another.
	codeLetters = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
	// remindAfter is how often one stranger is told of the same code.
	remindAfter = 10 * time.Minute
)

// Options says what a desk is made of.
type Options struct {
	Turns Turns
	Store Store
	// Senders is the policy.
	Senders access.Senders
	// Pairing lets strangers ask to be let in.
	Pairing bool
	// MaxMessage bounds a message in bytes. Default 1 MiB.
	MaxMessage int
	// Busy is what a new message does while a turn runs: Queue (default) or
	// Interrupt.
	Busy string
	// Model names the models, for /model: the first and what stands in for it.
	Model string
	// Wake is called when something was put into the outbox of an account.
	Wake func(account string)
	// Drop takes off what waits to be sent to a chat, and returns how many parts
	// that were. Default: nothing can be.
	Drop func(ctx context.Context, to outbox.Address) (int, error)
	// Refused is called for each message that was not let in. Default: nothing.
	Refused func()
	// Audit writes a line of the audit log. Default: nothing.
	Audit func(pairs ...string)
	// Status tells the state of the gateway in a few words. Default: nothing.
	Status func() string
	Log    *slog.Logger // default: discards
}

// Desk takes messages in. It is safe for concurrent use.
type Desk struct {
	o Options

	mu       sync.Mutex
	reminded map[string]time.Time // strangers, when they were told of their code
}

// New builds a desk.
func New(o Options) (*Desk, error) {
	if o.Turns == nil || o.Store == nil {
		return nil, errors.New("cannot take messages in without a turn engine and a store")
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = 1 << 20
	}
	if o.Wake == nil {
		o.Wake = func(string) {}
	}
	if o.Drop == nil {
		o.Drop = func(context.Context, outbox.Address) (int, error) { return 0, nil }
	}
	if o.Refused == nil {
		o.Refused = func() {}
	}
	if o.Audit == nil {
		o.Audit = func(...string) {}
	}
	if o.Status == nil {
		o.Status = func() string { return "" }
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Desk{o: o, reminded: map[string]time.Time{}}, nil
}

// Host is what one adapter talks to.
func (d *Desk) Host(a platform.Adapter, report func(supervise.State, string)) platform.Host {
	return &host{d, a, report}
}

type host struct {
	desk    *Desk
	adapter platform.Adapter
	report  func(supervise.State, string)
}

// Report implements platform.Host.
func (h *host) Report(state supervise.State, reason string) { h.report(state, reason) }

// Cursor implements platform.Host.
func (h *host) Cursor(ctx context.Context, account string) (string, error) {
	return h.desk.o.Store.Cursor(ctx, account)
}

// Accept implements platform.Host.
func (h *host) Accept(ctx context.Context, in platform.Inbound) error {
	in.Text = clean(in.Text)
	v := visit{desk: h.desk, adapter: h.adapter, in: in, key: platform.Key(h.adapter.Platform(), in.Chat, in.Thread)}
	return v.receive(ctx)
}

// clean makes text of whatever a network delivers: valid, without control
// characters but line ends and tabs.
func clean(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return -1
		}
		return r
	}, text)
}

// visit is one message on its way in.
type visit struct {
	desk    *Desk
	adapter platform.Adapter
	in      platform.Inbound
	key     string // of the chat
	tier    access.Tier
	chat    Chat
}

// receive is the whole way: the policy first, before anything else is looked at.
func (v *visit) receive(ctx context.Context) error {
	if err := v.admit(ctx); err != nil || v.tier == access.Stranger {
		return err
	}
	var err error
	if v.chat, err = v.desk.o.Store.Chat(ctx, v.key); err != nil {
		return fmt.Errorf("cannot read the chat: %w", err)
	}
	if v.chat.Session == "" {
		v.chat.Session = newSession()
	}
	switch text := strings.TrimSpace(v.in.Text); {
	case text == "":
		return v.say(ctx, "There was nothing to read in that message.")
	case len(v.in.Text) > v.desk.o.MaxMessage:
		return v.say(ctx, fmt.Sprintf("That message is too long: %d bytes, and I take %d. Nothing of it was kept.", len(v.in.Text), v.desk.o.MaxMessage))
	case strings.HasPrefix(text, "/"):
		return v.command(ctx, text)
	}
	return v.turn(ctx, turn.Ask{Messages: []chat.Message{{Role: chat.User, Text: v.spoken()}}}, "")
}

// spoken is what the model reads; where many talk it is told who.
func (v *visit) spoken() string {
	if v.in.Direct || v.in.Sender.Name == "" {
		return v.in.Text
	}
	return v.in.Sender.Name + ": " + v.in.Text
}

// admit finds out what the sender may do and sees strangers off.
func (v *visit) admit(ctx context.Context) error {
	name := v.adapter.Platform()
	paired, err := v.desk.o.Store.Paired(ctx, name, v.in.Sender.ID)
	if err != nil {
		return fmt.Errorf("cannot look the sender up: %w", err)
	}
	if v.tier = v.desk.o.Senders.TierOf(name, v.in.Sender.ID, paired); v.tier > access.Stranger {
		return nil
	}
	v.desk.o.Refused()
	if !v.in.Direct { // a channel is not ours to fill with refusals
		return nil
	}
	return v.offerPairing(ctx)
}

// offerPairing tells a stranger how to be let in.
func (v *visit) offerPairing(ctx context.Context) error {
	who := v.adapter.Platform() + ":" + v.in.Sender.ID
	if !v.desk.remind(who) {
		return nil
	}
	if !v.desk.o.Pairing {
		return v.say(ctx, "I may not talk to you. The operator lets people in by their id; yours is "+who)
	}
	p, fresh, err := v.desk.o.Store.Pair(ctx, Pairing{
		Code: newCode(), Platform: v.adapter.Platform(), Sender: v.in.Sender.ID, Name: v.in.Sender.Name, Created: time.Now(), To: v.address(),
	})
	if errors.Is(err, ErrTooMany) {
		return v.say(ctx, "I do not know you, and too many others ask to be let in just now. Try again in an hour.")
	}
	if err != nil {
		return fmt.Errorf("cannot keep a pairing code: %w", err)
	}
	if fresh {
		v.desk.o.Audit("pairing", "asked", "platform", p.Platform, "sender", p.Sender, "name", p.Name)
	}
	return v.say(ctx, fmt.Sprintf("I do not know you yet. Your pairing code is %s, good for an hour. The operator lets you in with: hermes pairing approve %s", p.Code, p.Code))
}

// remind says whether a stranger is to be told now; who repeats is not.
func (d *Desk) remind(who string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for key, at := range d.reminded {
		if now.Sub(at) > remindAfter {
			delete(d.reminded, key)
		}
	}
	if _, known := d.reminded[who]; known || len(d.reminded) >= 10*MaxPairings {
		return false
	}
	d.reminded[who] = now
	return true
}

func newCode() string {
	b := make([]byte, codeLength)
	_, _ = rand.Read(b) // never fails, see its documentation
	for i := range b {
		b[i] = codeLetters[int(b[i])%len(codeLetters)]
	}
	return string(b)
}

func unique() string { return strings.ToLower(rand.Text()) }

func newSession() string { return "sess_" + unique() }

// message is the inbox's row of this visit.
func (v *visit) message(ask turn.Ask) turn.Message {
	ask.To, ask.Cursor = v.address(), v.in.Cursor
	return turn.Message{
		ID: "msg_" + unique(), Account: v.in.Account, External: v.in.ID, Chat: v.key, Session: v.chat.Session,
		Sender: v.in.Sender.ID, Ask: ask,
	}
}

func (v *visit) address() outbox.Address {
	return outbox.Address{Account: v.in.Account, Chat: v.in.Chat, Thread: v.in.Thread, ReplyTo: v.in.ID}
}

// turn accepts the message, in place of the failed one called replayOf if there
// is one.
func (v *visit) turn(ctx context.Context, ask turn.Ask, replayOf string) error {
	m := v.message(ask)
	m.Ask.SetChat, m.ReplayOf = true, replayOf
	_, running := v.desk.o.Turns.Waiting(v.key)
	_, _, fresh, err := v.desk.o.Turns.Accept(ctx, m)
	switch {
	case errors.Is(err, turn.ErrDraining), errors.Is(err, turn.ErrFull):
		v.desk.o.Refused()
		return v.say(ctx, "I cannot take that now: "+err.Error())
	case err != nil:
		return err
	case fresh && running && v.busy() == Interrupt:
		v.desk.o.Turns.Interrupt(v.key)
	}
	return nil
}

func (v *visit) busy() string {
	for _, mode := range []string{v.chat.Busy, v.desk.o.Busy} {
		if mode != "" {
			return mode
		}
	}
	return Queue
}

// say answers without a turn; nothing was accepted.
func (v *visit) say(ctx context.Context, text string) error {
	err := v.desk.o.Store.Enqueue(ctx, Parts(v.adapter, turn.Message{Ask: turn.Ask{To: v.address()}}, text))
	if err != nil {
		return err
	}
	v.desk.o.Wake(v.in.Account)
	return nil
}

// Parts cuts text into what a sends, in answer to m.
func Parts(a platform.Adapter, m turn.Message, text string) []outbox.Part {
	return PartsFor(a.Limits(), m, text)
}

// PartsFor is Parts for a platform with these limits.
func PartsFor(limits platform.Limits, m turn.Message, text string) []outbox.Part {
	cut := outbox.Cut(text, limits.Text-len(outbox.RepeatMark), limits.Lines, limits.Fences)
	if len(cut) == 0 {
		cut = []string{"(an empty answer)"}
	}
	parts := make([]outbox.Part, len(cut))
	now := time.Now()
	for i, t := range cut {
		parts[i] = outbox.Part{
			Delivery: "dlv_" + unique(), Message: m.ID, Address: m.Ask.To, Part: i + 1, Parts: len(cut), Text: t, Created: now,
		}
	}
	return parts
}
