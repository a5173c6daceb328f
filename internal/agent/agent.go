// Package agent is what one turn asks of the model: the window of the
// conversation, the call, the reply. It keeps nothing itself.
//
//	a, err := agent.New(agent.Options{Model: m})
//	result, err := a.Answer(ctx, agent.Turn{Session: "s", News: news, History: store, Out: live})
package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
)

// Options says what answers.
type Options struct {
	Model         chat.Model
	Fallback      chat.Model
	Retries       int
	ContextTokens int
	Timeout       time.Duration
	MaxAnswer     int
	Log           *slog.Logger
}

// Agent answers turns.
type Agent struct{ o Options }

// New builds an agent.
func New(o Options) (*Agent, error) {
	if o.Model == nil {
		return nil, errors.New("cannot build an agent without a model")
	}
	return &Agent{o}, nil
}

// Turn is what is to be answered.
type Turn struct {
	Session   string
	Continued bool
	System    []chat.Message
	News      []chat.Message
	Request   chat.Request
	History   History
	Out       Out
}

// Stored is a message with its number in the session.
type Stored struct {
	Seq int64
	chat.Message
}

// Summary is what the messages up to Upto came to.
type Summary struct {
	Upto int64
	Text string
}

// History reads a conversation.
type History interface {
	Recent(ctx context.Context, session string, before int64, limit int) ([]Stored, error)
	Summary(ctx context.Context, session string) (Summary, bool, error)
	KeepSummary(ctx context.Context, session string, s Summary) error
}

// Try is one call of a model.
type Try struct {
	Started time.Time
	Took    time.Duration
	Error   string
	Kind    chat.Kind
	Wait    time.Duration
}

// Step is a piece of work of a turn that has ended.
type Step struct {
	Kind           string
	Model          string
	Started, Ended time.Time
	Tries          []Try
	Usage          chat.Usage
	Error          string
}

// Out sees the answer grow.
type Out interface {
	Delta(text string) error
	Restart()
	Stepped(Step)
}

// Result is an answer.
type Result struct {
	Reply chat.Reply
	Model string
}

// Answer runs one turn.
func (a *Agent) Answer(ctx context.Context, t Turn) (Result, error) {
	req := t.Request
	var past []chat.Message
	if t.Continued {
		list, err := t.History.Recent(ctx, t.Session, 0, 1000)
		if err != nil {
			return Result{}, err
		}
		for _, m := range slices.Backward(list) {
			past = append(past, m.Message)
		}
	}
	req.Messages = slices.Concat(t.System, past, t.News)
	start := time.Now()
	reply, err := a.o.Model.Complete(ctx, req, t.Out.Delta)
	step := Step{Kind: "model", Model: a.o.Model.Name(), Started: start, Ended: time.Now(), Usage: reply.Usage, Tries: []Try{{Started: start, Took: time.Since(start)}}}
	if err != nil {
		step.Error = err.Error()
	}
	t.Out.Stepped(step)
	return Result{Reply: reply, Model: a.o.Model.Name()}, err
}
