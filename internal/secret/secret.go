// Package secret holds a value that must never reach a log, an error or a
// page: it prints as <redacted> through fmt, JSON and slog.
//
// It does not protect memory; it protects against carelessness:
//
//	key := secret.New("sk-…")
//	slog.Info("model", "key", key) // key=<redacted>
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

const redacted = "<redacted>"

// String is a secret text. The zero value is the empty secret. Compare with
// Equal, not with ==.
type String struct {
	// A pointer, nil for the empty secret: fmt calls no method of an unexported
	// field of somebody's struct and would print a plain string; of a pointer it
	// prints the address.
	value *string
}

// New wraps value.
func New(value string) String {
	if value == "" {
		return String{}
	}
	return String{&value}
}

// Reveal returns the value; call it only where the secret is used.
func (s String) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsSet says whether there is a secret at all.
func (s String) IsSet() bool { return s.value != nil }

// Equal compares in constant time.
func (s String) Equal(other string) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other)) == 1
}

// String hides the value; the empty secret prints as nothing.
func (s String) String() string {
	if !s.IsSet() {
		return ""
	}
	return redacted
}

// Format hides the value from every fmt verb, %#v among them.
func (s String) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalText hides the value from JSON, YAML and XML.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the value from slog.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }
