// Package agent asks the model: it makes one turn of a conversation into one
// answer. It chooses what of the history fits, has the rest summarised, tries
// again what may be tried again, and falls back on a second model. It stores
// nothing but summaries, keeps no conversation in memory, and knows neither
// who asked nor where the answer goes.
//
//	a, err := agent.New(agent.Options{Model: model, Fallback: second})
//	result, err := a.Answer(ctx, agent.Turn{
//		Session: "irc/#go", Continued: true, News: news, History: db, Out: view,
//	})
//	if chat.KindOf(err) == chat.TooLong { … }
package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
)

// Defaults of Options.
const (
	// DefaultRetries with the pauses between them outlast a restart of a model
	// server: 4 take 4 to 8 seconds.
	DefaultRetries = 4
	// DefaultContextTokens fits every hosted model and what people give a local
	// one of 8 to 16 GB.
	DefaultContextTokens = 16000
	// DefaultTimeout leaves a slow local model time for a long answer.
	DefaultTimeout = 10 * time.Minute
	// DefaultMaxAnswer is a book of 500 pages, in bytes: nobody asked for more.
	DefaultMaxAnswer = 1 << 20
)

const (
	// minContextTokens is where summary, news and answer no longer fit together.
	minContextTokens = 512
	// maxCuts is how often a context that the model finds too long is halved.
	maxCuts = 2
)

// Options says which models to ask, and within which bounds.
type Options struct {
	Model    chat.Model   // asked first
	Fallback chat.Model   // asked when Model has failed; nil: none
	Retries  int          // tries after the first, of each model; 0: DefaultRetries; negative: none
	Log      *slog.Logger // nil: none

	// ContextTokens is what the model takes, question and answer together. The
	// estimate is rough; a model that takes less says so and is asked with less.
	// At least 512; 0: DefaultContextTokens.
	ContextTokens int
	// Timeout is for one whole turn, pauses included. 0: DefaultTimeout.
	Timeout time.Duration
	// MaxAnswer cuts an answer that does not end, in bytes. 0: DefaultMaxAnswer.
	MaxAnswer int
}

// Agent answers turns. It is safe for concurrent use.
type Agent struct {
	o   Options
	log *slog.Logger
}

// New returns an agent; it asks nobody yet.
func New(o Options) (*Agent, error) {
	if o.Model == nil {
		return nil, errors.New("an agent needs a model")
	}
	o.Retries = max(0, cmp.Or(o.Retries, DefaultRetries))
	o.ContextTokens = cmp.Or(o.ContextTokens, DefaultContextTokens)
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.MaxAnswer = cmp.Or(o.MaxAnswer, DefaultMaxAnswer)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ContextTokens < minContextTokens || o.Timeout < 0 || o.MaxAnswer < 0 {
		return nil, fmt.Errorf("a context of %d tokens, a timeout of %s, an answer of %d bytes: the least are %d, 0, 0",
			o.ContextTokens, o.Timeout, o.MaxAnswer, minContextTokens)
	}
	return &Agent{o: o, log: o.Log}, nil
}

// Turn is what to answer.
type Turn struct {
	Session   string         // whose history it continues
	Continued bool           // false: nothing can be stored for Session, and History is not asked
	System    []chat.Message // instructions, for this turn only
	News      []chat.Message // what History does not hold yet, oldest first; the last is the user's
	Request   chat.Request   // parameters; its Messages are not looked at
	History   History
	Out       Out
}

// Result is an answer and who gave it.
type Result struct {
	Reply chat.Reply
	Model string // its name
}

// Stored is a message of the history.
type Stored struct {
	Seq int64 // its place, above 0: later ones have higher numbers, gaps are allowed
	chat.Message
}

// Summary stands for the messages of a session up to one of them.
type Summary struct {
	Upto int64 // Seq of the last message that it covers; 0: none
	Text string
}

// History is what has been said in the sessions. It is safe for concurrent use;
// the agent asks for one session from one goroutine.
type History interface {
	// Recent returns up to limit messages of session that stand before the one
	// numbered before (0: before the end), newest first.
	Recent(ctx context.Context, session string, before int64, limit int) ([]Stored, error)
	// Since returns up to limit messages of session that stand after the one
	// numbered after (0: from the beginning), oldest first.
	Since(ctx context.Context, session string, after int64, limit int) ([]Stored, error)
	// Summary returns the last summary kept for session; ok false: there is none.
	Summary(ctx context.Context, session string) (s Summary, ok bool, err error)
	// KeepSummary commits s in place of the last one. Once it has returned nil,
	// the model is never asked for it again.
	KeepSummary(ctx context.Context, session string, s Summary) error
}

// Out is the live view of an answer. It is called from the goroutine of Answer.
type Out interface {
	// Delta takes the next piece. Its error ends the turn and is returned.
	Delta(text string) error
	// Restart says that all pieces so far are void: the answer begins again.
	Restart()
	// Stepped says that a step has ended, well or not.
	Stepped(s Step)
}

// The kinds of step.
const (
	StepSummary = "summary" // an older part of the conversation was summarised
	StepModel   = "model"   // the answer itself
)

// Step is one thing asked of one model, with all its tries, for the trace.
type Step struct {
	Kind    string // StepSummary or StepModel
	Model   string
	Started time.Time
	Ended   time.Time
	Tries   []Try
	Usage   chat.Usage // of the try that succeeded
	Error   string     // of the last try; empty: it succeeded
}

// Try is one request to a model.
type Try struct {
	Started time.Time
	Took    time.Duration
	Kind    chat.Kind // empty: it succeeded
	Error   string
	Wait    time.Duration // until the next try; 0: it was the last
}

// Answer runs one turn. It blocks until there is an answer, ctx ends or the
// turn's time is over. An error of the model has a chat.Kind and, where the
// model said so, RetryAfter; errors of Out and History come back wrapped. Where
// it fails, pieces may have gone to Out that are no answer. Asking again is
// safe: summaries that were kept are not asked for again.
func (a *Agent) Answer(ctx context.Context, t Turn) (Result, error) {
	limited, cancel := context.WithTimeout(ctx, a.o.Timeout)
	defer cancel()
	r := a.newRun(t)
	reply, err := r.answer(limited)
	if err == nil {
		return Result{Reply: reply, Model: r.models[0].Name()}, nil
	}
	if chat.KindOf(err) == chat.Cancelled && ctx.Err() == nil && limited.Err() != nil {
		err = &chat.Error{
			Kind: chat.Unavailable, Err: err,
			Message: fmt.Sprintf("the model %q did not answer within %s", r.models[0].Name(), a.o.Timeout),
		}
	}
	return Result{}, err
}

// run is one turn on its way.
type run struct {
	a         *Agent
	t         Turn
	models    []chat.Model // not given up yet; the first is asked
	draft     *draft       // of the answer
	summaries int          // asked for so far
}

func (a *Agent) newRun(t Turn) *run {
	note := fmt.Sprintf("\n\n[The answer is cut off here: it is longer than %d bytes.]", a.o.MaxAnswer)
	r := &run{a: a, t: t, models: []chat.Model{a.o.Model}, draft: &draft{out: t.Out, max: a.o.MaxAnswer, note: note}}
	if a.o.Fallback != nil {
		r.models = append(r.models, a.o.Fallback)
	}
	return r
}

// answer asks with a window that the model takes: where it says that the
// context is too long, with half of it.
func (r *run) answer(ctx context.Context) (chat.Reply, error) {
	var refused error // in the model's own words
	smallest := math.MaxInt
	for limit, cuts := r.a.o.ContextTokens, 0; ; limit, cuts = limit/2, cuts+1 {
		messages, err := r.window(ctx, limit)
		if refused != nil && (errors.Is(err, errNoRoom) || err == nil && tokens(messages...) >= smallest) {
			return chat.Reply{}, refused // nothing is left to leave out
		}
		var reply chat.Reply
		if err == nil {
			smallest = tokens(messages...)
			req := r.t.Request
			req.Messages = messages
			reply, err = r.ask(ctx, StepModel, req, r.draft)
		}
		if chat.KindOf(err) != chat.TooLong || errors.Is(err, errNoRoom) || cuts == maxCuts {
			return reply, err
		}
		refused = err
		r.a.log.Warn("the model takes less context than is set", "model", r.models[0].Name(), "tokens", limit, "error", err)
	}
}
