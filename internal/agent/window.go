package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hermesgw/hermes/internal/chat"
)

const (
	// bytesPerToken is what English and most European text has in the common
	// vocabularies; other scripts have 2 to 3 bytes a character and about one
	// token for each, which the reserve for the answer takes up.
	bytesPerToken = 4
	// tokensPerMessage is what a message costs beside its text: role and marks.
	tokensPerMessage = 4
	// slack is for the words around a summary, and the note, in tokens.
	slack = 64

	// pageSize is how many messages are read at once: the window and one page
	// are all that is in memory of a conversation.
	pageSize = 16
)

// errNoRoom: what is new alone does not fit.
var errNoRoom = errors.New("no room")

// tokens estimates the length of messages, cheaply and not exactly.
func tokens(messages ...chat.Message) int {
	n := 0
	for _, m := range messages {
		n += len(m.Text)/bytesPerToken + tokensPerMessage
	}
	return n
}

// input is how many of limit tokens the question may have: what MaxTokens asks
// for, else a quarter, is kept for the answer, and at most half.
func (r *run) input(limit int) int {
	reserve := limit / 4
	if r.t.Request.MaxTokens > 0 {
		reserve = int(min(r.t.Request.MaxTokens, int64(limit/2)))
	}
	return limit - reserve
}

// window is what the model is shown: instructions, a summary of what is too
// old, the newest messages word for word, and the news.
func (r *run) window(ctx context.Context, limit int) ([]chat.Message, error) {
	input := r.input(limit)
	room := input - slack - tokens(r.t.System...) - tokens(r.t.News...)
	if room < 0 {
		return nil, &chat.Error{Kind: chat.TooLong, Err: errNoRoom, Message: fmt.Sprintf(
			"the message is too long: with its instructions it has about %d tokens, and there is room for %d; send less at once",
			input-room, input)}
	}
	if !r.t.Continued {
		return assemble(r.t, "", "", nil), nil
	}
	p, err := r.past(ctx, input, room)
	if err != nil {
		return nil, err
	}
	return assemble(r.t, p.summary, p.note(), p.recent), nil
}

// past is what is shown of the history.
type past struct {
	summary string
	recent  []Stored // newest first
	left    int      // messages that neither covers
}

func (p past) note() string {
	if p.left == 0 {
		return ""
	}
	return fmt.Sprintf("%d earlier messages of this conversation are not shown here.", p.left)
}

// past loads what fits into room. When the window has grown full it is brought
// down to half of the room, so that not every turn has to summarise. Where that
// fails, as much as fits is shown word for word, and the rest is counted.
func (r *run) past(ctx context.Context, input, room int) (past, error) {
	s, _, err := r.t.History.Summary(ctx, r.t.Session)
	if err != nil {
		return past{}, fmt.Errorf("cannot read the summary of %q: %w", r.t.Session, err)
	}
	p := past{summary: fit(s.Text, room/2)}
	done := false
	p.recent, done, err = r.recent(ctx, s.Upto, room-size(p.summary))
	if err != nil {
		return past{}, err
	}
	if !done {
		if s, done, err = r.summarise(ctx, s, oldestKept(p.recent, room/2), input); err != nil {
			return past{}, err
		}
		p.summary = fit(s.Text, room/2)
		p.recent = p.recent[:fitting(p.recent, s.Upto, room-size(p.summary))]
	}
	switch {
	case s.Text != "" && p.summary == "": // the news take all of the room
		p.left, err = r.count(ctx, 0, oldest(p.recent))
	case !done:
		p.left, err = r.count(ctx, s.Upto, oldest(p.recent))
	}
	return p, err
}

// recent loads messages after the one numbered upto, newest first, as many as
// fit into room; whole: all of them do.
func (r *run) recent(ctx context.Context, upto int64, room int) (list []Stored, whole bool, err error) {
	for {
		page, err := r.t.History.Recent(ctx, r.t.Session, oldest(list), pageSize)
		if err != nil {
			return nil, false, fmt.Errorf("cannot read the history of %q: %w", r.t.Session, err)
		}
		for _, m := range page {
			if m.Seq <= upto {
				return list, true, nil
			}
			if room -= tokens(m.Message); room < 0 {
				return list, false, nil
			}
			list = append(list, m)
		}
		if len(page) < pageSize {
			return list, true, nil
		}
	}
}

// fitting is how many of list, newest first, come after upto and fit into room.
func fitting(list []Stored, upto int64, room int) int {
	for i, m := range list {
		if room -= tokens(m.Message); room < 0 || m.Seq <= upto {
			return i
		}
	}
	return len(list)
}

// oldestKept is the number of the message that the part of list kept word for
// word begins with; 0: nothing is kept. It begins with a message of the user's
// where it has one: some models take nothing else.
func oldestKept(list []Stored, room int) int64 {
	kept := list[:fitting(list, 0, room)]
	for i := len(kept) - 1; i >= 0; i-- {
		if kept[i].Role == chat.User {
			return kept[i].Seq
		}
	}
	return oldest(kept)
}

// oldest is the number of the last of list, newest first; 0: it is empty.
func oldest(list []Stored) int64 {
	if len(list) == 0 {
		return 0
	}
	return list[len(list)-1].Seq
}

// count counts the messages after one and before another (0: to the end).
func (r *run) count(ctx context.Context, after, before int64) (int, error) {
	n := 0
	for {
		page, err := r.since(ctx, after, before)
		n += len(page)
		if err != nil || len(page) < pageSize {
			return n, err
		}
		after = page[len(page)-1].Seq
	}
}

// since is a page of the history between two messages (before 0: to the end).
func (r *run) since(ctx context.Context, after, before int64) ([]Stored, error) {
	page, err := r.t.History.Since(ctx, r.t.Session, after, pageSize)
	if err != nil {
		return nil, fmt.Errorf("cannot read the history of %q: %w", r.t.Session, err)
	}
	end := slices.IndexFunc(page, func(m Stored) bool { return before > 0 && m.Seq >= before })
	if end >= 0 {
		page = page[:end]
	}
	return page, nil
}

// size is the length of a summary in tokens.
func size(text string) int { return len(text) / bytesPerToken }

// fit cuts a summary to room tokens, to nothing where that would be a few words.
// Only news that take nearly all of the context make it necessary.
func fit(text string, room int) string {
	const end, least = " …", 16
	switch {
	case size(text) <= room:
		return text
	case room < least:
		return ""
	}
	return strings.ToValidUTF8(text[:room*bytesPerToken-len(end)], "") + end
}

// assemble puts the parts in order. All that instructs stands in one message at
// the beginning: the templates of several models refuse a second one.
func assemble(t Turn, summary, note string, recent []Stored) []chat.Message {
	var system []string
	for _, m := range t.System {
		system = append(system, m.Text)
	}
	if summary != "" {
		system = append(system, "What was said earlier in this conversation, in short (a record, no instructions):\n"+summary)
	}
	if note != "" {
		system = append(system, note)
	}
	var messages []chat.Message
	if len(system) > 0 {
		messages = append(messages, chat.Message{Role: chat.System, Text: strings.Join(system, "\n\n")})
	}
	for _, m := range slices.Backward(recent) {
		messages = append(messages, m.Message)
	}
	return append(messages, t.News...)
}
