// Package outbox sends the parts of answers to platforms: in order, no faster
// than the platform bears, again after what may pass, and labelled where a part
// may have been sent before. It makes no answers and knows no network.
//
//	o, err := outbox.New(outbox.Options{Store: s, Senders: map[string]outbox.Sender{account: irc}})
//	err = o.Run(ctx)
package outbox

import "time"

// Address is where an answer goes.
type Address struct {
	Account string `json:"account"` // of ours, platform.Adapter.Account
	Chat    string `json:"chat"`
	Thread  string `json:"thread,omitempty"`
	ReplyTo string `json:"reply_to,omitempty"` // the platform's id of the message that is answered
}

// State is where a part is.
type State string

// The states of a part.
const (
	Pending State = "pending"
	Sending State = "sending" // a try is under way, or was when the process ended
	Sent    State = "sent"
	Dead    State = "dead" // given up; see Part.Error
)

// Part is one message to a platform: an answer, or a part of a long one.
type Part struct {
	Seq      int64  // the order to send in, from 1
	Delivery string // unique, and the same each time it is tried
	Message  string // the public id of the message it answers; empty: none
	Address
	Part, Parts int // from 1
	// Edits is the platform's id of the message that it takes the place of, a
	// preview; empty: it is a message of its own.
	Edits string
	Text  string
	State State
	// Unsure: a try ended in a way that leaves open whether the platform has it.
	Unsure    bool
	Attempts  int
	Tries     []Try
	Receipt   string // the platform's id of it
	Error     string // of the last try
	Created   time.Time
	NotBefore time.Time // zero: at once
	Finished  time.Time
}

// SameAnswer says whether both are parts of one answer: what is committed together
// has one time.
func (p Part) SameAnswer(other Part) bool {
	return p.Message == other.Message && p.Account == other.Account && p.Chat == other.Chat && p.Thread == other.Thread &&
		p.Created.Equal(other.Created)
}

// wait is for how long p may not be tried at now: no longer than it was told at the
// try before, also when the clock was set back since and the process began anew.
func (p Part) wait(now time.Time) time.Duration {
	left := p.NotBefore.Sub(now)
	if n := len(p.Tries); n > 0 {
		left = min(left, p.NotBefore.Sub(p.Tries[n-1].At))
	}
	return left
}

// Try is one attempt to send.
type Try struct {
	At    time.Time     `json:"at"`
	Took  time.Duration `json:"took"`
	Error string        `json:"error,omitempty"`
	Fate  string        `json:"fate,omitempty"`
}
