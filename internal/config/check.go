package config

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const maxPort = 65535

// Truthy says whether value means yes: only 1, true and yes do, in any case
// and without blanks around them. Everything else, a typo too, means no.
func Truthy(value string) bool {
	switch strings.ToLower(value) {
	case "1", "true", "yes":
		return true
	}
	return false
}

// check returns text in the normal form of its kind, or says what was
// expected. It never repeats a secret.
func (s Setting) check(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	switch s.Kind {
	case Int:
		return checkInt(text, s.Min, math.MaxInt32, fmt.Sprintf("a whole number of at least %d", s.Min))
	case Port:
		return checkInt(text, 0, maxPort, "a port from 0 to 65535 (0: any free one)")
	case Duration:
		return checkDuration(text)
	case Enum:
		return checkEnum(text, s.Values)
	case URL:
		if s.Secret {
			return checkSecretURL(text)
		}
		return checkURL(text)
	case Bool, Text:
	}
	if strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("expected text, found a NUL byte in it")
	}
	return text, nil
}

// checkYAML is check for config.yaml, where a mistyped bool is an error: a
// variable with a typo means no, because that is what its users know.
func (s Setting) checkYAML(text string) (string, error) {
	if s.Kind != Bool {
		return s.check(text)
	}
	switch lower := strings.ToLower(text); {
	case Truthy(text):
		return "true", nil
	case slices.Contains([]string{"", "0", "false", "no"}, lower):
		return "false", nil
	}
	return "", fmt.Errorf("expected true or false, got %q", text)
}

func checkInt(text string, low, high int, expected string) (string, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high {
		return "", fmt.Errorf("expected %s, got %q", expected, text)
	}
	return strconv.Itoa(n), nil
}

func checkDuration(text string) (string, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return "", fmt.Errorf("expected a duration such as 250ms or 1m30s, got %q", text)
	}
	return d.String(), nil
}

func checkEnum(text string, values []string) (string, error) {
	lower := strings.ToLower(text)
	if !slices.Contains(values, lower) {
		return "", fmt.Errorf("expected one of %s, got %q", strings.Join(values, ", "), text)
	}
	return lower, nil
}

// checkSecretURL lets credentials into a URL, and that into no message.
func checkSecretURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("expected an http or https URL")
	}
	return text, nil
}

// checkURL keeps credentials out of URLs: they would show in logs and status.
func checkURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("expected an http or https URL, got %q", text)
	}
	if u.User != nil {
		return "", fmt.Errorf("expected a URL without user name and password; give the key in its own setting")
	}
	return text, nil
}
