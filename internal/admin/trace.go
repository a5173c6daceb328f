package admin

import (
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/turn"
)

// Trace is everything that is known of one message.
type Trace struct {
	ID       string     `json:"id"`
	Platform string     `json:"platform"`
	Account  string     `json:"account"`
	External string     `json:"external_id"` // the platform's id, or the client's key
	Chat     string     `json:"chat"`
	Session  string     `json:"session"`
	Sender   string     `json:"sender"`
	State    turn.State `json:"state"`
	Reason   string     `json:"reason"`
	Error    string     `json:"error"`
	Attempts int        `json:"attempts"`
	Behind   int        `json:"behind"` // messages of the chat before it when it was accepted
	Joined   string     `json:"joined"` // the message whose turn answered it as well
	ReplayOf string     `json:"replay_of"`
	Settled  string     `json:"settled"`
	Model    string     `json:"model"`
	In       int64      `json:"input_tokens"`
	Out      int64      `json:"output_tokens"`
	Received time.Time  `json:"received"`
	Started  *time.Time `json:"started"`
	Finished *time.Time `json:"finished"`
	// Waiting says in words what an open message waits for.
	Waiting    string         `json:"waiting"`
	Steps      []StepInfo     `json:"steps"`
	Deliveries []DeliveryInfo `json:"deliveries"`
	Timeline   []Moment       `json:"timeline"`
}

// StepInfo is a step of a turn.
type StepInfo struct {
	Attempt int       `json:"attempt"`
	Kind    string    `json:"kind"`
	Model   string    `json:"model"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	In      int64     `json:"input_tokens"`
	Out     int64     `json:"output_tokens"`
	Error   string    `json:"error"`
	Tries   []TryInfo `json:"tries"`
}

// TryInfo is one call of a model, or of a platform.
type TryInfo struct {
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
	Kind    string    `json:"kind"` // of an error; empty: it went well
	Error   string    `json:"error"`
	Wait    float64   `json:"wait_seconds"` // before the next one
}

// Moment is a line of the timeline.
type Moment struct {
	At    time.Time `json:"at"`
	After float64   `json:"after_seconds"` // since it was received
	Stage string    `json:"stage"`
	What  string    `json:"what"`
}

func (h *Handler) trace(r *http.Request) (any, error) {
	m, err := h.o.Store.Find(r.Context(), r.PathValue("id"))
	if err != nil {
		if errors.Is(err, turn.ErrUnknown) {
			err = noSuch("there is no message %q, or several have this id; give the id that begins with msg_, run_ or dlv_", r.PathValue("id"))
		}
		return nil, err
	}
	steps, err := h.o.Store.Steps(r.Context(), m.Seq)
	if err != nil {
		return nil, err
	}
	parts, err := h.o.Store.Deliveries(r.Context(), m.ID)
	if err != nil {
		return nil, err
	}
	t := traceOf(m)
	for _, s := range steps {
		t.addStep(s)
	}
	for _, p := range parts {
		t.addPart(p)
	}
	t.end(m, parts)
	return t, nil
}

func traceOf(m turn.Message) *Trace {
	platform, _, _ := strings.Cut(m.Account, "/")
	t := &Trace{
		ID: m.ID, Platform: platform, Account: m.Account, External: m.External, Chat: m.Chat, Session: m.Session, Sender: m.Sender,
		State: m.State, Reason: m.Reason, Error: m.Error, Attempts: m.Attempts, Behind: m.Behind, Joined: m.Joined,
		ReplayOf: m.ReplayOf, Settled: m.Settled, Model: m.Reply.Model, In: m.Reply.Usage.Input, Out: m.Reply.Usage.Output,
		Received: m.Received, Started: known(m.Started), Finished: known(m.Finished),
		Steps: []StepInfo{}, Deliveries: []DeliveryInfo{},
	}
	from := m.Account
	if m.Sender != "" {
		from = m.Sender + " by " + m.Account
	}
	t.add(m.Received, "received", "from "+from+", in chat "+m.Chat)
	t.add(m.Received, "policy", "let in, and committed")
	if m.Behind > 0 {
		t.add(m.Received, "queued", fmt.Sprintf("behind %d other messages of the chat", m.Behind))
	}
	if m.ReplayOf != "" {
		t.add(m.Received, "replayed", "in place of "+m.ReplayOf)
	}
	if !m.Started.IsZero() {
		what := "the turn began"
		if m.Attempts > 1 {
			what = fmt.Sprintf("the turn began, attempt %d", m.Attempts)
		}
		t.add(m.Started, "running", what)
	}
	return t
}

func (t *Trace) add(at time.Time, stage, what string) {
	t.Timeline = append(t.Timeline, Moment{At: at.UTC(), After: at.Sub(t.Received).Seconds(), Stage: stage, What: what})
}

func (t *Trace) addStep(s Step) {
	info := StepInfo{
		Attempt: s.Attempt, Kind: s.Kind, Model: s.Model, Started: s.Started.UTC(), Seconds: s.Ended.Sub(s.Started).Seconds(),
		In: s.Usage.Input, Out: s.Usage.Output, Error: s.Error, Tries: []TryInfo{},
	}
	for i, try := range s.Tries {
		info.Tries = append(info.Tries, TryInfo{
			At: try.Started.UTC(), Seconds: try.Took.Seconds(), Kind: string(try.Kind), Error: try.Error, Wait: try.Wait.Seconds(),
		})
		what := fmt.Sprintf("%s asked, try %d: answered in %s", s.Model, i+1, round(try.Took))
		if try.Error != "" {
			what = fmt.Sprintf("%s asked, try %d: %s after %s: %s", s.Model, i+1, try.Kind, round(try.Took), try.Error)
		}
		if try.Wait > 0 {
			what += "; again after " + round(try.Wait).String()
		}
		t.add(try.Started, s.Kind, what)
	}
	t.Steps = append(t.Steps, info)
}

func (t *Trace) addPart(p outbox.Part) {
	t.Deliveries = append(t.Deliveries, deliveryOf(p))
	name := fmt.Sprintf("%s to %s", p.Delivery, p.Chat)
	if p.Parts > 1 {
		name = fmt.Sprintf("%s, part %d of %d, to %s", p.Delivery, p.Part, p.Parts, p.Chat)
	}
	if p.Edits != "" {
		name += ", in place of its preview"
	}
	for i, try := range p.Tries {
		what := fmt.Sprintf("%s, try %d: sent in %s", name, p.Attempts-len(p.Tries)+i+1, round(try.Took))
		if try.Error != "" {
			what = fmt.Sprintf("%s, try %d: not sent (%s) after %s: %s", name, p.Attempts-len(p.Tries)+i+1, try.Fate, round(try.Took), try.Error)
		}
		t.add(try.At, "delivery", what)
	}
	if p.State == outbox.Dead {
		t.add(p.Finished, "delivery", name+": given up: "+p.Error)
	}
}

// end adds how it ended, or what it waits for.
func (t *Trace) end(m turn.Message, parts []outbox.Part) {
	switch {
	case m.Joined != "":
		t.add(m.Finished, string(m.State), "with the turn of "+m.Joined)
	case m.State == turn.Answered:
		t.add(m.Finished, "answered", fmt.Sprintf("stored; %d tokens read, %d written", m.Reply.Usage.Input, m.Reply.Usage.Output))
	case m.State == turn.Failed:
		t.add(m.Finished, "failed", m.Reason+": "+m.Error)
	}
	if m.Settled != "" {
		t.add(m.Finished, "settled", "the dead letter was "+m.Settled)
	}
	switch {
	case m.State == turn.Queued:
		t.Waiting = "for the messages of the chat before it"
	case m.State == turn.Running:
		t.Waiting = "for the model"
	default:
		for _, p := range parts {
			if p.State == outbox.Pending || p.State == outbox.Sending {
				t.Waiting = "to be delivered: " + p.Delivery
				if p.Error != "" {
					t.Waiting += ", last: " + p.Error
				}
				break
			}
		}
	}
	sort.SliceStable(t.Timeline, func(i, j int) bool { return t.Timeline[i].At.Before(t.Timeline[j].At) })
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
