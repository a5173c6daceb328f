package inbound

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/turn"
)

// command is one word that begins with a slash.
type command struct {
	name string
	args string // as /help shows them
	help string
	tier access.Tier
	run  func(v *visit, ctx context.Context, arg string) (reply string, c Change, err error)
}

// commands lists them in the order of /help. /retry is a turn of its own and is
// looked at first.
func commands() []command {
	return []command{
		{"help", "", "what I understand", access.User, (*visit).help},
		{"new", "", "begin a new conversation", access.User, (*visit).fresh},
		{"stop", "", "stop what I am answering and saying, and what waits", access.User, (*visit).stop},
		{"retry", "", "answer your last message again", access.User, nil},
		{"status", "", "how I am, and what waits here", access.User, (*visit).status},
		{"usage", "", "what this conversation cost", access.User, (*visit).usage},
		{"model", "", "which model answers", access.User, (*visit).model},
		{"sessions", "", "the conversations of this chat", access.User, (*visit).sessions},
		{"resume", "NUMBER", "go on with one of them", access.User, (*visit).resume},
		{"busy", "queue|interrupt", "what a new message does while I answer", access.User, (*visit).setBusy},
	}
}

// command runs one. What is no command of ours is said, not sent to the model. A
// second slash is one that a client was to take for itself, and did not.
func (v *visit) command(ctx context.Context, text string) error {
	word, arg := strings.TrimPrefix(strings.TrimPrefix(text, "/"), "/"), ""
	if i := strings.IndexFunc(word, unicode.IsSpace); i >= 0 {
		word, arg = word[:i], strings.TrimSpace(word[i:])
	}
	word = strings.ToLower(word)
	if word == "retry" {
		return v.retry(ctx)
	}
	reply, change, err := "There is no command /"+word+". /help lists them.", Change{}, error(nil)
	for _, c := range commands() {
		if c.name == word && c.run != nil && v.tier >= c.tier {
			reply, change, err = c.run(v, ctx, arg)
		}
	}
	if err != nil {
		return err
	}
	return v.answered(ctx, reply, change)
}

// answered commits the command with its reply.
func (v *visit) answered(ctx context.Context, reply string, change Change) error {
	m := v.message(turn.Ask{})
	m.Received = time.Now()
	if err := v.desk.o.Store.Command(ctx, m, change, Parts(v.adapter, m, reply), v.desk.o.Turns.CountAnswered); err != nil {
		return fmt.Errorf("cannot store a command: %w", err)
	}
	v.desk.o.Wake(v.in.Account)
	return nil
}

func (v *visit) help(context.Context, string) (string, Change, error) {
	const intro = "Write to me and I answer. I also understand:"
	var entries []string
	for _, c := range commands() {
		entries = append(entries, strings.TrimSpace("/"+c.name+" "+c.args)+" - "+c.help)
	}
	if most := v.adapter.Limits().Line; most > 0 {
		return inFewLines(intro, entries, most), Change{}, nil
	}
	return intro + "\n" + strings.Join(entries, "\n"), Change{}, nil
}

// inFewLines puts as many entries into a line as fit into most bytes.
func inFewLines(intro string, entries []string, most int) string {
	text, used := intro, len(intro)
	for i, e := range entries {
		if i < len(entries)-1 {
			e += ";"
		}
		if used += len(" ") + len(e); used <= most {
			text += " " + e
			continue
		}
		text, used = text+"\n"+e, len(e)
	}
	return text
}

func (v *visit) fresh(context.Context, string) (string, Change, error) {
	return "A new conversation. /sessions lists the others.", Change{Session: newSession()}, nil
}

// stop ends the turns of the chat, and what was still to be said: a long answer
// takes hours on a network that bears a line a second.
func (v *visit) stop(ctx context.Context, _ string) (string, Change, error) {
	n := v.desk.o.Turns.StopChat(v.key)
	dropped, err := v.desk.o.Drop(ctx, v.address())
	if err != nil {
		return "", Change{}, fmt.Errorf("cannot drop what is to be sent: %w", err)
	}
	reply := "Stopped."
	switch {
	case n == 0 && dropped == 0:
		reply = "There is nothing to stop."
	case n > 1:
		reply = fmt.Sprintf("Stopped, with %s that waited.", counted(n-1, "message"))
	}
	if dropped > 0 {
		reply += " The rest of what I was saying is dropped."
	}
	return reply, Change{}, nil
}

// retry asks the last question again, in a turn of its own.
func (v *visit) retry(ctx context.Context) error {
	last, from, err := v.desk.o.Store.Last(ctx, v.key, v.chat.Session)
	switch {
	case errors.Is(err, turn.ErrUnknown):
		return v.answered(ctx, "There is nothing to answer again.", Change{})
	case err != nil:
		return fmt.Errorf("cannot find the last message: %w", err)
	case !last.State.Ended():
		return v.answered(ctx, "I am still at it; /stop ends that.", Change{})
	}
	var said []chat.Message
	for _, m := range last.Ask.Messages {
		if m.Role == chat.User {
			said = append(said, m)
		}
	}
	failed := "" // one that was answered needs nobody to see to it
	if last.State == turn.Failed {
		failed = last.ID
	}
	return v.turn(ctx, turn.Ask{Messages: said, TakeBack: from}, failed)
}

func (v *visit) status(ctx context.Context, _ string) (string, Change, error) {
	last, err := v.lastQuestion(ctx)
	if err != nil {
		return "", Change{}, err
	}
	waiting, running := v.desk.o.Turns.Waiting(v.key)
	here := "nothing waits here"
	switch {
	case running && waiting > 0:
		here = fmt.Sprintf("answering here, %d more wait", waiting)
	case running:
		here = "answering here"
	case waiting > 0:
		here = fmt.Sprintf("%d wait here", waiting)
	}
	all := ""
	if v.tier >= access.Admin { // how busy others are is not everybody's to know
		t := v.desk.o.Turns.Tally()
		all = fmt.Sprintf(" In all chats: %d running, %d waiting, %d answered, %d failed.", t.Running, t.Queued, t.Answered, t.Failed)
	}
	return fmt.Sprintf("%s; %s.%s Conversation: %s%s. You are: %s (%s:%s).",
		v.desk.o.Status(), here, all, v.chat.Session, last, v.tier, v.adapter.Platform(), v.in.Sender.ID), Change{}, nil
}

// lastQuestion says what became of the last message of the conversation that was
// no command, with the id that hermes trace takes.
func (v *visit) lastQuestion(ctx context.Context) (string, error) {
	m, _, err := v.desk.o.Store.Last(ctx, v.key, v.chat.Session)
	switch {
	case errors.Is(err, turn.ErrUnknown):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("cannot find the last message: %w", err)
	}
	state := string(m.State)
	if m.Reason != "" {
		state += ": " + m.Reason
	}
	return fmt.Sprintf(", its last message %s (%s)", m.ID, state), nil
}

func (v *visit) usage(ctx context.Context, _ string) (string, Change, error) {
	u, err := v.desk.o.Store.Usage(ctx, v.chat.Session)
	if err != nil {
		return "", Change{}, err
	}
	return fmt.Sprintf("This conversation: %s answered, %s read, %d written.", counted(u.Messages, "message"), counted(u.TokensIn, "token"), u.TokensOut), Change{}, nil
}

// counted is a number of things.
func counted[N int | int64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func (v *visit) model(context.Context, string) (string, Change, error) {
	return "I answer with " + v.desk.o.Model + ".", Change{}, nil
}

// maxSessions is how many /sessions lists.
const maxSessions = 10

func (v *visit) sessions(ctx context.Context, _ string) (string, Change, error) {
	list, err := v.desk.o.Store.Sessions(ctx, v.key, maxSessions)
	if err != nil {
		return "", Change{}, err
	}
	if len(list) == 0 {
		return "There is no conversation yet.", Change{}, nil
	}
	lines := []string{"Conversations, the last used first; /resume NUMBER goes on with one:"}
	for i, s := range list {
		mark := ""
		if s.ID == v.chat.Session {
			mark = " (this one)"
		}
		lines = append(lines, fmt.Sprintf("%d. %s, %s%s: %s", i+1, s.Last.Format("2006-01-02 15:04"), counted(s.Messages, "message"), mark, s.Title))
	}
	return strings.Join(lines, "\n"), Change{}, nil
}

func (v *visit) resume(ctx context.Context, arg string) (string, Change, error) {
	list, err := v.desk.o.Store.Sessions(ctx, v.key, maxSessions)
	if err != nil {
		return "", Change{}, err
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 || n > len(list) {
		return fmt.Sprintf("Say which: /resume NUMBER, from 1 to %d; /sessions lists them.", len(list)), Change{}, nil
	}
	return "Going on with: " + list[n-1].Title, Change{Session: list[n-1].ID}, nil
}

func (v *visit) setBusy(_ context.Context, arg string) (string, Change, error) {
	switch arg {
	case Queue:
		return "New messages wait until I have answered.", Change{Busy: Queue}, nil
	case Interrupt:
		return "A new message interrupts what I am answering.", Change{Busy: Interrupt}, nil
	default:
		return "Now: " + v.busy() + ". Say /busy queue or /busy interrupt.", Change{}, nil
	}
}
