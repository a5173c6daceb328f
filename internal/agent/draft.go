package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hermesgw/hermes/internal/chat"
)

var (
	errFull  = errors.New("the answer is longer than it may be")
	errEmpty = errors.New("empty answer")
)

// draft is an answer as it grows, over several tries.
type draft struct {
	out  Out    // nil: nobody watches
	max  int    // bytes, without note
	note string // ends a text that had to be cut

	text strings.Builder
	full bool
	err  error // of out: nobody wants the answer any more
}

// fill asks m once. Silence is no answer, and an answer that does not end is
// cut where max is reached.
func (d *draft) fill(ctx context.Context, m chat.Model, req chat.Request) (chat.Reply, error) {
	d.restart()
	reply, err := m.Complete(ctx, req, d.add)
	switch {
	case d.err != nil:
		return chat.Reply{}, d.err
	case d.full:
		return chat.Reply{Text: d.text.String(), Finish: chat.FinishLength}, nil
	case err != nil:
		return chat.Reply{}, err
	case strings.TrimSpace(reply.Text) == "":
		return chat.Reply{}, empty(m, reply.Finish)
	}
	return reply, nil
}

// restart takes back what an earlier try has said.
func (d *draft) restart() {
	if d.text.Len() > 0 && d.out != nil {
		d.out.Restart()
	}
	d.text.Reset()
	d.full = false
}

func (d *draft) add(piece string) error {
	if room := d.max - d.text.Len(); len(piece) > room {
		piece = strings.ToValidUTF8(piece[:room], "") + d.note
		d.full = true
	}
	d.text.WriteString(piece)
	if d.out != nil {
		d.err = d.out.Delta(piece)
	}
	if d.full && d.err == nil {
		return errFull
	}
	return d.err
}

func empty(m chat.Model, f chat.Finish) error {
	why := ""
	switch f {
	case chat.FinishFiltered:
		why = ": its provider withheld the text"
	case chat.FinishLength:
		why = ": the limit of tokens was reached before the first word"
	}
	return &chat.Error{Kind: chat.Failed, Message: fmt.Sprintf("the model %q gave an empty answer%s", m.Name(), why), Err: errEmpty}
}
