package turn

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/outbox"
)

// State is where a message is. At every moment the messages received are those
// answered, failed, queued and running.
type State string

// The states of a message.
const (
	Queued   State = "queued"
	Running  State = "running"
	Answered State = "answered"
	Failed   State = "failed"
)

// Ended says whether s is a state that does not change any more.
func (s State) Ended() bool { return s == Answered || s == Failed }

// The reasons of a failed message that are not a chat.Kind.
const (
	// Cancelled: somebody stopped it.
	Cancelled = "cancelled"
	// Crashed: its turn was under way at the end of too many processes.
	Crashed = "crashed"
	// Internal: a bug of ours.
	Internal = "internal"
)

// Message is one accepted message, or one about to be.
type Message struct {
	Seq int64 // the order of acceptance, from 1
	// ID is its public name: msg_… or run_…
	ID string
	// Account and External say who brought it, and under which id: the same two
	// are the same message, accepted once.
	Account, External string
	// Digest tells a retry from another request under the same External; empty:
	// not compared.
	Digest string
	// Chat is the conversation as its platform sees it (platform/chat/thread):
	// its turns run one at a time, in order.
	Chat string
	// Session is the conversation as it is stored.
	Session string
	Sender  string
	Ask     Ask

	State    State
	Reason   string // of a failed one: a chat.Kind or a reason above
	Error    string // of a failed one, for people
	Attempts int    // how often its turn began
	Released int    // of those, how often a process left it to the next one in good order
	Restarts int    // how often the answer of the last attempt began again
	Behind   int    // messages of the chat that were before it when it was accepted
	Joined   string // the message whose turn answered it as well; empty: its own
	ReplayOf string // the failed message that it repeats; empty: none
	Settled  string // replayed, dropped; empty: nobody saw to it
	Preview  string // the platform's id of the message that shows the answer while it is given; empty: none does

	Received, Started, Finished time.Time // zero: not yet

	Reply Reply // of an answered one
}

// Ask is what a message wants; it is stored as JSON.
type Ask struct {
	// Messages is what was said, oldest first; several where a client brought the
	// past along.
	Messages []chat.Message `json:"messages"`
	// System holds rules for this turn alone.
	System []chat.Message `json:"system,omitempty"`
	// Fresh: nothing can be stored under the session yet.
	Fresh       bool     `json:"fresh,omitempty"`
	Temperature *float64 `json:"temperature,omitempty"`
	TopP        *float64 `json:"top_p,omitempty"`
	MaxTokens   int64    `json:"max_tokens,omitempty"`
	Stop        []string `json:"stop,omitempty"`
	// To is where the answer is delivered; zero: whoever asked reads it.
	To outbox.Address `json:"to,omitzero"`
	// TakeBack is the number from which on the turn takes the session's messages
	// back before it begins; 0: none.
	TakeBack int64 `json:"take_back,omitempty"`
	// Cursor is committed with the message; empty: the platform has none.
	Cursor string `json:"-"`
	// SetChat: the chat is in Session from now on.
	SetChat bool `json:"-"`
}

// Reply is what a message was answered with.
type Reply struct {
	Text   string
	Finish chat.Finish
	Usage  chat.Usage
	Model  string
}

// Outcome is how a turn ends; it is committed whole.
type Outcome struct {
	Seq    int64
	State  State // Answered or Failed
	Reason string
	Error  string
	At     time.Time
	// Session and News are what the conversation gains, the answer last.
	Session  string
	News     []chat.Message
	Reply    Reply
	Attempt  int
	Restarts int
	Steps    []agent.Step
	// Joined are the messages that this turn answers as well.
	Joined []int64
	// Parts go out to the platform.
	Parts []outbox.Part
}

// Filter chooses runs.
type Filter struct {
	Session string  // empty: of every session
	States  []State // empty: in every state
	Reason  string  // of failed ones; "!" before it: any but that
	Before  int64   // Seq; 0: from the newest on
	Limit   int
}

// Tally counts messages since the database was made.
type Tally struct {
	Received, Answered, Failed, Queued, Running int64
	Duplicates                                  int64 // deliveries labelled as perhaps repeated
}

// DigestOf is the Digest of a request's body.
func DigestOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}
