package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// environment is an ordered list of NAME=VALUE.
type environment []string

func (e environment) get(name string) (string, bool) {
	for _, entry := range slices.Backward(e) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// or returns the value of name, or fallback when it is unset or empty.
func (e environment) or(name, fallback string) string {
	if v, ok := e.get(name); ok && v != "" {
		return v
	}
	return fallback
}

func (e environment) with(name, value string) environment {
	out := slices.DeleteFunc(slices.Clone(e), func(entry string) bool { return strings.HasPrefix(entry, name+"=") })
	return append(out, name+"="+value)
}

// defaultPath is what s6 and the heartbeat need when the image sets no PATH.
const defaultPath = "/command:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// forUser is the environment of id: HOME, USER and LOGNAME of who runs, not of
// who started the container. No passwd entry is needed.
func (e environment) forUser(id identity, home, runDir string) environment {
	out := e.with("HERMES_HOME", home).with("HERMES_RUN_DIR", runDir)
	out = out.with("PATH", e.or("PATH", defaultPath))
	if old := e.or("HOME", "/"); id.drop || old == "/" {
		out = out.with("HOME", home)
	}
	if id.drop || e.or("USER", "") == "" {
		out = out.with("USER", "hermes").with("LOGNAME", "hermes")
	}
	return out
}

// snapshot writes one file per variable, raw, as s6-overlay does; the
// directory is for the service user alone, because secrets are in it.
func (e environment) snapshot(dir string) error {
	for _, entry := range e {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" || strings.ContainsRune(name, '/') || name == "." || name == ".." {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			return fmt.Errorf("cannot write the container environment: %w", err)
		}
	}
	return nil
}

// LoadEnvironment reads what snapshot wrote, and what hooks added, sorted by
// name.
func LoadEnvironment(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the container environment: %w", err)
	}
	var env []string
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("cannot read the container environment: %w", err)
		}
		env = append(env, entry.Name()+"="+strings.TrimSuffix(string(b), "\n"))
	}
	return env, nil
}
