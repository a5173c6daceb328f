// Package platform is the vocabulary between the gateway and the networks that
// people chat on: what comes in, what goes out, and the interface that the
// adapter of each network implements. It connects to nothing and keeps nothing;
// internal/platform/irc and its kin do. A new adapter implements Adapter, and
// Editor if its network can change what was said, and passes platformtest.Run.
//
//	err := adapter.Run(ctx, host)                       // host.Accept commits what arrives
//	receipt, err := adapter.Send(ctx, platform.Outbound{Delivery: "dlv_1", Chat: "#ops", Text: "hello"})
//	if platform.FateOf(err) == platform.Unknown { … }   // say so when it is sent again
package platform

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/supervise"
)

// Key names a conversation: platform/chat/thread, the thread only where there
// is one. Slashes within a part are escaped, so that no two conversations share
// a key.
func Key(platform, chat, thread string) string {
	key := escape(platform) + "/" + escape(chat)
	if thread != "" {
		key += "/" + escape(thread)
	}
	return key
}

func escape(part string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(part)
}

// Sender is who wrote a message.
type Sender struct {
	// ID is what the network vouches for and nobody else can take: an account, a
	// number. Who may talk is decided by it alone.
	ID string
	// Name is for people to read. Anybody may call themselves anything.
	Name string
}

// Inbound is a message that arrived.
type Inbound struct {
	// Account is the account of ours that received it, as Adapter.Account.
	Account string
	// ID is the network's id of the message, unique within Account: the same
	// message delivered again has the same ID and is accepted once.
	ID string
	// Chat is where to answer (a channel, a peer), Thread a part of it or empty.
	Chat, Thread string
	// Direct: the chat is between the sender and us alone.
	Direct bool
	Sender Sender
	Text   string // valid UTF-8
	// Cursor is how far the network's stream of messages has been read with this
	// one; it is committed together with the message. Empty: the network has none.
	Cursor string
	At     time.Time // when the network says it was sent; zero: unknown
}

// Outbound is one part of an answer on its way out.
type Outbound struct {
	// Delivery is unique to this part and stays the same when it is sent again:
	// networks that drop repeated ids are given it.
	Delivery string
	Chat     string
	Thread   string
	// ReplyTo is the network's id of the message that is answered; may be empty.
	ReplyTo string
	Text    string // at most Limits.Text bytes
}

// Receipt is what the network says about a message that it took.
type Receipt struct {
	ID string // the network's id of it; empty where it gives none
}

// Fate is what became of a Send that returned an error.
type Fate string

// The fates.
const (
	// Retry: it surely was not sent and may be tried again.
	Retry Fate = "retry"
	// Never: it surely was not sent and never will be (a chat that is gone, a
	// text that is refused).
	Never Fate = "never"
	// Unknown: it may have been sent.
	Unknown Fate = "unknown"
)

// SendError is why a Send failed.
type SendError struct {
	Fate Fate
	// After is how long the network asks to wait; 0: it does not say.
	After time.Duration
	// Account: the wait holds for the whole account, not for this chat alone.
	Account bool
	// Text: it is this text that is refused; others may go to the chat.
	Text bool
	Err  error
}

// Error returns the text of the cause.
func (e *SendError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *SendError) Unwrap() error { return e.Err }

// FateOf returns the fate in err: Unknown for an error that does not say, and
// nothing for nil.
func FateOf(err error) Fate {
	var e *SendError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Fate
	default:
		return Unknown
	}
}

// Limits is what a network bears.
type Limits struct {
	// Text bounds the bytes of one Outbound.Text.
	Text int
	// Line bounds the bytes of one line where every line is a message of its own,
	// with the pause of one: what has many is better said in few. 0: a text may
	// have as many lines as it wants.
	Line int
	// PerChat and PerAccount are the pauses between two sends that the network
	// bears for ever; Burst sends may come at once before them. An edit counts as a
	// send. Half of the burst is kept for answers: where there is a pause and the
	// burst is 1, nothing is left for previews.
	PerChat, PerAccount time.Duration
	Burst               int
	// Send is the longest that one Send may take; 0: a minute. Networks that bear
	// a line a second need more.
	Send time.Duration
	// Dedupes: the network drops a second message with the same Delivery, so
	// sending again is harmless. The receipt is that of the first.
	Dedupes bool
	// Fences: a code block that is cut is closed at the end of a part, and opened
	// again in the next.
	Fences bool
	// Lines bounds the lines of one Outbound.Text, for networks that bear so many a
	// minute: what is being sent cannot be stopped. 0: any number.
	Lines int
}

// Host is what an adapter may ask of the gateway. Safe for concurrent use.
type Host interface {
	// Accept takes a message in and returns when that is committed, or when
	// policy refused it; then the adapter may acknowledge it to the network. On an
	// error nothing was taken in: the adapter must not acknowledge, and tries again.
	Accept(ctx context.Context, m Inbound) error
	// Cursor returns the cursor that was last committed for account, or nothing.
	Cursor(ctx context.Context, account string) (string, error)
	// Report tells the state of the connection: starting, ready or degraded, and
	// why.
	Report(state supervise.State, reason string)
}

// Adapter is one account on one network.
type Adapter interface {
	// Platform is the name of the network: irc, matrix. It does not change.
	Platform() string
	// Account names the account uniquely among all that a profile may ever have,
	// for example irc/hermes@irc.example.net. It does not change.
	Account() string
	// Limits does not change while the adapter lives.
	Limits() Limits
	// Run connects, and connects again whenever that is lost, until ctx ends; then
	// it says goodbye and returns nil. An error means that trying again is useless
	// until an operator acts.
	Run(ctx context.Context, host Host) error
	// Send blocks until the network has the message or surely has not, and at
	// most until ctx ends. It may be called before Run and between connections:
	// then the error's fate is Retry. Errors are *SendError.
	Send(ctx context.Context, m Outbound) (Receipt, error)
}

// Editor is an Adapter whose network can change what was said. With it an answer
// is shown while it grows, as a preview: one message, posted by Send and edited,
// which the answer takes the place of. Receipt.ID must then never be empty. A call
// for a preview is given 5 s.
//
// A call that fails is never made up for by a new message, but for the fate
// Never, so that must be certain.
type Editor interface {
	// Edit gives the message that Send returned as id the text of m, whose Chat and
	// Thread are those of then, and notifies nobody where the network leaves that
	// open. Giving it the text that it has is no error. It blocks as Send does and
	// takes no longer than that; safe for concurrent use. Errors are *SendError.
	// Their fates: Retry, it surely was not edited and may be later, so also before
	// Run and between connections; Never, it surely was not and never will be, such
	// as a message that somebody removed; Unknown, it may have been edited.
	Edit(ctx context.Context, id string, m Outbound) error
}
