package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An existing home is one that the predecessor made. Its settings are read as
// far as they mean the same here. What does not is named in warnings and never
// an error: an error would leave a gateway dark that ran an hour ago. Secrets
// are the exception, since a key that was lost would open what it protects.

// predecessorFiles are files that only the predecessor leaves in a home.
func predecessorFiles() []string {
	return []string{"gateway_state.json", "gateway.pid", "state.db", "SOUL.md"}
}

// predecessorKeys maps keys of the predecessor's config.yaml to ours; ours
// counts more where a file has both.
func predecessorKeys() map[string]string { return map[string]string{"model.default": "model.name"} }

// predecessorProviders are its names for any server that speaks the API of
// OpenAI at model.base_url.
func predecessorProviders() []string {
	return []string{"custom", "ollama", "vllm", "llamacpp", "lmstudio"}
}

// isInherited says whether home is an existing one.
func isInherited(home string) bool {
	return slices.ContainsFunc(predecessorFiles(), func(name string) bool {
		_, err := os.Lstat(filepath.Join(home, name))
		return err == nil
	})
}

func (l *loader) warn(format string, args ...any) {
	l.config.Warnings = append(l.config.Warnings, fmt.Sprintf(format, args...))
}

// tolerate turns the error of one source into a warning in an existing home.
func (l *loader) tolerate(s Setting, source SourceKind, err error) bool {
	if !l.inherited || s.Secret || source != FromFile && source != FromDotenv {
		return false
	}
	l.warn("%v; %s stays at its default %q", err, s.Name(), s.Default)
	return true
}

// forgives says whether the wrong shape of a value is a warning: in an existing
// home, but for the whole file, key "", and secrets.
func (w *walker) forgives(key string) bool {
	secret := slices.ContainsFunc(Settings(), func(s Setting) bool { return s.Key == key && s.Secret })
	return w.inherited && key != "" && !secret
}

// generatedName is where hermes keeps what it makes up in an existing home (an
// API key, a port): there .env is not its to change. It looks like .env and is
// read after it, in every home.
const generatedName = "hermes.env"

// GeneratedPath is the file that takes a made-up setting of home.
func GeneratedPath(home string) string {
	if isInherited(home) {
		return filepath.Join(home, generatedName)
	}
	return filepath.Join(home, dotenvName)
}

// readHome reads .env and what hermes made up beside it. In an existing home a
// line that is no assignment is a warning, as the predecessor has it.
func readHome(o Options) (entries map[string]entry, warnings []string, err error) {
	path := filepath.Join(o.Home, dotenvName)
	if isInherited(o.Home) {
		entries, warnings, err = readForgivingly(o, path)
	} else {
		entries, err = readDotenv(o, path)
	}
	if err != nil {
		return nil, nil, err
	}
	generated, err := readDotenv(o, filepath.Join(o.Home, generatedName))
	for name, e := range generated {
		if entries == nil {
			entries = map[string]entry{}
		}
		if _, set := entries[name]; !set {
			e.file = generatedName
			entries[name] = e
		}
	}
	return entries, warnings, err
}

func readForgivingly(o Options, path string) (entries map[string]entry, warnings []string, err error) {
	data, err := o.readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read settings: %w", err)
	}
	lines := strings.Split(string(data), "\n")
	for {
		entries, line, err := parseDotenv(strings.Join(lines, "\n"))
		if err == nil {
			return entries, warnings, nil
		}
		warnings = append(warnings, fmt.Sprintf("%s:%d: %v; the line is ignored", path, line, err))
		lines[line-1] = "" // one line less that can fail
	}
}

// unknownVariables are the names in .env that no setting has.
func (l *loader) unknownVariables() []string {
	known := map[string]bool{}
	for _, s := range Settings() {
		for _, name := range s.Names() {
			known[name] = s.Key != ""
		}
	}
	var unknown []string
	for name := range l.dotenv {
		if !known[name] {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// warnUnknown names settings that nobody reads, all on one line.
func (l *loader) warnUnknown(path string, names []string) {
	if len(names) == 0 {
		return
	}
	slices.Sort(names)
	l.warn("%s: not settings of hermes, and not used: %s", path, strings.Join(slices.Compact(names), ", "))
}

// inherit reads config.yaml of an existing home into our keys.
func (l *loader) inherit(w *walker) {
	for theirs, ours := range predecessorKeys() {
		if e, ok := w.entries[theirs]; ok {
			if _, both := w.entries[ours]; !both {
				w.entries[ours] = e
			}
			delete(w.entries, theirs)
		}
	}
	l.warnUnknown(w.path, w.unknown)
	provider := w.entries["model.provider"]
	if w.entries["model.base_url"].text != "" && slices.Contains(predecessorProviders(), strings.ToLower(provider.text)) {
		provider.text = "openai"
		w.entries["model.provider"] = provider
	}
}
