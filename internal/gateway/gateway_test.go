package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/model/offline"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/supervise"
)

func TestMetricsAddUp(t *testing.T) {
	r := start(t, withModel(script(func(_ context.Context, req chat.Request, emit func(string) error) (chat.Reply, error) {
		if req.Messages[0].Text == "bad" {
			return chat.Reply{}, &chat.Error{Kind: chat.Failed, Message: "no"}
		}
		reply, err := say("yes", emit)
		reply.Usage = chat.Usage{Input: 5, Output: 7}
		return reply, err
	})))
	r.post(t, hello)
	r.post(t, hello)
	r.post(t, `{"messages":[{"role":"user","content":"bad"}]}`)
	r.post(t, hello, "Origin", "http://evil.example")
	r.post(t, `{`)
	for name, want := range map[string]float64{
		"hermes_messages_received_total": 3, "hermes_messages_answered_total": 2, "hermes_messages_failed_total": 1,
		"hermes_messages_refused_total": 1, "hermes_messages_queued": 0, "hermes_messages_running": 0,
		"hermes_model_tokens_total": 24, "hermes_turn_seconds_count": 3 * 5,
	} {
		if got := r.metric(t, name); got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	_, body := r.do(t, http.MethodGet, "/metrics", "")
	if !strings.Contains(body, `hermes_messages_received_total{profile="default"} 3`) ||
		!strings.Contains(body, `hermes_model_tokens_total{direction="output",model="script",profile="default"} 14`) {
		t.Errorf("metrics:\n%s", body)
	}
}

func TestDrainFinishesWhatRunsAndRefusesTheRest(t *testing.T) {
	begun, release := make(chan struct{}, 2), make(chan struct{})
	r := start(t, withModel(script(func(_ context.Context, _ chat.Request, emit func(string) error) (chat.Reply, error) {
		begun <- struct{}{}
		<-release
		return say("done", emit)
	})))
	answers := make(chan string, 2)
	for range 2 { // one runs, one waits behind it
		go func() {
			resp, body := r.post(t, hello, gateway.SessionHeader, "s")
			answers <- fmt.Sprint(resp.StatusCode, content(body))
		}()
	}
	until(t, "both are accepted", func() bool { return r.received(t) == 2 })
	<-begun
	drained := make(chan error, 1)
	go func() { drained <- r.Drain(t.Context()) }()
	until(t, "it says draining", func() bool {
		resp, body := r.do(t, http.MethodGet, "/readyz", "")
		return resp.StatusCode == 503 && strings.Contains(body, `"draining"`)
	})
	resp, body := r.post(t, hello)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, `"draining"`) {
		t.Errorf("a new message got %s %s", resp.Status, body)
	}
	errorShape(t, body)
	if resp, _ := r.do(t, http.MethodGet, "/livez", ""); resp.StatusCode != 200 {
		t.Errorf("/livez while draining: %s", resp.Status)
	}
	close(release)
	for range 2 {
		if got := <-answers; got != "200done" {
			t.Errorf("an accepted message got %s", got)
		}
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

func TestDrainEndsAtItsDeadline(t *testing.T) {
	r := start(t, withModel(offline.New(offline.Options{Delay: time.Hour})))
	answer := make(chan string, 1)
	go func() {
		resp, body := r.post(t, hello)
		answer <- fmt.Sprint(resp.StatusCode, body)
	}()
	until(t, "it runs", func() bool { return r.metric(t, "hermes_messages_running") == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := r.Drain(ctx); err == nil || !strings.Contains(err.Error(), "1 unfinished") {
		t.Errorf("got %v", err)
	}
	if got := <-answer; !strings.HasPrefix(got, "503") || !strings.Contains(got, "draining") {
		t.Errorf("the cut message got %s", got)
	}
}

func TestReadinessFollowsTheStore(t *testing.T) {
	f := &flaky{Store: openStore(t, filepath.Join(t.TempDir(), store.FileName))}
	r := start(t, func(o *gateway.Options) { o.Store = f })
	ready := func(status int, word string) func() bool {
		return func() bool {
			resp, body := r.do(t, http.MethodGet, "/readyz", "")
			return resp.StatusCode == status && strings.Contains(body, word)
		}
	}
	until(t, "it is ready", ready(200, `{"state":"ready","reason":""}`))
	f.set(errors.New("disk full"))
	if resp, body := r.post(t, hello); resp.StatusCode != 503 || !strings.Contains(body, "disk full") {
		t.Errorf("a message that cannot be stored got %s %s", resp.Status, body)
	}
	until(t, "readiness sees it, long before the next check", ready(503, "disk full"))
	f.set(nil)
	until(t, "it has recovered", ready(200, `"ready"`))
}

func TestFailingPlatformDegrades(t *testing.T) {
	r := start(t)
	r.Report("telegram", supervise.Degraded, "token refused")
	if state, reason, _ := r.State(); state != supervise.Degraded || !strings.Contains(reason, "token refused") {
		t.Errorf("%s %s", state, reason)
	}
	if resp, _ := r.do(t, http.MethodGet, "/readyz", ""); resp.StatusCode != 200 {
		t.Errorf("a degraded gateway serves, but /readyz says %s", resp.Status)
	}
	list := r.Platforms()
	if len(list) != 2 || list[0].Name != "http" || list[0].State != supervise.Ready || list[1].Name != "telegram" {
		t.Errorf("%+v", list)
	}
	_, _, since := r.State()
	r.Report("telegram", supervise.Starting, "connecting") // it only tries again
	if state, reason, at := r.State(); state != supervise.Degraded || !strings.Contains(reason, "token refused") || at != since {
		t.Errorf("while it tries again: %s %s, since %s instead of %s", state, reason, at, since)
	}
	r.Report("telegram", supervise.Ready, "")
	if state, _, _ := r.State(); state != supervise.Ready {
		t.Errorf("recovered, but %s", state)
	}
	r.Report("telegram", supervise.Starting, "connecting")
	if list := r.Platforms(); list[1].State != supervise.Starting {
		t.Errorf("one that was ready and starts again: %+v", list[1])
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	g, err := gateway.New(gateway.Options{Model: offline.New(offline.Options{}), Store: &flaky{}, Host: "127.0.0.1", Port: port})
	if err != nil {
		t.Fatal(err)
	}
	err = g.Listen()
	want := fmt.Sprintf("cannot listen on 127.0.0.1:%d: address already in use; ", port)
	if err == nil || !strings.HasPrefix(err.Error(), want) || exitcode.Of(err) != exitcode.Failed {
		t.Errorf("got %v, want %q…", err, want)
	}
}

// Who is told of changes hears of each before anybody can see it, and of nothing
// else: a note that is written then is never behind.
func TestChangesAreToldBeforeTheyShow(t *testing.T) {
	var mu sync.Mutex
	var told []gateway.Health
	last := func() gateway.Health {
		mu.Lock()
		defer mu.Unlock()
		return told[len(told)-1]
	}
	r := start(t, func(o *gateway.Options) {
		o.Changed = func(h gateway.Health) {
			time.Sleep(10 * time.Millisecond) // who looks meanwhile waits
			mu.Lock()
			defer mu.Unlock()
			told = append(told, h)
		}
	})
	<-r.Ready()
	agree := func(what string, want supervise.State) {
		t.Helper()
		state, reason, since := r.State()
		if h := last(); state != want || h.State != state || h.Reason != reason || !h.Since.Equal(since) || !slices.Equal(h.Platforms, r.Platforms()) {
			t.Errorf("%s: it is %s (%s) since %s, told was %+v", what, state, reason, since, h)
		}
	}
	agree("ready", supervise.Ready)
	for _, state := range []supervise.State{supervise.Degraded, supervise.Degraded, supervise.Ready} {
		r.Report("telegram", state, "")
		agree("a platform is "+string(state), state)
	}
	r.StartDraining("test")
	agree("draining", supervise.Draining)
	if mu.Lock(); len(told) != 4 {
		t.Errorf("told %d times, want 4: %+v", len(told), told)
	}
	mu.Unlock()
}
