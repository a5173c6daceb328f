package access_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/secret"
	"pgregory.net/rapid"
)

func TestLoopbackBind(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LocalHost", "::ffff:127.0.0.1"} {
		if !access.LoopbackBind(host) {
			t.Errorf("LoopbackBind(%q) = false", host)
		}
	}
	for _, host := range []string{"", "0.0.0.0", "::", "[::]", "10.0.0.1", "128.0.0.1", "example.com", "localhost.example.com", "127.0.0.1.example.com", "127.1", "2130706433", "127.0.0.1:80", " 127.0.0.1"} {
		if access.LoopbackBind(host) {
			t.Errorf("LoopbackBind(%q) = true", host)
		}
	}
}

func TestLoopbackHost(t *testing.T) {
	for _, header := range []string{"127.0.0.1", "127.0.0.1:8642", "localhost", "localhost:1", "[::1]:8642", "[::1]"} {
		if !access.LoopbackHost(header) {
			t.Errorf("LoopbackHost(%q) = false", header)
		}
	}
	for _, header := range []string{"", ":80", "evil.example", "evil.example:8642", "localhost.evil.example:80", "localhost:80:80", "0.0.0.0:80", "127.0.0.1@evil.example"} {
		if access.LoopbackHost(header) {
			t.Errorf("LoopbackHost(%q) = true", header)
		}
	}
}

type request struct {
	method, path, host string
	header             http.Header
}

func (q request) http() *http.Request {
	if q.method == "" {
		q.method = http.MethodPost
	}
	if q.path == "" {
		q.path = "/v1/chat/completions"
	}
	r := httptest.NewRequest(q.method, q.path, nil)
	r.Host = q.host
	if q.host == "" {
		r.Host = "127.0.0.1:8642"
	}
	for k, v := range q.header {
		r.Header[k] = v
	}
	return r
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func TestPolicy(t *testing.T) {
	key := secret.New("hk_right")
	open := access.Policy{Host: "127.0.0.1", Public: []string{"/livez"}}
	keyed := access.Policy{Host: "0.0.0.0", Key: key, Public: []string{"/livez"}}
	bare := access.Policy{Host: "0.0.0.0", Public: []string{"/livez"}}
	for name, tc := range map[string]struct {
		policy access.Policy
		q      request
		code   string // of the refusal; empty: passes
	}{
		"open: a program":                 {open, request{}, ""},
		"open: its own page":              {open, request{header: header("Origin", "http://127.0.0.1:8642", "Sec-Fetch-Site", "same-origin")}, ""},
		"open: rebound name":              {open, request{host: "evil.example:8642"}, "foreign_host"},
		"open: no host":                   {open, request{host: ":8642"}, "foreign_host"},
		"open: foreign page":              {open, request{header: header("Origin", "https://evil.example")}, "foreign_origin"},
		"open: foreign page, GET":         {open, request{method: http.MethodGet, header: header("Origin", "https://evil.example")}, "foreign_origin"},
		"open: page of another port":      {open, request{header: header("Origin", "http://127.0.0.1:3000")}, "foreign_origin"},
		"open: sandboxed page":            {open, request{header: header("Origin", "null")}, "foreign_origin"},
		"open: Origin with a trick":       {open, request{header: header("Origin", "http://127.0.0.1:8642@evil.example")}, "foreign_origin"},
		"open: form without Origin":       {open, request{header: header("Sec-Fetch-Site", "cross-site")}, "foreign_origin"},
		"open: form of a sibling site":    {open, request{header: header("Sec-Fetch-Site", "same-site")}, "foreign_origin"},
		"open: a followed link":           {open, request{method: http.MethodGet, header: header("Sec-Fetch-Site", "cross-site")}, ""},
		"open: a key is not asked for":    {open, request{header: header("Authorization", "Bearer x")}, ""},
		"open: livez from anywhere":       {open, request{path: "/livez", host: "evil.example"}, ""},
		"open: below livez":               {open, request{path: "/livez/x", host: "evil.example"}, "foreign_host"},
		"key: right":                      {keyed, request{host: "gw.example", header: header("Authorization", "Bearer hk_right")}, ""},
		"key: scheme in another case":     {keyed, request{header: header("Authorization", "bearer  hk_right")}, ""},
		"key: wrong":                      {keyed, request{header: header("Authorization", "Bearer hk_wrong")}, "invalid_api_key"},
		"key: a prefix of it":             {keyed, request{header: header("Authorization", "Bearer hk_righ")}, "invalid_api_key"},
		"key: empty":                      {keyed, request{header: header("Authorization", "Bearer ")}, "invalid_api_key"},
		"key: none":                       {keyed, request{}, "invalid_api_key"},
		"key: as basic":                   {keyed, request{header: header("Authorization", "Basic hk_right")}, "invalid_api_key"},
		"key: not in the URL":             {keyed, request{path: "/v1/models?key=hk_right"}, "invalid_api_key"},
		"key: livez needs none":           {keyed, request{path: "/livez"}, ""},
		"key on loopback is wanted":       {access.Policy{Host: "127.0.0.1", Key: key}, request{}, "invalid_api_key"},
		"no key beyond loopback":          {bare, request{}, "no_key_configured"},
		"no key beyond loopback: a guess": {bare, request{header: header("Authorization", "Bearer ")}, "no_key_configured"},
		"no key, every interface by \"\"": {access.Policy{}, request{}, "no_key_configured"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.policy.Check(tc.q.http())
			var refused *access.Refusal
			if errors.As(err, &refused); tc.code == "" && err != nil || tc.code != "" && (refused == nil || refused.Code != tc.code) {
				t.Fatalf("Check = %+v, want %q", err, tc.code)
			}
			if refused != nil && (refused.Status < 400 || refused.Message == "" || strings.Contains(refused.Message, "hk_right")) {
				t.Errorf("refusal %+v", refused)
			}
		})
	}
}

// No header a page can set opens a keyed server.
func TestOnlyTheKeyOpens(t *testing.T) {
	policy := access.Policy{Host: "127.0.0.1", Key: secret.New("hk_right")}
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.String().Draw(t, "authorization")
		r := request{header: http.Header{"Authorization": {value}, "Origin": {rapid.String().Draw(t, "origin")}}}.http()
		if policy.Check(r) == nil && !strings.HasSuffix(strings.TrimSpace(value), "hk_right") {
			t.Fatalf("Authorization %q passed", value)
		}
	})
}
