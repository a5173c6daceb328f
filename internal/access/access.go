// Package access decides who may use an HTTP server of ours, from the address
// it is bound to, the key it has and the request. It is pure: it opens nothing,
// answers nothing and remembers nothing.
//
// A server on loopback without a key is open to this machine, which includes
// every page in the user's browser: so the Host must be loopback (DNS
// rebinding) and no other site may send (cross-site requests). A server with a
// key wants it as a bearer token. A server beyond loopback without a key
// refuses everybody.
//
//	p := access.Policy{Host: "127.0.0.1", Public: []string{"/livez"}}
//	var refused *access.Refusal
//	if errors.As(p.Check(r), &refused) { http.Error(w, refused.Message, refused.Status) }
package access

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/hermesgw/hermes/internal/secret"
)

// Policy is the rule of one server.
type Policy struct {
	// Host is the address the server is bound to, without a port.
	Host string
	// Key is what a request must bear. Empty: none, which opens the server to
	// loopback if Host is loopback and closes it to everybody otherwise.
	Key secret.String
	// Public lists the paths that need nothing.
	Public []string
}

// Refusal is why a request may not pass.
type Refusal struct {
	Status  int    // of HTTP: 401, 403
	Code    string // for programs: invalid_api_key, foreign_host, foreign_origin
	Message string // for people: what happened and what to do
}

// Error returns the message.
func (r *Refusal) Error() string { return r.Message }

// Check returns nil or a *Refusal.
func (p Policy) Check(r *http.Request) error {
	switch {
	case slices.Contains(p.Public, r.URL.Path):
		return nil
	case p.Key.IsSet():
		return checkKey(r, p.Key)
	case LoopbackBind(p.Host):
		return CheckLocal(r)
	}
	return &Refusal{http.StatusForbidden, "no_key_configured", "this server listens beyond loopback and has no key; configure one"}
}

// checkKey compares in constant time.
func checkKey(r *http.Request, key secret.String) error {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return &Refusal{http.StatusUnauthorized, "invalid_api_key", "no API key given; send it as: Authorization: Bearer KEY"}
	}
	if !key.Equal(strings.TrimSpace(token)) {
		return &Refusal{http.StatusUnauthorized, "invalid_api_key", "wrong API key; the right one is API_SERVER_KEY of this profile"}
	}
	return nil
}

// CheckLocal is the rule of a server that is open to loopback: the Host header
// names loopback and the request comes from no other site.
func CheckLocal(r *http.Request) error {
	if !LoopbackHost(r.Host) {
		return &Refusal{http.StatusForbidden, "foreign_host", "this server answers only to localhost, 127.0.0.1 and [::1]; use one of these, or configure credentials to open it further"}
	}
	return CheckOrigin(r)
}

// CheckOrigin refuses what a page of another site sends. An Origin header must
// name the very host and port that were asked; where a browser sends none,
// Sec-Fetch-Site guards the methods that change something. Programs other than
// browsers send neither and pass.
func CheckOrigin(r *http.Request) error {
	foreign := &Refusal{http.StatusForbidden, "foreign_origin", "requests from pages of another site are refused"}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || !strings.EqualFold(u.Host, r.Host) {
			return foreign
		}
		return nil
	}
	site := r.Header.Get("Sec-Fetch-Site")
	if safe(r.Method) || site == "" || site == "same-origin" || site == "none" {
		return nil
	}
	return foreign
}

// safe says whether a method promises to change nothing (RFC 9110, 9.2.1).
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// LoopbackBind says whether a server bound to host is reachable from this
// machine only. The empty host, 0.0.0.0 and :: are every interface; a name
// other than localhost could be anything, so it is not loopback.
func LoopbackBind(host string) bool {
	return loopback(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

// LoopbackHost says whether a Host header, with or without a port, names
// loopback.
func LoopbackHost(header string) bool {
	if host, _, err := net.SplitHostPort(header); err == nil {
		return loopback(host)
	}
	return LoopbackBind(header)
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
