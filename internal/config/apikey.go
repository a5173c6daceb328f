package config

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/secret"
)

const (
	apiKeyName   = "API_SERVER_KEY"
	apiKeyPrefix = "hk_" // lets secret scanners recognise a leaked key
	apiKeyBytes  = 32    // of randomness: out of reach of guessing
	secretsMode  = 0o600
)

// EnsureAPIKey returns the key in home/.env and makes one where there is none:
// a line is added (in an existing home to hermes.env), every other line stays, the file becomes 0600 in one step.
// The caller holds the profile's lock; two callers at once could make two keys.
func EnsureAPIKey(home string) (key secret.String, created bool, err error) {
	entries, _, err := readHome(Options{Home: home})
	if err != nil {
		return secret.String{}, false, exitcode.With(exitcode.Config, err)
	}
	if e := entries[apiKeyName]; e.text != "" {
		return secret.New(e.text), false, nil
	}
	text := newAPIKey()
	if err := appendLine(GeneratedPath(home), apiKeyName+"="+text); err != nil {
		return secret.String{}, false, fmt.Errorf("cannot keep a new API key: %w", err)
	}
	return secret.New(text), true, nil
}

func newAPIKey() string {
	raw := make([]byte, apiKeyBytes)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the process instead
	return apiKeyPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

func appendLine(path, line string) error {
	path = behindLinks(path)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		data = append(data, '\n')
	}
	return atomicfile.Write(path, append(data, line+"\n"...), secretsMode)
}

// behindLinks is the file that is meant: a linked .env or config.yaml stays a link.
func behindLinks(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}
