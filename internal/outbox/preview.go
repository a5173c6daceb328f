package outbox

import (
	"context"
	"time"

	"github.com/hermesgw/hermes/internal/platform"
)

const (
	// PreviewMark ends a preview: there is more to come.
	PreviewMark = "\n…"
	// previewTimeout bounds one call for a preview. The answer waits for it, since
	// an older text that arrives last would stay; so does the end of the process.
	previewTimeout = 5 * time.Second
)

// Preview shows an answer that is still being given, in one message. The answer
// then takes its place: Part.Edits. Previews are posted and edited where that is
// in nobody's way, and dropped elsewhere. A Preview has one user at a time.
type Preview struct {
	box     *Outbox
	message string
	to      Address
	receipt string
	shown   string
	over    bool // it can be shown no more
}

// Preview begins the preview of the answer to a message, or goes on with the one
// that the platform calls receipt. Nil: the platform cannot edit.
func (b *Outbox) Preview(message string, to Address, receipt string) *Preview {
	if b.editor == nil {
		return nil
	}
	return &Preview{box: b, message: message, to: to, receipt: receipt}
}

// Receipt is the platform's id of the message that shows the answer; empty: none
// does yet.
func (p *Preview) Receipt() string { return p.receipt }

// Show shows the beginning of text, as much as one message holds, or drops it. It
// does not wait for a place; a call of the platform takes at most previewTimeout,
// and the end of ctx does not cut it: what was posted should be known.
func (p *Preview) Show(ctx context.Context, text string) {
	b := p.box
	parts := Cut(text, b.limits.Text-len(PreviewMark), b.limits.Lines, b.limits.Fences)
	if p.over || len(parts) == 0 || parts[0] == p.shown {
		return
	}
	sent := b.enter(p.to) && p.call(ctx, parts[0])
	if b.o.Observe != nil {
		b.o.Observe.Previewed(p.to.Account, sent)
	}
}

// enter takes a place in both gates, if nobody else wants it.
func (b *Outbox) enter(to Address) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queue(queueOf(to.Chat, to.Thread))
	return !q.busy && q.gate.spare() && b.gate.spare() && q.gate.limit.Allow() && b.gate.limit.Allow()
}

func (p *Preview) call(ctx context.Context, text string) bool {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), previewTimeout)
	defer cancel()
	b := p.box
	receipt, err := b.call(limited, p.receipt, platform.Outbound{
		// Always the same: after a crash in between, a network that drops repeats
		// tells which message it was.
		Delivery: "pre_" + p.message, Chat: p.to.Chat, Thread: p.to.Thread, ReplyTo: p.to.ReplyTo, Text: text + PreviewMark,
	})
	if err == nil {
		p.receipt, p.shown = receipt.ID, text
		p.over = receipt.ID == "" // nothing could be edited
		return true
	}
	b.mu.Lock()
	chat := b.queue(queueOf(p.to.Chat, p.to.Thread)).gate
	b.mu.Unlock()
	b.heed(err, chat)
	switch platform.FateOf(err) {
	case platform.Never:
		p.over = true
	case platform.Unknown: // a second post may be a second message
		p.over = p.receipt == "" && !b.limits.Dedupes
	case platform.Retry:
	}
	b.log.Debug("preview dropped", "message", p.message, "account", p.to.Account, "error", err)
	return false
}
