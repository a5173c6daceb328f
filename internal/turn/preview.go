package turn

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/outbox"
)

// Preview shows an answer while it grows, in one message on its platform:
// *outbox.Preview. It has one user at a time.
type Preview interface {
	// Show shows text, or drops it. It blocks for one call of the platform, which
	// the end of ctx does not cut.
	Show(ctx context.Context, text string)
	// Receipt is the platform's id of the message that shows the answer; empty: none
	// does yet.
	Receipt() string
}

// preview shows the answer to m while it grows. Call the returned function at the
// end: it waits for the last call of the platform and returns the platform's id of
// the message that shows the answer. Where nobody can, it starts nothing.
func (e *Engine) preview(m Message, l *Live) (end func() string) {
	var p Preview
	if m.Ask.To.Account != "" {
		p = e.o.Preview(m)
	}
	if p == nil {
		return func() string { return m.Preview }
	}
	ctx, cancel := context.WithCancel(e.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.show(ctx, p, m, l)
	}()
	return func() string {
		cancel()
		<-done
		return p.Receipt()
	}
}

// show looks at the answer now and then until ctx ends.
func (e *Engine) show(ctx context.Context, p Preview, m Message, l *Live) {
	timer := time.NewTimer(e.o.PreviewAfter)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		p.Show(ctx, l.Since(0).Delta)
		if posted := p.Receipt(); posted != m.Preview {
			m.Preview = posted
			// What was posted must be known, also when the turn ends meanwhile.
			certain := context.WithoutCancel(ctx)
			_ = e.persist(e.ctx, "keep the id of a preview", m.ID, func(context.Context) error {
				return e.o.Journal.Previewed(certain, m.Seq, posted)
			}) // else the process ends
		}
		timer.Reset(e.o.PreviewEvery)
	}
}

// parts cuts what is said; the first part takes the place of the preview.
func (e *Engine) parts(m Message, text string) []outbox.Part {
	parts := e.o.Parts(m, text)
	if len(parts) > 0 {
		parts[0].Edits = m.Preview
	}
	return parts
}

// closing ends a preview, whose answer was cut off for why, in what was said so
// far. The mark has the room that a part leaves for outbox.RepeatMark, which an
// edit never bears.
func (e *Engine) closing(m Message, said string, why error) []outbox.Part {
	var f *failure
	if !errors.As(why, &f) {
		f = stopped
	}
	parts := e.parts(m, said)
	if strings.TrimSpace(said) == "" || len(parts) == 0 { // an earlier process said it
		return e.parts(m, f.mark)
	}
	parts[0].Parts = 1
	parts[0].Text += "\n" + f.mark
	return parts[:1]
}
