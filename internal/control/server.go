package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

const (
	// headerTimeout bounds a peer that connects and says nothing.
	headerTimeout = 5 * time.Second
	// goodbye is what open answers get once Serve is told to end. Turns were
	// waited for before that, by the drain.
	goodbye = 400 * time.Millisecond
	// maxDrainBody is far more than two short texts need.
	maxDrainBody = 64 << 10
)

// Listener is a control socket that this process owns.
type Listener struct {
	net.Listener
	lock *flock.Flock
	path string

	mu     sync.Mutex
	noted  bool // there is a note of ours
	closed bool
}

// Listen makes the socket at path (0600, its directory 0700 when it has to be
// made) and removes one that a dead process left. It fails with ErrInUse while
// a living one has it, and with exit code 78 when the path is too long.
func Listen(path string) (*Listener, error) {
	if err := checkLength(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the directory of the control socket: %w", err)
	}
	// The lock, and not the socket, says who owns the path: removing a socket
	// because nobody answered would race with one that is about to.
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("cannot lock control socket %q: %w", path, err)
	}
	if !locked {
		return nil, ErrInUse
	}
	ln, err := bind(path)
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("cannot listen on control socket %q: %w", path, err)
	}
	l := &Listener{Listener: ln, lock: lock, path: path}
	l.removeNote() // of a dead process
	return l, nil
}

func bind(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// Accept returns the next connection of a peer that may use the socket, and
// hangs up on every other.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(conn)
		if err == nil && mayUse(uid, os.Geteuid()) {
			return conn, nil
		}
		conn.Close()
	}
}

// mayUse is the whole policy: our own user, and root.
func mayUse(peer, self int) bool { return peer == self || peer == 0 }

// Close removes the note and the socket and gives the path free; it is
// idempotent.
func (l *Listener) Close() error {
	l.mu.Lock()
	if !l.closed { // later it may be another's
		l.removeNote()
	}
	l.closed = true
	l.mu.Unlock()
	err := l.Listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	return errors.Join(err, l.lock.Close())
}

// Serve answers on ln until ctx ends, then gives open answers a moment, and
// closes ln. api is mounted below /v1/ and /admin/. It returns nil when ctx ended it.
func Serve(ctx context.Context, ln *Listener, h Handler, api http.Handler) error {
	srv := &http.Server{
		Handler:           routes(h, api),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          log.New(io.Discard, "", 0), // a peer that hangs up is not news
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return errors.Join(fmt.Errorf("cannot serve the control socket: %w", err), ln.Close())
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if srv.Shutdown(end) != nil {
		srv.Close()
	}
	<-failed
	return ln.Close()
}

func routes(h Handler, api http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+statusPath, func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, h.Status())
	})
	mux.HandleFunc("POST "+drainPath, func(w http.ResponseWriter, r *http.Request) { serveDrain(w, r, h) })
	mux.HandleFunc("GET "+stacksPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(h.Stacks())
	})
	if c, ok := h.(Checker); ok {
		mux.HandleFunc("GET "+checkPath, func(w http.ResponseWriter, r *http.Request) { serveCheck(w, r, c) })
	}
	if d, ok := h.(Deadlocker); ok {
		mux.HandleFunc("POST "+deadlockPath, func(w http.ResponseWriter, _ *http.Request) {
			if err := d.Deadlock(); err != nil {
				writeError(w, http.StatusForbidden, err.Error())
			}
		})
	}
	if api != nil {
		mux.Handle(apiPrefix, api)
		mux.Handle(adminPrefix, api)
	}
	return mux
}

func serveCheck(w http.ResponseWriter, r *http.Request, c Checker) {
	problems, err := c.CheckDatabase(r.Context())
	if err != nil {
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, checked{problems})
}

func serveDrain(w http.ResponseWriter, r *http.Request, h Handler) {
	var req DrainRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxDrainBody)).Decode(&req); err != nil {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("cannot read the drain request: %v", err))
		return
	}
	if err := h.Drain(req); err != nil {
		writeError(w, http.StatusConflict, err.Error())
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the peer is gone; nobody is left to tell
}

// apiError is the error shape of every HTTP interface of hermes.
type apiError struct {
	Error struct {
		Message string `json:"message"`
		Type    string `json:"type"`
		Code    string `json:"code"`
	} `json:"error"`
}

func writeError(w http.ResponseWriter, code int, message string) {
	var e apiError
	e.Error.Message, e.Error.Type, e.Error.Code = message, "control_error", "refused"
	writeJSON(w, code, e)
}
