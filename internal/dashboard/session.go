package dashboard

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"
)

const (
	// A session ends after idleExpiry without a page open, and after
	// maxSession in any case.
	idleExpiry = 12 * time.Hour
	maxSession = 7 * 24 * time.Hour
	// maxSessions bounds memory; only a right password makes one.
	maxSessions = 256
)

// session is one logged-in browser.
type session struct {
	csrf    string        // what its forms must repeat
	ended   chan struct{} // closed at logout and expiry
	created time.Time
	used    time.Time // guarded by sessions.mu
}

// sessions are kept by a hash of their token, so that looking one up takes a
// time that tells nothing about the tokens there are.
type sessions struct {
	mu      sync.Mutex
	byToken map[[sha256.Size]byte]*session
}

func newSessions() *sessions { return &sessions{byToken: map[[sha256.Size]byte]*session{}} }

// create starts a session and returns the token for its cookie.
func (s *sessions) create() (token string) {
	now := time.Now()
	token = rand.Text() + rand.Text() // 256 bits
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	s.byToken[sha256.Sum256([]byte(token))] = &session{
		csrf: rand.Text(), ended: make(chan struct{}), created: now, used: now,
	}
	return token
}

// sweep ends what expired and, at the bound, what was used least recently.
func (s *sessions) sweep(now time.Time) {
	var oldest [sha256.Size]byte
	for key, one := range s.byToken {
		if expired(one, now) {
			s.end(key)
			continue
		}
		if o, ok := s.byToken[oldest]; !ok || one.used.Before(o.used) {
			oldest = key
		}
	}
	if len(s.byToken) >= maxSessions {
		s.end(oldest)
	}
}

func expired(one *session, now time.Time) bool {
	return now.Sub(one.used) >= idleExpiry || now.Sub(one.created) >= maxSession
}

func (s *sessions) end(key [sha256.Size]byte) {
	if one, ok := s.byToken[key]; ok {
		close(one.ended)
		delete(s.byToken, key)
	}
}

// find returns the session of token and counts as a use; nil if there is none.
func (s *sessions) find(token string) *session {
	key, now := sha256.Sum256([]byte(token)), time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byToken[key]
	if one == nil {
		return nil
	}
	if expired(one, now) {
		s.end(key)
		return nil
	}
	one.used = now
	return one
}

// keep counts an open page as a use and says whether the session may go on.
// Without a login, where one is nil, it always may.
func (s *sessions) keep(one *session) bool {
	if one == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if expired(one, now) {
		return false
	}
	one.used = now
	return true
}

func (s *sessions) remove(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(sha256.Sum256([]byte(token)))
}

// sessionKey is where a request's context keeps its session.
type sessionKey struct{}

func withSession(r *http.Request, s *session) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), sessionKey{}, s))
}

// sessionOf returns the session that private found, or nil without a login.
func sessionOf(r *http.Request) *session {
	s, _ := r.Context().Value(sessionKey{}).(*session)
	return s
}
