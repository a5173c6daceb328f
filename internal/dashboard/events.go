package dashboard

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	// pingEvery keeps proxies from closing an idle stream (their usual limit
	// is 30 to 60 s) and lets the page notice a dead connection.
	pingEvery = 15 * time.Second
	// retryAfter is how long a browser waits before it connects again.
	retryAfter = 2 * time.Second
	// writeTimeout ends a stream whose reader does not read.
	writeTimeout = 10 * time.Second
)

// services answers once, in the shape of `hermes gateway status --all -o json`.
func (d *Dashboard) services(w http.ResponseWriter, r *http.Request) {
	report, err := list(r.Context(), d.options.Lister)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "services_unknown", err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(report)
}

// events streams server-sent events: `services` with a whole report whenever
// something changed, `trouble` with a message when the services cannot be
// listed, `ping` with the server's time in between.
func (d *Dashboard) events(w http.ResponseWriter, r *http.Request) {
	leave, ok := d.watcher.join()
	if !ok {
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, "too_many_streams", "too many open dashboards; close some")
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	s := &stream{w: w, control: http.NewResponseController(w)}
	if s.hello() == nil {
		_ = d.follow(r, s) // the reader went away: nobody is left to tell
	}
}

// follow sends until the reader, its session or the server goes.
func (d *Dashboard) follow(r *http.Request, s *stream) error {
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	for sent := uint64(0); ; {
		now, changed := d.watcher.current()
		if now.version != sent && now.version != 0 {
			if err := s.send(now.event, now.data); err != nil {
				return err
			}
			sent = now.version
		}
		select {
		case <-changed:
		case <-ping.C:
			if !d.sessions.keep(sessionOf(r)) {
				return nil
			}
			if err := s.ping(); err != nil {
				return err
			}
		case <-ended(r):
			return nil
		case <-r.Context().Done():
			return nil
		case <-d.closing:
			return nil
		}
	}
}

// ended closes when the session of r does; without a login it never does.
func ended(r *http.Request) <-chan struct{} {
	if s := sessionOf(r); s != nil {
		return s.ended
	}
	return nil
}

// stream writes server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (s *stream) hello() error {
	if _, err := fmt.Fprintf(s.w, "retry: %d\n\n", retryAfter.Milliseconds()); err != nil {
		return err
	}
	return s.ping()
}

// ping carries the server's time, so that the page's ages are right on a
// machine whose clock is not.
func (s *stream) ping() error {
	data, err := json.Marshal(map[string]time.Time{"now": time.Now().UTC()})
	if err != nil {
		return err
	}
	return s.send("ping", data)
}

// send writes one event; data is a single line.
func (s *stream) send(event string, data []byte) error {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every writer can; then there is none
	if _, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, data); err != nil {
		return err
	}
	return s.control.Flush()
}
