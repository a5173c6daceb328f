package config

import (
	"net/url"
	"strings"
	"testing"
)

// isWebURL is what net/url says.
func isWebURL(text string) (user, ok bool) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return false, false
	}
	return u.User != nil, true
}

func TestWebURLs(t *testing.T) {
	for _, text := range []string{
		"http://h", "HTTPS://h.example:443/v1?x=%20#f", "http://127.0.0.1:11434/v1", "http://[::1]:8080/", "http://[fe80::1]", "http://h:", "https://h?q",
		"http://u@h/", "https://u:p%40@h", "http://u:p@[::1]/x", "http://a_b-c.d", "https://hooks.example/a@b:c/ü",
	} {
		user, ok := webURL(text)
		if wantUser, wantOK := isWebURL(text); !ok || !wantOK || user != wantUser {
			t.Errorf("%q: user %v, %v; net/url: %v, %v", text, user, ok, wantUser, wantOK)
		}
	}
	for _, text := range []string{
		"", "h", "localhost:80", "http:", "http://", "http:///v1", "ftp://h", "http://h o", "http://h\n", "http://h:x", "http://h:1:2", "http://:80", "http://u@",
		"http://[::1", "http://[]", "http://h%zz", "http://h/%", "http://h\\@x/", "http://u h@x", "://h", "http//h", "http://h:99999",
	} {
		if _, ok := webURL(text); ok {
			t.Errorf("%q is taken for a URL", text)
		}
	}
}

// What is taken for a URL is one for those that use it, and hides no user.
func FuzzWebURL(f *testing.F) {
	for _, text := range []string{"http://h", "https://u:p@h:1/x?y#z", "http://[::1]:8080/", "http://a@b@c", "http://h/%20"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		user, ok := webURL(text)
		if !ok || strings.Contains(text, "[") { // net/url looks closer at an address
			return
		}
		if wantUser, wantOK := isWebURL(text); !wantOK || user != wantUser {
			t.Errorf("%q: user %v; net/url: %v, %v", text, user, wantUser, wantOK)
		}
	})
}
