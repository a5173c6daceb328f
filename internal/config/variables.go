package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
)

// fileSuffix turns the name of a secret into that of its file variable.
const fileSuffix = "_FILE"

// maxSecretFile bounds a secret file, in bytes: far above any key, far below
// what a mistaken path such as /dev/zero would give.
const maxSecretFile = 64 << 10

// secretPatience is how long one waits for a secret that comes through a pipe: no
// command must hang on it, and no gateway until the guard takes it for deaf (15 s).
const secretPatience = 5 * time.Second

// variables is one source that goes by variable names: the environment or .env.
type variables struct {
	lookup func(name string) (entry, bool)
	kind   SourceKind
	place  func(name string, e entry) string // for errors
	short  func(name string, e entry) string // for Source.Where
	fix    string                            // what to do, appended to errors
}

// fromVariables looks s up in one source: its name, then its aliases.
func (s Setting) fromVariables(vars variables) (value, bool, error) {
	for _, name := range append([]string{s.Env}, s.Aliases...) {
		e, set := vars.lookup(name)
		set = set && (e.text != "" || s.takesEmpty())
		if s.Secret {
			if file, ok := vars.lookup(name + fileSuffix); ok && file.text != "" {
				return s.fromSecretFile(vars, name, file, set)
			}
		}
		if !set {
			continue
		}
		text, err := s.check(e.text)
		if err != nil {
			return value{}, false, exitcode.With(exitcode.Config, fmt.Errorf("%s: %w%s", vars.place(name, e), err, vars.fix))
		}
		return value{text: text, source: Source{vars.kind, vars.short(name, e)}, secret: s.Secret, place: vars.place(name, e)}, true, nil
	}
	return value{}, false, nil
}

// fromSecretFile reads the secret called name from the file that e names.
func (s Setting) fromSecretFile(vars variables, name string, e entry, both bool) (value, bool, error) {
	variable := name + fileSuffix
	text, err := "", error(nil)
	if both {
		err = fmt.Errorf("%s is set as well; remove one of the two", name)
	} else {
		text, err = readSecret(e.text)
	}
	if err == nil {
		text, err = s.check(text)
	}
	if err != nil {
		return value{}, false, exitcode.With(exitcode.Config, fmt.Errorf("%s: %w%s", vars.place(variable, e), err, vars.fix))
	}
	return value{text: text, source: Source{vars.kind, vars.short(variable, e)}, secret: true, place: vars.place(variable, e)}, true, nil
}

// readSecret returns the content of path without its last newline.
func readSecret(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("expected an absolute path, got %q", path)
	}
	data, err := readPatiently(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the secret: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case len(data) > maxSecretFile:
		return "", fmt.Errorf("expected a secret of at most %d bytes in %q, found more", maxSecretFile, path)
	case text == "":
		return "", fmt.Errorf("expected a secret in %q, found an empty file", path)
	}
	return text, nil
}

// readPatiently returns the beginning of the file at path. It may be a pipe, which is
// given secretPatience to say something; the reader that waits then is left behind,
// since nothing ends the opening of a pipe but its other end.
func readPatiently(path string) ([]byte, error) {
	type content struct {
		data []byte
		err  error
	}
	read := make(chan content, 1)
	go func() {
		f, err := os.Open(path)
		if err != nil {
			read <- content{err: err}
			return
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
		read <- content{data, err}
	}()
	patience := time.NewTimer(secretPatience)
	defer patience.Stop()
	select {
	case c := <-read:
		return c.data, c.err
	case <-patience.C:
		return nil, fmt.Errorf("nobody wrote all of it into %q for %s", path, secretPatience)
	}
}
