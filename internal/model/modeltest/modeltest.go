// Package modeltest is the conformance suite of chat.Model: what every model
// must do whatever stands behind it. It judges form, never the words.
//
//	modeltest.Run(t, func(t *testing.T, delay time.Duration) chat.Model { return offline.New(offline.Options{Delay: delay}) })
package modeltest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
)

// New makes a model under test whose answers begin after delay.
type New func(t *testing.T, delay time.Duration) chat.Model

// long is a delay that no test waits for.
const long = time.Hour

// Run runs the whole suite.
func Run(t *testing.T, make New) {
	cases := map[string]func(*testing.T, New){
		"answers in pieces that join to the reply": pieces,
		"refuses to answer nothing":                nothing,
		"keeps the error of emit":                  emitError,
		"does not begin when cancelled":            cancelledBefore,
		"ends when cancelled":                      cancelledWhile,
		"serves many at once":                      many,
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) { test(t, make) })
	}
}

func ask(text string) chat.Request {
	return chat.Request{Messages: []chat.Message{
		{Role: chat.System, Text: "be brief"},
		{Role: chat.User, Text: "first"},
		{Role: chat.Assistant, Text: "yes"},
		{Role: chat.User, Text: text},
	}}
}

func silent(string) error { return nil }

func pieces(t *testing.T, make New) {
	m := make(t, 0)
	if m.Name() == "" {
		t.Error("the model has no name")
	}
	var got strings.Builder
	reply, err := m.Complete(t.Context(), ask("grüße\n\"quoted\""), func(d string) error {
		if d == "" {
			t.Error("emitted nothing")
		}
		got.WriteString(d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if reply.Text == "" || got.String() != reply.Text {
		t.Errorf("pieces join to %q, the reply is %q", got.String(), reply.Text)
	}
	if reply.Finish != chat.FinishStop {
		t.Errorf("finished with %q", reply.Finish)
	}
	if reply.Usage.Input <= 0 || reply.Usage.Output <= 0 {
		t.Errorf("usage %+v", reply.Usage)
	}
}

func nothing(t *testing.T, make New) {
	_, err := make(t, 0).Complete(t.Context(), chat.Request{}, silent)
	if chat.KindOf(err) != chat.Invalid {
		t.Errorf("got kind %q: %v", chat.KindOf(err), err)
	}
}

func emitError(t *testing.T, make New) {
	full := errors.New("full")
	calls := 0
	_, err := make(t, 0).Complete(t.Context(), ask("x"), func(string) error { calls++; return full })
	if !errors.Is(err, full) || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
}

func cancelledBefore(t *testing.T, make New) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := make(t, 0).Complete(ctx, ask("x"), func(string) error { t.Error("emitted"); return nil })
	if chat.KindOf(err) != chat.Cancelled || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func cancelledWhile(t *testing.T, make New) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := make(t, long).Complete(ctx, ask("x"), silent)
	if chat.KindOf(err) != chat.Cancelled || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %s to notice", took)
	}
}

func many(t *testing.T, make New) {
	m := make(t, 0)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := m.Complete(t.Context(), ask("x"), silent); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
