package notify_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hermesgw/hermes/internal/notify"
	"github.com/hermesgw/hermes/internal/secret"
	"github.com/hermesgw/hermes/internal/supervise"
)

// What a real receiver gets: the fields that were promised, signed.
func TestSend(t *testing.T) {
	type got struct {
		body   []byte
		header http.Header
		method string
	}
	received := make(chan got, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		received <- got{body, r.Header, r.Method}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	profile, from := "work", supervise.Ready
	event := notify.Event{
		Service: "gateway-work", Profile: &profile, From: &from, To: supervise.Parked, Reason: "no key",
		At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Host: "box",
	}
	hook := notify.Webhook{URL: secret.New(srv.URL + "/sesame"), Secret: secret.New("key")}
	if err := hook.Send(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	g := <-received
	want := `{"service":"gateway-work","profile":"work","from":"ready","to":"parked","reason":"no key","at":"2026-01-02T03:04:05Z","host":"box"}`
	if string(g.body) != want || g.method != http.MethodPost || g.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s %v\n%s, want\n%s", g.method, g.header, g.body, want)
	}
	mac := hmac.New(sha256.New, []byte("key"))
	mac.Write(g.body)
	if got, want := g.header.Get("X-Hermes-Signature"), "sha256="+hex.EncodeToString(mac.Sum(nil)); got != want {
		t.Errorf("signature %q, want %q", got, want)
	}
	hook.Secret = secret.String{}
	if err := hook.Send(t.Context(), event); err != nil {
		t.Fatal(err)
	}
	if g := <-received; g.header.Get("X-Hermes-Signature") != "" {
		t.Errorf("signed with nothing: %v", g.header)
	}
}

// No error repeats the URL, which holds the token, and a redirect does not take
// a message elsewhere.
func TestErrorsKeepTheURL(t *testing.T) {
	asked := 0
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		http.Redirect(w, r, "/elsewhere?sesame", http.StatusTemporaryRedirect)
	}))
	defer refuses.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	tls.Config.ErrorLog = nil
	defer tls.Close()
	for url, want := range map[string]string{
		refuses.URL + "/sesame":                        "answered 307",
		"http://" + closed.Addr().String() + "/sesame": "connection refused",
		"http://sesame.invalid/sesame":                 "cannot be resolved",
		tls.URL + "/sesame":                            "certificate",
		"http://127.0.0.1:bad/sesame":                  "cannot be used",
		"gopher://127.0.0.1/sesame":                    "unsupported protocol",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		hook := notify.Webhook{URL: secret.New(url), Transport: once{cancel}}
		err := hook.Send(ctx, notify.Event{})
		cancel()
		if err == nil || strings.Contains(err.Error(), "sesame") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	if asked != 1 {
		t.Errorf("a redirect was followed or tried again: %d requests", asked)
	}
}

// once sends for real, and then has nobody wait for another attempt.
type once struct{ cancel func() }

func (o once) RoundTrip(r *http.Request) (*http.Response, error) {
	defer o.cancel()
	return http.DefaultTransport.RoundTrip(r)
}

// script answers attempt after attempt, by a clock of its own.
type script struct {
	mu      sync.Mutex
	answers []int // status; 0: no connection; -1: never answers
	bodies  []string
	at      []time.Time
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.bodies, s.at = append(s.bodies, string(body)), append(s.at, time.Now())
	answer := http.StatusOK
	if len(s.answers) > 0 {
		answer, s.answers = s.answers[0], s.answers[1:]
	}
	s.mu.Unlock()
	switch answer {
	case 0:
		return nil, errors.New("no connection")
	case -1:
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: answer, Body: http.NoBody, Request: r}, nil
}

func TestAttempts(t *testing.T) {
	for name, c := range map[string]struct {
		answers []int
		tries   int
		took    time.Duration
		err     string
	}{
		"at once":         {nil, 1, 0, ""},
		"the third time":  {[]int{503, 0}, 3, 6 * time.Second, ""},
		"too many":        {[]int{429, 200}, 2, time.Second, ""},
		"never":           {[]int{500, 500, 500, 500, 500}, 4, 31 * time.Second, "answered 500"},
		"refused":         {[]int{404, 200}, 1, 0, "answered 404"},
		"it does not say": {[]int{-1, 200}, 2, 11 * time.Second, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{answers: c.answers}
				began := time.Now()
				err := notify.Webhook{URL: secret.New("https://hooks.example/sesame"), Transport: s}.Send(t.Context(), notify.Event{})
				if took := time.Since(began); len(s.at) != c.tries || took != c.took {
					t.Errorf("%d attempts in %s, want %d in %s", len(s.at), took, c.tries, c.took)
				}
				if (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "hooks.example")) {
					t.Errorf("error %v, want %q", err, c.err)
				}
			})
		})
	}
}

// The whole: settings that come and go, a receiver that is down, a restart.
func TestNotifier(t *testing.T) {
	file := filepath.Join(t.TempDir(), notify.FileName)
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		state, url, broken := supervise.Ready, "", error(nil)
		set := func(f func()) { mu.Lock(); defer mu.Unlock(); f() }
		s := &script{}
		var log bytes.Buffer
		start := func() (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			n := notify.Notifier{
				List: func(context.Context) ([]supervise.Service, error) {
					mu.Lock()
					defer mu.Unlock()
					return []supervise.Service{{Name: "gateway-default", State: state, Reason: "why"}}, nil
				},
				Webhook: func() (notify.Webhook, error) {
					mu.Lock()
					defer mu.Unlock()
					return notify.Webhook{URL: secret.New(url), Transport: s}, broken
				},
				Stopping: func() bool { return false },
				File:     file, Host: "box", Log: slog.New(slog.NewTextHandler(&log, nil)),
			}
			var wg sync.WaitGroup
			wg.Go(func() { _ = n.Run(ctx) })
			return func() { cancel(); wg.Wait() }
		}
		states := func() (all []string) {
			for _, body := range s.bodies {
				var e notify.Event
				if err := json.Unmarshal([]byte(body), &e); err != nil {
					t.Error(err)
				}
				all = append(all, string(e.To))
			}
			return all
		}
		want := func(what string, to ...string) {
			t.Helper()
			synctest.Wait()
			if got := states(); !slices.Equal(got, to) {
				t.Errorf("%s: told %v, want %v\n%s", what, got, to, log.String())
			}
			s.bodies = nil
		}
		stop := start()
		set(func() { state = supervise.Parked })
		time.Sleep(time.Minute)
		want("without a webhook")
		set(func() { url = "https://hooks.example/sesame" })
		time.Sleep(20 * time.Second)
		want("a webhook was set", "parked")
		set(func() { broken = errors.New("half an edit") })
		set(func() { state = supervise.Ready })
		time.Sleep(2 * time.Minute)
		want("the settings are broken", "ready")
		set(func() { broken = nil })
		s.answers = slices.Repeat([]int{0}, 4)
		set(func() { state = supervise.Parked })
		time.Sleep(10 * time.Minute)
		want("nobody listens", "parked", "parked", "parked", "parked", "parked")
		stop()
		stop = start()
		time.Sleep(30 * time.Minute)
		want("another container")
		stop()
		if text := log.String(); strings.Contains(text, "sesame") || strings.Count(text, "half an edit") != 1 || strings.Count(text, "cannot tell the operator") != 1 {
			t.Errorf("logged\n%s", text)
		}
	})
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", fi, err)
	}
}
