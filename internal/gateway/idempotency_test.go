package gateway_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/model/offline"
	"github.com/hermesgw/hermes/internal/store"
)

func TestSameKeyIsTheSameTurnAlsoAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), store.FileName)
	db := openStore(t, path)
	r := start(t, func(o *gateway.Options) { o.Store = db })
	first, body := r.post(t, hello, "Idempotency-Key", "k1")
	session := first.Header.Get(gateway.SessionHeader)
	check := func(when string) {
		t.Helper()
		resp, again := r.post(t, hello, "Idempotency-Key", "k1")
		if again != body || resp.Header.Get(gateway.SessionHeader) != session {
			t.Errorf("%s: %s\nfirst: %s", when, again, body)
		}
		if resp, _ := r.post(t, strings.Replace(hello, "hello", "other", 1), "Idempotency-Key", "k1"); resp.StatusCode != 409 {
			t.Errorf("%s: another request under the same key got %s", when, resp.Status)
		}
		// How the answer is sent is no other request; blanks are none either.
		if resp, _ := r.post(t, strings.Replace(hello, "{", "{ \"stream\":true, ", 1), "Idempotency-Key", "k1"); resp.StatusCode != 200 {
			t.Errorf("%s: as a stream it got %s", when, resp.Status)
		}
		stream, events := r.post(t, `{"stream":true,"messages":[{"role":"user","content":"s"}]}`, "Idempotency-Key", "k2")
		if stream.StatusCode != 200 || !strings.HasSuffix(events, "data: [DONE]\n\n") || !strings.Contains(events, "You said: ") {
			t.Errorf("%s: stream %s %s", when, stream.Status, events)
		}
	}
	check("at once")
	if got := r.metric(t, "hermes_messages_received_total"); got != 2 {
		t.Errorf("%v messages", got)
	}
	r.stop()
	db.Close()
	db = openStore(t, path)
	r = start(t, func(o *gateway.Options) { o.Store = db })
	check("after a restart")
	if got := r.metric(t, "hermes_messages_received_total"); got != 2 {
		t.Errorf("after a restart: %v messages", got)
	}
}

func TestBadKeyIsRefused(t *testing.T) {
	r := start(t)
	for _, key := range []string{strings.Repeat("x", 256), "tab\there", "ü"} {
		if resp, body := r.post(t, hello, "Idempotency-Key", key); resp.StatusCode != 400 || !strings.Contains(body, "Idempotency-Key") {
			t.Errorf("%q: %s %s", key, resp.Status, body)
		}
	}
}

// What was accepted before a stop is answered after it, to whoever asks under the
// same key.
func TestStopInTheMiddleOfATurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), store.FileName)
	db := openStore(t, path)
	r := start(t, func(o *gateway.Options) { o.Store = db }, withModel(offline.New(offline.Options{Delay: time.Hour})))
	answer := make(chan int, 1)
	go func() {
		resp, _ := r.post(t, hello, "Idempotency-Key", "k", gateway.SessionHeader, "s")
		answer <- resp.StatusCode
	}()
	until(t, "it runs", func() bool { return r.metric(t, "hermes_messages_running") == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Drain(ctx); err == nil {
		t.Error("the drain was complete")
	}
	if got := <-answer; got != 503 {
		t.Errorf("who waited got %d", got)
	}
	r.stop()
	db.Close()
	db = openStore(t, path)
	r = start(t, func(o *gateway.Options) { o.Store = db })
	if resp, body := r.post(t, hello, "Idempotency-Key", "k", gateway.SessionHeader, "s"); resp.StatusCode != 200 || !strings.Contains(body, "Turn 1 ") {
		t.Errorf("after the restart: %s %s", resp.Status, body)
	}
	if got := r.metric(t, "hermes_messages_failed_total"); got != 0 {
		t.Errorf("%v failed", got)
	}
}

// A key whose message failed says so again; it is not tried anew behind the
// client's back.
func TestFailureUnderAKeyIsKept(t *testing.T) {
	var calls atomic.Int32
	r := start(t, withModel(script(func(context.Context, chat.Request, func(string) error) (chat.Reply, error) {
		calls.Add(1)
		return chat.Reply{}, &chat.Error{Kind: chat.Invalid, Message: "no such thing", Err: errors.New("cause")}
	})))
	_, first := r.post(t, hello, "Idempotency-Key", "k")
	resp, second := r.post(t, hello, "Idempotency-Key", "k")
	if first != second || resp.StatusCode != 400 || calls.Load() != 1 {
		t.Errorf("%s %s\nthen %s, %d calls", resp.Status, first, second, calls.Load())
	}
}
