package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/exitcode"
)

// Change is new content for the files of a home: checked together with all the
// other settings, and not written yet.
type Change struct {
	// Config is the settings as they will be.
	Config *Config

	files []fileChange
}

type fileChange struct {
	path          string // as it is called in the home
	before, after []byte // before is nil: there is no file
	secret        bool
}

// Set gives the setting called name a value: secrets, and what stands there
// already, in .env, all else in config.yaml. It changes no other byte of them.
// An error with exit code 2 is the value's, one with 78 that of the settings as
// a whole, with its place.
func Set(o Options, name, text string) (*Change, error) {
	s, err := settable(name)
	if err != nil {
		return nil, err
	}
	switch {
	case text == "" && s.Kind != List && !(s.Kind == Text && s.takesEmpty()):
		err = errors.New("expected a value, got none; to remove it use --unset")
	case !utf8.ValidString(text):
		err = errors.New("expected text in UTF-8")
	default:
		text, err = s.checkYAML(text)
	}
	if err != nil {
		return nil, exitcode.With(exitcode.Usage, fmt.Errorf("%s: %w", name, err))
	}
	var c Change
	file, err := dotenvOf(o, s)
	switch {
	case err != nil:
		return nil, err
	case file != "":
		err = c.edit(o, file, func(data []byte) ([]byte, error) { return setDotenv(data, s, text) })
	default:
		err = c.edit(o, yamlName, func(data []byte) ([]byte, error) { return setYAML(data, s, text) })
	}
	if err != nil {
		return nil, err
	}
	return c.checked(o)
}

// Unset removes the setting called name from the files of the home. A Change
// that changes nothing says that they did not have it.
func Unset(o Options, name string) (*Change, error) {
	s, err := settable(name)
	if err != nil {
		return nil, err
	}
	if _, err := dotenvOf(o, s); err != nil {
		return nil, err
	}
	var c Change
	for _, file := range []string{dotenvName, generatedName} {
		if file == dotenvName && isInherited(o.Home) {
			continue // dotenvOf found that it does not stand there
		}
		if err := c.edit(o, file, func(data []byte) ([]byte, error) { return setDotenv(data, s, "") }); err != nil {
			return nil, err
		}
	}
	if err := c.edit(o, yamlName, func(data []byte) ([]byte, error) { return unsetYAML(data, s.Key) }); err != nil {
		return nil, err
	}
	return c.checked(o)
}

// Replace makes data the whole of config.yaml. before is what it was made from:
// Write refuses if the file holds something else by then. The errors are those
// of all settings.
func Replace(o Options, before, data []byte) (*Change, []error) {
	c := &Change{files: []fileChange{{path: filepath.Join(o.Home, yamlName), before: before, after: data}}}
	var errs []error
	c.Config, errs = Check(c.over(o))
	return c, errs
}

// Path is where the settings of home stand that are no secrets.
func Path(home string) string { return filepath.Join(home, yamlName) }

// Paths are the files that Write replaces; none if nothing changes.
func (c *Change) Paths() []string {
	var paths []string
	for _, f := range c.files {
		paths = append(paths, f.path)
	}
	return paths
}

// Write replaces each file in one step. The mode stays, but that of secrets
// becomes 0600; a link stays a link. It refuses when somebody else has written
// meanwhile.
func (c *Change) Write() error {
	for _, f := range c.files {
		now, err := readOrNothing(Options{}, f.path)
		if err != nil {
			return err
		}
		if !bytes.Equal(now, f.before) {
			return fmt.Errorf("somebody else has changed %s meanwhile; nothing was written there, look at it and try again", f.path)
		}
		path, mode := behindLinks(f.path), fs.FileMode(secretsMode)
		if fi, err := os.Stat(path); err == nil && !f.secret {
			mode = fi.Mode().Perm()
		}
		if err := atomicfile.Write(path, f.after, mode); err != nil {
			return err
		}
	}
	return nil
}

// settable refuses what no file can hold.
func settable(name string) (Setting, error) {
	s, ok := Find(name)
	switch {
	case !ok:
		return s, exitcode.With(exitcode.Usage, fmt.Errorf("there is no setting %q", name))
	case s.Key == "":
		return s, exitcode.With(exitcode.Usage, fmt.Errorf("%s stands in the environment only, where this process or its container is started", name))
	}
	return s, nil
}

// dotenvOf is the file with variables that s stands in or, as a secret, belongs
// in; "" is config.yaml.
func dotenvOf(o Options, s Setting) (string, error) {
	entries, _, err := readHome(o)
	if err != nil {
		return "", exitcode.With(exitcode.Config, err)
	}
	for _, name := range s.Names() {
		e, set := entries[name]
		switch {
		case set && e.file != "":
			return e.file, nil
		case set && isInherited(o.Home):
			return "", exitcode.With(exitcode.Config, fmt.Errorf("%s sets %s; what the predecessor left there is yours to change", e.where(filepath.Join(o.Home, dotenvName)), name))
		case set:
			return dotenvName, nil
		}
	}
	if s.Secret {
		return filepath.Base(GeneratedPath(o.Home)), nil
	}
	return "", nil
}

// edit adds what f makes of the file called name, if that is another content.
func (c *Change) edit(o Options, name string, f func([]byte) ([]byte, error)) error {
	path := filepath.Join(o.Home, name)
	before, err := readOrNothing(o, path)
	if err != nil {
		return err
	}
	after, err := f(before)
	switch {
	case errors.Is(err, errByHand):
		return exitcode.With(exitcode.Config, fmt.Errorf("cannot change %s: %w", path, err))
	case err != nil && name == yamlName:
		return exitcode.With(exitcode.Config, syntaxError(path, err))
	case err != nil:
		return exitcode.With(exitcode.Config, fmt.Errorf("cannot change %s: %w", path, err))
	case !bytes.Equal(before, after):
		c.files = append(c.files, fileChange{path: path, before: before, after: after, secret: name != yamlName})
	}
	return nil
}

func readOrNothing(o Options, path string) ([]byte, error) {
	data, err := o.readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read settings: %w", err)
	}
	return data, nil
}

// over is o as it will be when c is written.
func (c *Change) over(o Options) Options {
	o.text = map[string][]byte{}
	for _, f := range c.files {
		o.text[f.path] = f.after
	}
	return o
}

// checked holds the change against all the other settings.
func (c *Change) checked(o Options) (*Change, error) {
	var err error
	if c.Config, err = Load(c.over(o)); err != nil {
		return nil, exitcode.With(exitcode.Of(err), fmt.Errorf("%w; nothing was changed", err))
	}
	return c, nil
}

// setDotenv gives s a line in the place of the last that sets it, by whatever
// name, and removes the others; no line for an empty value.
func setDotenv(data []byte, s Setting, value string) ([]byte, error) {
	var own []entry
	_, err := eachAssignment(string(data), func(name string, e entry) {
		if slices.Contains(s.Names(), name) {
			own = append(own, e)
		}
	})
	if err != nil {
		return nil, err
	}
	lines := slices.Collect(strings.Lines(string(data)))
	eol := "\n"
	if strings.Contains(string(data), "\r\n") {
		eol = "\r\n"
	}
	line := ""
	if value != "" {
		line = s.Env + "=" + quoteDotenv(value) + eol
	}
	for i, e := range own {
		for n := e.line - 1; n < min(e.end, len(lines)); n++ {
			lines[n] = ""
		}
		if i == len(own)-1 {
			lines[e.line-1] = line
		}
	}
	text := strings.Join(lines, "")
	if len(own) == 0 && line != "" {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += eol
		}
		text += line
	}
	if entries, _, err := parseDotenv(text); err != nil || entries[s.Env].text != value {
		return nil, fmt.Errorf("%s cannot stand in a file with variables", s.Key)
	}
	return []byte(text), nil
}

// plainDotenv are the characters that need no quotes, for us and for others who
// read the file.
const plainDotenv = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./:@+=,-"

func quoteDotenv(value string) string {
	switch {
	case strings.Trim(value, plainDotenv) == "":
		return value
	case !strings.ContainsAny(value, "'\r"):
		return "'" + value + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "\n", `\n`, "\r", `\r`).Replace(value) + `"`
}
