// Package config turns flags, environment, .env and config.yaml into settings
// that know where they came from. It does not decide what a setting means, and
// it never reads the process's own environment: the caller hands it in.
//
// Precedence is flag > environment > $HOME_OF_PROFILE/.env > config.yaml >
// default. Every secret NAME may be given as NAME_FILE, a file to read it from.
//
//	c, err := config.Load(config.Options{Home: p.Home, Lookup: os.LookupEnv})
//	api := c.API() // api.Port == 8642
package config

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/secret"
)

// The names of the two files in a profile's home.
const (
	dotenvName = ".env"
	yamlName   = "config.yaml"
)

// SourceKind is the sort of place a value came from.
type SourceKind string

// The sources, strongest first.
const (
	FromFlag        SourceKind = "flag"
	FromEnvironment SourceKind = "environment"
	FromDotenv      SourceKind = "dotenv"
	FromFile        SourceKind = "file"
	FromDefault     SourceKind = "default"
)

// Source is the place a value came from.
type Source struct {
	Kind  SourceKind
	Where string // --port, API_SERVER_PORT, .env:3, config.yaml:3:9; empty for a default
}

// Options says where Load looks.
type Options struct {
	// Home is the profile's home directory, which may lack both files. Empty:
	// no files are read.
	Home string
	// Lookup reads the environment, as os.LookupEnv does. Nil: there is none.
	Lookup func(name string) (value string, ok bool)
	// Flags holds what the command line gave, by Setting.Name. Nil: nothing.
	Flags map[string]string
}

// Config is the settings of one profile and of the container, checked. It does
// not change and is safe for concurrent use.
type Config struct {
	// Warnings names what config.yaml holds and nobody reads, each with
	// FILE:LINE:COL.
	Warnings []string

	values map[string]value // by Setting.Name
}

// value is a checked text, in its normal form, and its source.
type value struct {
	text   string
	source Source
	secret bool
}

// Load reads every setting. Its errors are one line and carry exit code 78
// (2 when a flag is at fault); a value in a file is named as FILE:LINE[:COL].
func Load(o Options) (*Config, error) {
	c, errs := Check(o)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return c, nil
}

// Check is Load that goes on after an error: it returns all that is wrong, in
// the order of the places it looks at, and what could be read beside it. A
// setting that is wrong has its default then.
func Check(o Options) (*Config, []error) {
	l, errs := load(o)
	return l.config, errs
}

func load(o Options) (*loader, []error) {
	l := &loader{options: o, config: &Config{values: map[string]value{}}}
	errs := l.readFiles()
	for _, s := range Settings() {
		v, err := l.resolve(s)
		if err != nil {
			errs = append(errs, err)
			v = value{text: s.Default, source: Source{Kind: FromDefault}, secret: s.Secret}
		}
		l.config.values[s.Name()] = v
	}
	return l, errs
}

// Value returns a setting by its Name and where it came from. A secret that is
// set returns as <redacted>. An unknown name returns zero values.
func (c *Config) Value(name string) (string, Source) {
	v := c.values[name]
	if v.secret {
		return secret.New(v.text).String(), v.source
	}
	return v.text, v.source
}

// Source returns where the setting called name came from.
func (c *Config) Source(name string) Source { return c.values[name].source }

// APIServer is where a profile's HTTP API listens.
type APIServer struct {
	Host string
	Port int // 0..65535; 0 means any free port
	Key  secret.String
}

// API returns the settings below api_server.
func (c *Config) API() APIServer {
	return APIServer{Host: c.text("api_server.host"), Port: c.Int("api_server.port"), Key: c.secret("api_server.key")}
}

// Model is what answers.
type Model struct {
	Provider string // offline, openai
	BaseURL  string // empty: the provider's own
	Name     string // empty: the provider's own
	APIKey   secret.String
	Delay    time.Duration // of the offline model, never negative
}

// Model returns the settings below model.
func (c *Config) Model() Model {
	delay, _ := time.ParseDuration(c.text("model.delay")) // checked by Load
	return Model{
		Provider: c.text("model.provider"),
		BaseURL:  c.text("model.base_url"),
		Name:     c.text("model.name"),
		APIKey:   c.secret("model.api_key"),
		Delay:    delay,
	}
}

// Dashboard is whether and where the dashboard listens.
type Dashboard struct {
	Enabled  bool
	Host     string
	Port     int // 0..65535; 0 means any free port
	Username string
	Password secret.String
}

// Dashboard returns the settings below dashboard. They are global: load them
// from the home of the default profile.
func (c *Config) Dashboard() Dashboard {
	return Dashboard{
		Enabled:  Truthy(c.text("dashboard.enabled")),
		Host:     c.text("dashboard.host"),
		Port:     c.Int("dashboard.port"),
		Username: c.text("dashboard.username"),
		Password: c.secret("dashboard.password"),
	}
}

// Notify is where an operator hears what becomes of the services.
type Notify struct {
	URL    secret.String // of a webhook; not set: nobody is told
	Secret secret.String // signs the messages; not set: they are not signed
}

// Notify returns the settings below notify. They are global: load them from
// the home of the default profile.
func (c *Config) Notify() Notify {
	return Notify{URL: c.secret("notify.webhook_url"), Secret: c.secret("notify.webhook_secret")}
}

// Log is how and how much is logged.
type Log struct {
	Format string // text, json
	Level  slog.Level
}

// Log returns the settings below log.
func (c *Config) Log() Log {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.text("log.level"))) // checked by Load
	return Log{Format: c.text("log.format"), Level: level}
}

// Int returns a setting of kind Int or Port by its Name; 0 if it has no value.
func (c *Config) Int(name string) int {
	n, _ := strconv.Atoi(c.text(name)) // checked by Load
	return n
}

func (c *Config) text(name string) string          { return c.values[name].text }
func (c *Config) secret(name string) secret.String { return secret.New(c.values[name].text) }

// loader carries what Load has read so far.
type loader struct {
	options Options
	config  *Config
	dotenv  map[string]entry // by variable
	yaml    map[string]entry // by key
	// inherited: the home is one that the predecessor made.
	inherited bool
}

// entry is a raw value and its place in a file.
type entry struct {
	text      string
	line, col int    // from 1; col 0 means unknown
	file      string // where that is not the usual file of its source
}

// where writes the place of e in file: FILE:LINE or FILE:LINE:COL.
func (e entry) where(file string) string {
	if e.file != "" {
		file = filepath.Join(filepath.Dir(file), e.file)
	}
	if e.col == 0 {
		return fmt.Sprintf("%s:%d", file, e.line)
	}
	return fmt.Sprintf("%s:%d:%d", file, e.line, e.col)
}

func (l *loader) readFiles() []error {
	if l.options.Home == "" {
		return nil
	}
	var errs []error
	var err error
	l.inherited = isInherited(l.options.Home)
	if l.dotenv, l.config.Warnings, err = readHome(l.options.Home); err != nil {
		errs = append(errs, exitcode.With(exitcode.Config, err))
	}
	w := readYAML(l.path(yamlName), l.inherited)
	if l.inherited {
		l.warnUnknown(l.path(dotenvName), l.unknownVariables())
		l.inherit(w)
	}
	l.yaml = w.entries
	l.config.Warnings = append(l.config.Warnings, w.warnings...)
	for _, err := range w.errors {
		errs = append(errs, exitcode.With(exitcode.Config, err))
	}
	return errs
}

func (l *loader) path(name string) string { return filepath.Join(l.options.Home, name) }

// resolve walks the sources of s from the strongest to the default.
func (l *loader) resolve(s Setting) (value, error) {
	for _, source := range []struct {
		kind SourceKind
		look func(Setting) (value, bool, error)
	}{{FromFlag, l.fromFlag}, {FromEnvironment, l.fromEnvironment}, {FromDotenv, l.fromDotenv}, {FromFile, l.fromYAML}} {
		v, ok, err := source.look(s)
		if err != nil && l.tolerate(s, source.kind, err) {
			continue
		}
		if ok || err != nil {
			return v, err
		}
	}
	return value{text: s.Default, source: Source{Kind: FromDefault}, secret: s.Secret}, nil
}

func (l *loader) fromFlag(s Setting) (value, bool, error) {
	text, ok := l.options.Flags[s.Name()]
	if !ok || text == "" && !s.takesEmpty() {
		return value{}, false, nil
	}
	where := "--" + s.Name()[strings.LastIndexByte(s.Name(), '.')+1:]
	text, err := s.check(text)
	if err != nil {
		return value{}, false, exitcode.With(exitcode.Usage, fmt.Errorf("%s: %w", where, err))
	}
	return value{text: text, source: Source{FromFlag, where}, secret: s.Secret}, true, nil
}

func (l *loader) fromEnvironment(s Setting) (value, bool, error) {
	if l.options.Lookup == nil {
		return value{}, false, nil
	}
	return s.fromVariables(variables{
		lookup: func(name string) (entry, bool) {
			text, ok := l.options.Lookup(name)
			return entry{text: text}, ok
		},
		kind:  FromEnvironment,
		place: func(name string, _ entry) string { return "environment variable " + name },
		short: func(name string, _ entry) string { return name },
		fix:   "; correct or unset it where this process or its container is started",
	})
}

func (l *loader) fromDotenv(s Setting) (value, bool, error) {
	if s.Key == "" {
		return value{}, false, nil
	}
	return s.fromVariables(variables{
		lookup: func(name string) (entry, bool) { e, ok := l.dotenv[name]; return e, ok },
		kind:   FromDotenv,
		place:  func(name string, e entry) string { return e.where(l.path(dotenvName)) + ": " + name },
		short:  func(_ string, e entry) string { return e.where(dotenvName) },
	})
}

func (l *loader) fromYAML(s Setting) (value, bool, error) {
	e, ok := l.yaml[s.Key]
	if !ok || s.Key == "" || e.text == "" && !s.takesEmpty() {
		return value{}, false, nil
	}
	text, err := s.checkYAML(e.text)
	if err != nil {
		return value{}, false, exitcode.With(exitcode.Config, fmt.Errorf("%s: %s: %w", e.where(l.path(yamlName)), s.Key, err))
	}
	return value{text: text, source: Source{FromFile, e.where(yamlName)}, secret: s.Secret}, true, nil
}
