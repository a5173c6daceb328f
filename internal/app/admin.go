package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hermesgw/hermes/internal/admin"
	"github.com/hermesgw/hermes/internal/audit"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/lease"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/turn"
)

// Operator is the operator's door to one profile: through its running gateway,
// or to its database under its lease.
type Operator struct {
	client *http.Client
	close  []func()
}

// Operator opens the door to p. Where a gateway elsewhere has the profile, the
// error names it. Close it.
func (s *Supervision) Operator(ctx context.Context, p profile.Profile) (*Operator, error) {
	asked, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	status, err := s.dial(p).Status(asked)
	switch {
	case err == nil && status.Home == p.Home && status.Holder == nil && status.State != supervise.Starting:
		return &Operator{client: s.dial(p).HTTPClient()}, nil
	case err == nil && status.Holder != nil:
		return nil, fmt.Errorf("profile %q is held by a gateway on %s; run the command there", p.Name, status.Holder.Host)
	case err != nil && !errors.Is(err, control.ErrNoGateway):
		return nil, err
	}
	return s.openDatabase(ctx, p)
}

// hold takes the lease of p, for the time of one command.
func (s *Supervision) hold(p profile.Profile) (*lease.Lease, error) {
	host, _ := os.Hostname() // for people; "" names nobody
	l, err := lease.TryAcquire(p.Home, lease.Holder{Host: host, PID: os.Getpid(), Since: time.Now().UTC(), RunDir: string(s.Found.Dir)})
	var held *lease.HeldError
	if errors.As(err, &held) {
		return nil, fmt.Errorf("profile %q is held by %s since %s; run the command there, or stop its gateway first with: hermes %sgateway stop",
			p.Name, held.Holder.Host, held.Holder.Since.Format(time.RFC3339), flagOf(p))
	}
	return l, err
}

// openDatabase is for a profile without a gateway.
func (s *Supervision) openDatabase(ctx context.Context, p profile.Profile) (*Operator, error) {
	path := filepath.Join(p.Home, store.FileName)
	if _, err := os.Stat(path); err != nil {
		return nil, exitcode.With(exitcode.Down, fmt.Errorf("no gateway of profile %q is running, and it has no database yet", p.Name))
	}
	o := &Operator{}
	err := s.OnVolume(func() error {
		l, err := s.hold(p)
		if err != nil {
			return err
		}
		o.close = append(o.close, l.Release)
		db, err := store.Open(ctx, path)
		if err != nil {
			return err
		}
		o.close = append(o.close, func() { _ = db.Close() })
		h, err := admin.New(admin.Options{
			Store:    db,
			Accounts: func() []string { return s.accounts(p) },
			Accept: func(ctx context.Context, m turn.Message) error {
				m.Received = time.Now()
				_, _, err := db.Accept(ctx, m, func(turn.Message) {})
				return err
			},
			Audit: func(pairs ...string) {
				audit.Append(p.Home, time.Now(), append([]string{"profile", p.Name}, pairs...)...)
			},
		})
		o.client = &http.Client{Transport: inProcess{h}}
		return err
	})
	if err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// accounts are those that the settings of p name, whether they connect or not.
func (s *Supervision) accounts(p profile.Profile) []string {
	c, err := config.Load(config.Options{Home: p.Home, Lookup: s.LookupFor(p)})
	if err != nil {
		return nil
	}
	adapters, err := newAdapters(c, nil)
	if err != nil {
		return nil
	}
	var list []string
	for _, a := range adapters {
		list = append(list, a.Account())
	}
	return list
}

// Close gives back what was opened; it is idempotent.
func (o *Operator) Close() {
	for len(o.close) > 0 {
		last := len(o.close) - 1
		o.close[last]()
		o.close = o.close[:last]
	}
}

// Call asks for path below /admin/ and decodes the answer into result, if that
// is not nil. What is not there is exit code 3.
func (o *Operator) Call(ctx context.Context, method, path string, body, result any) error {
	var send io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("cannot ask the gateway: %w", err)
		}
		send = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, control.BaseURL+"/admin/"+path, send)
	if err != nil {
		return fmt.Errorf("cannot ask the gateway: %w", err)
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return fmt.Errorf("the gateway did not answer: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("the answer of the gateway was cut off: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return refusedBy(resp.StatusCode, data)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(data, result); err != nil {
		return fmt.Errorf("cannot read the answer of the gateway: %w", err)
	}
	return nil
}

func refusedBy(status int, data []byte) error {
	var e struct{ Error struct{ Message string } }
	if json.Unmarshal(data, &e) != nil || e.Error.Message == "" {
		e.Error.Message = "the gateway answered " + http.StatusText(status)
	}
	err := errors.New(e.Error.Message)
	switch status {
	case http.StatusNotFound:
		return exitcode.With(exitcode.NoSuch, err)
	case http.StatusBadRequest:
		return exitcode.With(exitcode.Usage, err)
	}
	return err
}

// inProcess calls a handler without a network.
type inProcess struct{ h http.Handler }

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := &answerBuffer{header: http.Header{}, status: http.StatusOK}
	t.h.ServeHTTP(w, r)
	return &http.Response{
		StatusCode: w.status, Status: http.StatusText(w.status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(&w.body), Request: r,
	}, nil
}

type answerBuffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *answerBuffer) Header() http.Header         { return w.header }
func (w *answerBuffer) WriteHeader(status int)      { w.status = status }
func (w *answerBuffer) Write(b []byte) (int, error) { return w.body.Write(b) }

// Restore puts a backup in place of the database of p, which no gateway may hold.
// It returns where the old one is kept.
func (s *Supervision) Restore(ctx context.Context, p profile.Profile, from string) (kept string, err error) {
	err = s.OnVolume(func() error {
		l, err := s.hold(p)
		if err != nil {
			return err
		}
		defer l.Release()
		kept, err = store.Restore(ctx, from, filepath.Join(p.Home, store.FileName), time.Now())
		if err == nil {
			audit.Append(p.Home, time.Now(), "profile", p.Name, "backup", "restored", "from", from, "kept", kept)
		}
		return err
	})
	return kept, err
}

// flagOf is -p NAME for a profile that needs it.
func flagOf(p profile.Profile) string {
	if p.Name == profile.Default {
		return ""
	}
	return "-p " + p.Name + " "
}
