package irc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ergochat/irc-go/ircmsg"

	"github.com/hermesgw/hermes/internal/platform"
)

const (
	// unseen bounds what others see of us behind the nick before we have seen it:
	// !, ~ and a user name of 10, @ and a host name of 63 (RFC 2812, 2.3.1).
	unseen = 1 + 11 + 1 + 63
	// least is the shortest line worth sending, in bytes.
	least = 64
	// tryAgain is how long to wait where a server says "later" but not when.
	tryAgain = 30 * time.Second
	// verdict is how long a Send whose time is up waits for the loop, which
	// answers at once unless it is stuck in a write.
	verdict = 200 * time.Millisecond
)

// delivery is one Send on its way through the loop.
type delivery struct {
	ctx     context.Context
	chat    string
	text    string
	done    chan struct{} // closed when receipt and err are set
	receipt platform.Receipt
	err     error

	// Of the loop.
	lines     []string // still to be written
	sent      []*sentLine
	refused   *platform.SendError // the server's first no
	fence     string              // the PING that follows the lines; its PONG comes after all that they caused
	confirmBy time.Time           // zero while lines are left
}

// sentLine is what became of one line.
type sentLine struct{ settled, refused bool }

func retry(err error) *platform.SendError {
	return &platform.SendError{Fate: platform.Retry, Err: fmt.Errorf("cannot send to IRC: %w", err)}
}

func never(err error) *platform.SendError {
	return &platform.SendError{Fate: platform.Never, Err: fmt.Errorf("cannot send to IRC: %w", err)}
}

// unsayable is never for the text alone.
func unsayable(err error) *platform.SendError {
	no := never(err)
	no.Text = true
	return no
}

func unknown(err error) *platform.SendError {
	return &platform.SendError{Fate: platform.Unknown, Err: fmt.Errorf("cannot tell whether it was sent to IRC: %w", err)}
}

// Send implements platform.Adapter. The text goes out as as many lines as it
// takes, a few at once and then one each Timing.Line, and nothing of another
// Send between them; then the server's word is waited for.
func (a *Adapter) Send(ctx context.Context, m platform.Outbound) (platform.Receipt, error) {
	s := a.session.Load()
	switch {
	case ctx.Err() != nil:
		return platform.Receipt{}, retry(context.Cause(ctx))
	case s == nil:
		return platform.Receipt{}, retry(fmt.Errorf("not connected to %s", a.options.Server))
	case len(m.Text) > maxText:
		return platform.Receipt{}, unsayable(fmt.Errorf("the text has %d bytes, over %d", len(m.Text), maxText))
	case !word(m.Chat) || strings.ContainsRune(m.Chat, ','):
		return platform.Receipt{}, never(fmt.Errorf("%q is no nick and no channel", m.Chat))
	}
	d := &delivery{ctx: ctx, chat: m.Chat, text: m.Text, done: make(chan struct{})}
	select {
	case s.sends <- d:
	case <-s.ended:
		return platform.Receipt{}, retry(errors.New("the connection was lost before"))
	case <-ctx.Done():
		return platform.Receipt{}, retry(context.Cause(ctx))
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		select {
		case <-d.done: // the loop knows whether a line went out
		case <-time.After(verdict):
			return platform.Receipt{}, unknown(context.Cause(ctx))
		}
	}
	return d.receipt, d.err
}

// start makes d the current delivery, unless it can be judged at once.
func (s *session) start(d *delivery) {
	s.current = d
	room := s.room(d.chat)
	if c := s.channels[s.fold(d.chat)]; c != nil && !c.joined {
		s.finish(retry(fmt.Errorf("not in %s at present", d.chat)))
		return
	}
	if room < least {
		s.finish(never(fmt.Errorf("the name of the chat is too long: %q", d.chat)))
		return
	}
	if d.lines = split(d.text, room); len(d.lines) == 0 {
		s.finish(unsayable(errors.New("nothing is left of the text without control characters")))
	}
}

// room is how much of a line to chat is left for the text, in bytes, when it is
// relayed to others with our nick!user@host.
func (s *session) room(chat string) int {
	source := s.source
	if source == 0 {
		source = unseen
	}
	return maxLine - len(":") - len(s.nick) - source - len(" PRIVMSG ") - len(chat) - len(" :") - len("\r\n")
}

// sendLine writes the next line of d, and the fence after the last.
func (s *session) sendLine(d *delivery, now time.Time) {
	line := &sentLine{}
	m := ircmsg.MakeMessage(nil, "", "PRIVMSG", d.chat, d.lines[0])
	m.ForceTrailing()
	if s.caps["labeled-response"] {
		s.fences++
		label := strconv.FormatUint(s.fences, 36)
		s.labels[label] = line
		m.SetTag("label", label)
	}
	d.sent, d.lines = append(d.sent, line), d.lines[1:]
	s.bucket.take(now)
	s.write(m)
	if len(d.lines) == 0 {
		s.raiseFence(d)
	}
}

// raiseFence ends the writing of d. A server answers in order: its PONG says
// that it has done with all lines before. The fence is no burden to the bucket,
// since nothing is sent before it is answered.
func (s *session) raiseFence(d *delivery) {
	s.fences++
	d.lines, d.fence = nil, "hermes-"+strconv.FormatUint(s.fences, 36)
	d.confirmBy = time.Now().Add(s.options.Timing.Confirm)
	s.send("PING", d.fence)
}

// pong takes the answer to the fence. Where the server repeats our messages to
// us, those are waited for: a bouncer answers pings of its own accord.
func (s *session) pong(token string) {
	d := s.current
	if d == nil || d.fence == "" || token != d.fence {
		return
	}
	d.fence = ""
	s.conclude(d)
}

// echo is a message of ours that came back.
func (s *session) echo(m ircmsg.Message, line *sentLine) {
	d := s.current
	if d == nil || len(m.Params) < 2 || s.fold(m.Params[0]) != s.fold(d.chat) {
		return
	}
	if line == nil {
		line = s.unsettled(d)
	}
	if line == nil {
		return
	}
	line.settled = true
	if id := s.messageID(m); id != "" && d.receipt.ID == "" {
		d.receipt.ID = id
	}
	s.conclude(d)
}

// unsettled is the line that an answer without a label is about: servers answer
// in order. One with labels gives them to all answers, and one without may be
// late and about an older Send.
func (s *session) unsettled(d *delivery) *sentLine {
	i := slices.IndexFunc(d.sent, func(l *sentLine) bool { return !l.settled })
	if i < 0 || s.caps["labeled-response"] {
		return nil
	}
	return d.sent[i]
}

// refuse takes the server's no to a line, given its label or nil.
func (s *session) refuse(m ircmsg.Message, line *sentLine) {
	d := s.current
	if d == nil || len(m.Params) == 0 {
		return
	}
	text := fmt.Errorf("%s refused it: %s (%s)", s.options.Server, s.show(m.Params[len(m.Params)-1]), m.Command)
	no := never(text)
	if m.Command == "263" || m.Command == "439" || m.Command == "FAIL" {
		no = retry(text)
		no.After, no.Account = tryAgain, true
	}
	if line == nil {
		line = s.unsettled(d)
	}
	if line == nil {
		return
	}
	line.settled, line.refused = true, true
	if d.refused == nil {
		d.refused = no
	}
	if len(d.lines) > 0 {
		s.raiseFence(d) // the rest would fare no better
	}
	s.conclude(d)
}

// conclude ends d if all is known that will be.
func (s *session) conclude(d *delivery) {
	settled, refused := 0, 0
	for _, l := range d.sent {
		if l.settled {
			settled++
		}
		if l.refused {
			refused++
		}
	}
	echoed := s.caps["echo-message"] || s.caps["labeled-response"]
	switch {
	case len(d.lines) > 0 || d.confirmBy.IsZero():
		return
	case d.fence != "" && (!echoed || refused > 0):
		return // more refusals may come before the PONG
	case echoed && settled < len(d.sent):
		return
	case refused == 0:
		s.finish(nil)
	case refused == len(d.sent):
		s.finish(d.refused)
	default:
		s.finish(unknown(fmt.Errorf("a part of it was refused: %w", d.refused.Err)))
	}
}

// interrupted is the fate of d when the connection ends with cause.
func (d *delivery) interrupted(cause error) *platform.SendError {
	if len(d.sent) == 0 {
		return retry(cause)
	}
	return unknown(cause)
}

// finish answers the current Send.
func (s *session) finish(err *platform.SendError) {
	d := s.current
	s.current = nil
	clear(s.labels)
	clear(s.batches)
	if err != nil {
		d.err = err
	}
	close(d.done)
}

// labelled returns the line of ours that m is an answer to, by its label or its
// batch; last says that no more answers to it come.
func (s *session) labelled(m ircmsg.Message) (line *sentLine, last bool) {
	if ok, label := m.GetTag("label"); ok {
		line = s.labels[label]
	} else if ok, ref := m.GetTag("batch"); ok {
		return s.batches[ref], false
	}
	if m.Command != "BATCH" || len(m.Params) == 0 {
		return line, line != nil
	}
	ref := m.Params[0]
	if name, ok := strings.CutPrefix(ref, "+"); ok && line != nil {
		s.batches[name] = line
		return line, false
	}
	if name, ok := strings.CutPrefix(ref, "-"); ok {
		return s.batches[name], s.batches[name] != nil
	}
	return line, false
}
