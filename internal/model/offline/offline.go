// Package offline is the model that needs no network, no key and no money: the
// default of a profile until a model is set. It does not understand anything;
// it says so, tells how to set a model, and repeats what it was told with the
// number of the turn, so that one sees that a conversation goes on.
//
//	m := offline.New(offline.Options{Delay: 2 * time.Second})
package offline

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
)

// Name is what the model is called.
const Name = "offline"

// Options changes how the model answers.
type Options struct {
	// Delay is how long it thinks before the first word. Default 0.
	Delay time.Duration
}

// Model implements chat.Model.
type Model struct{ delay time.Duration }

// New returns the model.
func New(o Options) *Model { return &Model{delay: o.Delay} }

// Name returns Name.
func (m *Model) Name() string { return Name }

// Complete answers in a few pieces, after the delay.
func (m *Model) Complete(ctx context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
	turn, last := count(req.Messages)
	if turn == 0 {
		return chat.Reply{}, &chat.Error{Kind: chat.Invalid, Message: "there is no message of the user to answer"}
	}
	if err := m.think(ctx); err != nil {
		return chat.Reply{}, err
	}
	var text strings.Builder
	for _, piece := range pieces(turn, last) {
		if err := ctx.Err(); err != nil {
			return chat.Reply{}, err
		}
		if err := emit(piece); err != nil {
			return chat.Reply{}, err
		}
		text.WriteString(piece)
	}
	return chat.Reply{Text: text.String(), Finish: chat.FinishStop, Usage: usage(req, text.String())}, nil
}

func (m *Model) think(ctx context.Context) error {
	if m.delay <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(m.delay)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// count returns how often the user spoke and what they said last.
func count(messages []chat.Message) (turn int, last string) {
	for _, m := range messages {
		if m.Role == chat.User {
			turn, last = turn+1, m.Text
		}
	}
	return turn, last
}

func pieces(turn int, said string) []string {
	return []string{
		"I am offline: no model is set for this profile. ",
		"Set HERMES_MODEL_PROVIDER=openai with HERMES_MODEL_BASE_URL, HERMES_MODEL_API_KEY and HERMES_MODEL_NAME ",
		"in its .env and restart the gateway.\n",
		fmt.Sprintf("Turn %d of this conversation. You said: ", turn),
		said,
	}
}

// usage counts words, the nearest thing to tokens that a model without a
// vocabulary has.
func usage(req chat.Request, reply string) chat.Usage {
	u := chat.Usage{Output: words(reply)}
	for _, m := range req.Messages {
		u.Input += words(m.Text)
	}
	return u
}

func words(s string) int64 { return int64(len(strings.Fields(s))) }
