package openai

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/openai/openai-go/v3/option"
)

var errSilent = errors.New("nothing came")

// watcher ends a request whose answer has stopped coming. A connection that was
// cut without a word shows no other way.
type watcher struct {
	ctx   context.Context
	end   context.CancelCauseFunc
	timer *time.Timer
	limit time.Duration // that the timer runs for
	idle  time.Duration
}

// watch returns the context to ask under: it ends with ctx, when nothing has
// come for first, and when nothing more has come for idle.
func watch(ctx context.Context, first, idle time.Duration) (context.Context, *watcher) {
	ctx, end := context.WithCancelCause(ctx)
	w := &watcher{ctx: ctx, end: end, limit: first, idle: idle}
	w.timer = time.AfterFunc(first, func() { end(fmt.Errorf("%w for %s", errSilent, w.limit)) })
	return ctx, w
}

func (w *watcher) stop() {
	w.timer.Stop()
	w.end(nil)
}

// silent says whether the watcher ended the request.
func (w *watcher) silent() bool { return errors.Is(context.Cause(w.ctx), errSilent) }

// response hears every byte of the body.
func (w *watcher) response(req *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	resp, err := next(req)
	if err == nil && resp.Body != nil {
		resp.Body = &heard{ReadCloser: resp.Body, heard: w.heard}
	}
	return resp, err
}

// heard puts the end off by idle.
func (w *watcher) heard() {
	if w.timer.Stop() { // else it has run out, and limit is being read
		w.limit = w.idle
		w.timer.Reset(w.idle)
	}
}

type heard struct {
	io.ReadCloser
	heard func()
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.ReadCloser.Read(p)
	if n > 0 {
		h.heard()
	}
	return n, err
}
