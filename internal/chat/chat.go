// Package chat is the vocabulary of a conversation with a model: messages,
// requests, replies, the interface every model implements and the kinds of
// failure a caller may act on. It talks to no model and keeps no conversation.
//
//	reply, err := model.Complete(ctx, chat.Request{Messages: []chat.Message{
//		{Role: chat.User, Text: "hello"},
//	}}, func(delta string) error { fmt.Print(delta); return nil })
//	if chat.KindOf(err) == chat.RateLimited { … }
package chat

import (
	"context"
	"errors"
	"time"
)

// Role is who speaks.
type Role string

// The roles. A "developer" of newer OpenAI clients is System here.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
)

// Message is one thing said.
type Message struct {
	Role Role
	Text string
}

// Request is what a model is asked to continue.
type Request struct {
	Messages    []Message // oldest first; the last is the user's
	Temperature *float64  // nil: the model's own
	TopP        *float64  // nil: the model's own
	MaxTokens   int64     // of the reply; 0: the model's own limit
	Stop        []string  // texts that end the reply
}

// Finish is why a reply ended.
type Finish string

// The reasons a reply ends for.
const (
	FinishStop     Finish = "stop"           // the model was done
	FinishLength   Finish = "length"         // MaxTokens was reached
	FinishFiltered Finish = "content_filter" // the provider withheld the rest
)

// Usage counts tokens as the model counts them; 0 where it does not say.
type Usage struct {
	Input, Output int64
}

// Reply is a model's whole answer.
type Reply struct {
	Text   string
	Finish Finish
	Usage  Usage
}

// Model answers. It is safe for concurrent use.
type Model interface {
	// Name is what /v1/models calls it; it does not change.
	Name() string
	// Complete blocks until the reply is whole or ctx ends. It calls emit, never
	// nil, from the calling goroutine with each piece of text as it comes; the
	// pieces joined are Reply.Text. An error of emit ends the reply and is
	// returned. Every other error has a Kind; asking again is safe, though it
	// may cost.
	Complete(ctx context.Context, req Request, emit func(delta string) error) (Reply, error)
}

// Kind is what a caller may do about a failure.
type Kind string

// The kinds of failure.
const (
	Failed      Kind = "failed"       // the model broke; asking again may not help
	Invalid     Kind = "invalid"      // the request is at fault; do not repeat it
	Auth        Kind = "auth"         // the model refuses our credentials; an operator must act
	RateLimited Kind = "rate_limited" // too many requests; later
	Unavailable Kind = "unavailable"  // not reachable or overloaded; may be retried
	Cancelled   Kind = "cancelled"    // the caller's context ended
	// TooLong is a request that does not fit the model's context; a shorter one may.
	TooLong Kind = "context_too_long"
)

// Error is a failure of a model.
type Error struct {
	Kind       Kind
	Message    string        // for people; no secret in it
	RetryAfter time.Duration // 0: unknown
	Err        error         // the cause, may be nil
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of err: Cancelled for an ended context, Failed for an
// error without a kind, and nothing for nil.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Cancelled
	default:
		return Failed
	}
}
