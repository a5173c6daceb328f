package config_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/exitcode"
	"pgregory.net/rapid"
)

// home makes a profile's home with the given files.
func home(t interface{ TempDir() string }, files map[string]string) string {
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			panic(err)
		}
	}
	return dir
}

func environment(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

func load(t *testing.T, o config.Options) *config.Config {
	t.Helper()
	c, err := config.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := load(t, config.Options{Home: t.TempDir()})
	if got := c.API(); got.Host != "127.0.0.1" || got.Port != 8642 || got.Key.IsSet() {
		t.Errorf("API() = %+v", got)
	}
	if got := c.Dashboard(); got.Enabled || got.Host != "127.0.0.1" || got.Port != 9119 || got.Username != "" || got.Password.IsSet() {
		t.Errorf("Dashboard() = %+v", got)
	}
	if got := c.Model(); got.Provider != "offline" || got.Delay != 0 {
		t.Errorf("Model() = %+v", got)
	}
	if got := c.Log(); got.Format != "text" || got.Level != slog.LevelInfo {
		t.Errorf("Log() = %+v", got)
	}
	if got := c.Int("HERMES_STOP_TIMEOUT"); got != 9 {
		t.Errorf("HERMES_STOP_TIMEOUT = %d, want 9", got)
	}
	if _, source := c.Value("api_server.port"); source != (config.Source{Kind: config.FromDefault}) {
		t.Errorf("source of a default = %+v", source)
	}
}

func TestEverySourceAndItsPlace(t *testing.T) {
	dir := home(t, map[string]string{
		".env":        "# keys\nAPI_SERVER_PORT=3\nHERMES_MODEL_NAME=dot\nHERMES_MODEL_API_KEY=sk-1\n",
		"config.yaml": "api_server:\n  port: 4\n  host: 0.0.0.0\nmodel:\n  name: yaml\n  delay: 1500ms\n  provider: OpenAI\ndashboard: {enabled: true}\n",
	})
	c := load(t, config.Options{
		Home:   dir,
		Lookup: environment(map[string]string{"API_SERVER_PORT": "2", "HERMES_LOG_LEVEL": "WARN", "PUID": "1000"}),
		Flags:  map[string]string{"api_server.port": "1"},
	})
	for name, want := range map[string]struct {
		text   string
		source config.Source
	}{
		"api_server.port":     {"1", config.Source{Kind: config.FromFlag, Where: "--port"}},
		"api_server.host":     {"0.0.0.0", config.Source{Kind: config.FromFile, Where: "config.yaml:3:9"}},
		"model.name":          {"dot", config.Source{Kind: config.FromDotenv, Where: ".env:3"}},
		"model.delay":         {"1.5s", config.Source{Kind: config.FromFile, Where: "config.yaml:6:10"}},
		"model.provider":      {"openai", config.Source{Kind: config.FromFile, Where: "config.yaml:7:13"}},
		"model.api_key":       {"<redacted>", config.Source{Kind: config.FromDotenv, Where: ".env:4"}},
		"log.level":           {"warn", config.Source{Kind: config.FromEnvironment, Where: "HERMES_LOG_LEVEL"}},
		"HERMES_UID":          {"1000", config.Source{Kind: config.FromEnvironment, Where: "PUID"}},
		"dashboard.enabled":   {"true", config.Source{Kind: config.FromFile, Where: "config.yaml:8:22"}},
		"HERMES_STOP_TIMEOUT": {"9", config.Source{Kind: config.FromDefault}},
	} {
		if text, source := c.Value(name); text != want.text || source != want.source {
			t.Errorf("Value(%s) = %q from %+v, want %q from %+v", name, text, source, want.text, want.source)
		}
	}
	if c.Model().Delay != 1500*time.Millisecond || c.Model().APIKey.Reveal() != "sk-1" || !c.Dashboard().Enabled || c.Log().Level != slog.LevelWarn {
		t.Errorf("typed access differs: %+v %+v %+v", c.Model(), c.Dashboard(), c.Log())
	}
}

// Whatever subset of sources has a setting, the strongest of them wins.
func TestPrecedence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "precedence")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		kinds := []config.SourceKind{config.FromFlag, config.FromEnvironment, config.FromDotenv, config.FromFile}
		want, wantKind := "127.0.0.1", config.FromDefault
		flags, env := map[string]string{}, map[string]string{}
		for i := len(kinds) - 1; i >= 0; i-- {
			if !rapid.Bool().Draw(t, string(kinds[i])) {
				continue
			}
			want, wantKind = fmt.Sprintf("10.0.0.%d", i), kinds[i]
			switch wantKind {
			case config.FromFlag:
				flags["api_server.host"] = want
			case config.FromEnvironment:
				env["API_SERVER_HOST"] = want
			case config.FromDotenv:
				write(t, dir, ".env", "API_SERVER_HOST="+want)
			case config.FromFile:
				write(t, dir, "config.yaml", "api_server: {host: "+want+"}")
			case config.FromDefault:
			}
		}
		c, err := config.Load(config.Options{Home: dir, Lookup: environment(env), Flags: flags})
		if err != nil {
			t.Fatal(err)
		}
		if got, source := c.Value("api_server.host"); got != want || source.Kind != wantKind {
			t.Fatalf("got %q from %q, want %q from %q", got, source.Kind, want, wantKind)
		}
	})
}

func write(t *rapid.T, dir, name, text string) {
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestErrorsSayWhereAndWhatWasExpected(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		env   map[string]string
		flags map[string]string
		want  string // HOME stands for the directory
		code  int
	}{
		"syntax":             {files: map[string]string{"config.yaml": "model:\n  name: [a\n"}, want: "HOME/config.yaml:2:9: expected valid YAML: "},
		"tab":                {files: map[string]string{"config.yaml": "model:\n\tname: a\n"}, want: "HOME/config.yaml:2:1: expected valid YAML: "},
		"duplicate key":      {files: map[string]string{"config.yaml": "log:\n  level: info\n  level: info\n"}, want: "HOME/config.yaml:3:3: expected valid YAML: "},
		"port word":          {files: map[string]string{"config.yaml": "api_server:\n  port: eight\n"}, want: `HOME/config.yaml:2:9: api_server.port: expected a port from 0 to 65535 (0: any free one), got "eight"`},
		"Windows' comments":  {files: map[string]string{"config.yaml": "# one\r\n\r\napi_server: # two\r\n  # three\r\n  port: eight\r\n"}, want: "HOME/config.yaml:5:9: api_server.port: expected a port"},
		"port range":         {files: map[string]string{"config.yaml": "api_server:\n  port: 65536\n"}, want: `HOME/config.yaml:2:9: api_server.port: expected a port from 0 to 65535 (0: any free one), got "65536"`},
		"port list":          {files: map[string]string{"config.yaml": "api_server:\n  port: [1]\n"}, want: "HOME/config.yaml:2:9: api_server.port: expected a single value, found a list"},
		"section scalar":     {files: map[string]string{"config.yaml": "\nmodel: gpt\n"}, want: "HOME/config.yaml:2:8: model: expected a mapping of settings (name: value), found a single value"},
		"top list":           {files: map[string]string{"config.yaml": "- a\n"}, want: "HOME/config.yaml:1:1: expected a mapping of settings (name: value), found a list"},
		"enum":               {files: map[string]string{"config.yaml": "log: {level: loud}\n"}, want: `HOME/config.yaml:1:14: log.level: expected one of debug, info, warn, error, got "loud"`},
		"bool":               {files: map[string]string{"config.yaml": "dashboard:\n  enabled: treu\n"}, want: `HOME/config.yaml:2:12: dashboard.enabled: expected true or false, got "treu"`},
		"duration":           {files: map[string]string{"config.yaml": "model: {delay: 5}\n"}, want: `HOME/config.yaml:1:16: model.delay: expected a duration such as 250ms or 1m30s, got "5"`},
		"negative duration":  {files: map[string]string{"config.yaml": "model: {delay: -5s}\n"}, want: `HOME/config.yaml:1:16: model.delay: expected a duration such as 250ms or 1m30s, got "-5s"`},
		"url":                {files: map[string]string{"config.yaml": "model: {base_url: localhost}\n"}, want: `HOME/config.yaml:1:19: model.base_url: expected an http or https URL, got "localhost"`},
		"two documents":      {files: map[string]string{"config.yaml": "log: {}\n---\nlog: {}\n"}, want: "HOME/config.yaml:3:4: expected one YAML document, found a second"},
		"alias":              {files: map[string]string{"config.yaml": "model: {name: *nope}\n"}, want: "HOME/config.yaml:1:15: "},
		"dotenv":             {files: map[string]string{".env": "A=1\nhunter2\n"}, want: "HOME/.env:2: expected NAME=value"},
		"dotenv quote":       {files: map[string]string{".env": "A=1\nB='hunter2\n"}, want: "HOME/.env:2: B: expected a closing '"},
		"dotenv port":        {files: map[string]string{".env": "\nAPI_SERVER_PORT=x\n"}, want: `HOME/.env:2: API_SERVER_PORT: expected a port from 0 to 65535 (0: any free one), got "x"`},
		"environment":        {env: map[string]string{"API_SERVER_PORT": "-1"}, want: `environment variable API_SERVER_PORT: expected a port from 0 to 65535 (0: any free one), got "-1"; correct or unset it where this process or its container is started`},
		"alias variable":     {env: map[string]string{"PUID": "root"}, want: `environment variable PUID: expected a whole number of at least 1, got "root"; correct or unset it where`},
		"url with password":  {env: map[string]string{"HERMES_MODEL_BASE_URL": "http://u:hunter2@h/"}, want: "environment variable HERMES_MODEL_BASE_URL: expected a URL without user name and password"},
		"flag":               {flags: map[string]string{"dashboard.port": "x"}, want: "--port: expected a port", code: exitcode.Usage},
		"secret file gone":   {env: map[string]string{"API_SERVER_KEY_FILE": "/nonexistent/key"}, want: "environment variable API_SERVER_KEY_FILE: cannot read the secret: open /nonexistent/key: no such file or directory; correct"},
		"secret relative":    {env: map[string]string{"API_SERVER_KEY_FILE": "key"}, want: `environment variable API_SERVER_KEY_FILE: expected an absolute path, got "key"; correct`},
		"secret twice":       {env: map[string]string{"API_SERVER_KEY_FILE": "/k", "API_SERVER_KEY": "hunter2"}, want: "environment variable API_SERVER_KEY_FILE: API_SERVER_KEY is set as well; remove one of the two"},
		"secret huge":        {env: map[string]string{"API_SERVER_KEY_FILE": "/dev/zero"}, want: "environment variable API_SERVER_KEY_FILE: expected a secret of at most 65536 bytes"},
		"secret empty":       {env: map[string]string{"API_SERVER_KEY_FILE": "/dev/null"}, want: `environment variable API_SERVER_KEY_FILE: expected a secret in "/dev/null", found an empty file`},
		"secret twice, .env": {files: map[string]string{".env": "API_SERVER_KEY=hunter2\nAPI_SERVER_KEY_FILE=/k\n"}, want: "HOME/.env:2: API_SERVER_KEY_FILE: API_SERVER_KEY is set as well"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := home(t, tc.files)
			_, err := config.Load(config.Options{Home: dir, Lookup: environment(tc.env), Flags: tc.flags})
			if err == nil {
				t.Fatal("loaded without an error")
			}
			if want := strings.ReplaceAll(tc.want, "HOME", dir); !strings.HasPrefix(err.Error(), want) {
				t.Errorf("error\n %s\nwant\n %s", err, want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error shows a secret or has several lines: %s", err)
			}
			if want := max(tc.code, exitcode.Usage); tc.code == 0 && exitcode.Of(err) != exitcode.Config || tc.code != 0 && exitcode.Of(err) != want {
				t.Errorf("exit code %d", exitcode.Of(err))
			}
		})
	}
}

// A secret may come through a pipe. One that nobody writes to is an error, and no
// command waits for ever.
func TestSecretThroughAPipe(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "key")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(pipe, []byte("sk-1\n"), 0) }() // opens when it is read
	o := config.Options{Home: t.TempDir(), Lookup: environment(map[string]string{"API_SERVER_KEY_FILE": pipe})}
	c, err := config.Load(o)
	if err := errors.Join(err, <-written); err != nil {
		t.Fatal(err)
	}
	if got := c.API().Key.Reveal(); got != "sk-1" {
		t.Errorf("the key is %q", got)
	}
	want := fmt.Sprintf("environment variable API_SERVER_KEY_FILE: cannot read the secret: nobody wrote all of it into %q for 5s", pipe)
	if _, err := config.Load(o); err == nil || !strings.HasPrefix(err.Error(), want) || exitcode.Of(err) != exitcode.Config {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestUnknownKeysWarnWithTheirPlace(t *testing.T) {
	dir := home(t, map[string]string{"config.yaml": "agent:\n  max_turns: 90\nmodel:\n  default: x\n  name: y\n"})
	c := load(t, config.Options{Home: dir})
	want := []string{
		dir + `/config.yaml:1:1: unknown setting "agent" is ignored`,
		dir + `/config.yaml:4:3: unknown setting "model.default" is ignored`,
	}
	if !slices.Equal(c.Warnings, want) {
		t.Errorf("warnings %q, want %q", c.Warnings, want)
	}
	if got := c.Model().Name; got != "y" {
		t.Errorf("model.name = %q beside unknown keys", got)
	}
}

func TestYAMLForms(t *testing.T) {
	for text, want := range map[string]string{
		"model:\n  name: 007\n":                             "007",
		"model:\n  name: true\n":                            "true",
		"model:\n  name: |\n    a b\n":                      "a b",
		"model:\n  name: \"x # y\"\n":                       "x # y",
		"a: &n word\nmodel:\n  name: *n\n":                  "word",
		"base: &b\n  name: deep\nmodel: *b\n":               "deep",
		"model:\n  name: !!str 12\n":                        "12",
		"model:\n  name:\n":                                 "",
		"model:\n":                                          "",
		"":                                                  "",
		"# only a comment\n":                                "",
		"---\nmodel: {name: n}\n":                           "n",
		"\ufeffmodel: {name: bom}\n":                        "bom",
		"model: {name: n}\r\nlog: {level: info}\r\n":        "n",
		"model: {name: n}\n...\n":                           "n",
		"\"model\":\n  'name': q\n":                         "q",
		"model:\n  name: 'it''s'\napi_server:\n  port: '1'": "it's",
	} {
		dir := home(t, map[string]string{"config.yaml": text})
		c, err := config.Load(config.Options{Home: dir})
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := c.Model().Name; got != want {
			t.Errorf("%q: model.name = %q, want %q", text, got, want)
		}
	}
}

// An empty variable is what container tools pass for "not given": it must
// neither break a start nor remove a protection that a lower source holds.
func TestEmptyVariables(t *testing.T) {
	dir := home(t, map[string]string{".env": "API_SERVER_KEY=k\nHERMES_DASHBOARD=1\nHERMES_MODEL_NAME=n\n"})
	c := load(t, config.Options{Home: dir, Lookup: environment(map[string]string{
		"API_SERVER_KEY": "", "API_SERVER_KEY_FILE": "", "API_SERVER_PORT": "", "API_SERVER_HOST": "",
		"HERMES_LOG_LEVEL": "", "HERMES_DASHBOARD": "", "HERMES_MODEL_NAME": "",
	})})
	if api := c.API(); api.Key.Reveal() != "k" || api.Port != 8642 || api.Host != "127.0.0.1" {
		t.Errorf("API() = %+v, key kept: %v", api, api.Key.IsSet())
	}
	if c.Dashboard().Enabled {
		t.Error("an empty HERMES_DASHBOARD must be falsy, not unset")
	}
	if c.Model().Name != "" {
		t.Error("an empty HERMES_MODEL_NAME must override the one in .env")
	}
}

func TestSecretsFromFiles(t *testing.T) {
	for content, want := range map[string]string{"k\n": "k", "k": "k", "k\r\n": "k", "a\nb\n": "a\nb", " k \n": " k "} {
		dir := home(t, map[string]string{"key": content})
		path := filepath.Join(dir, "key")
		c := load(t, config.Options{Home: dir, Lookup: environment(map[string]string{"HERMES_DASHBOARD_PASSWORD_FILE": path})})
		if got := c.Dashboard().Password.Reveal(); got != want {
			t.Errorf("%q: secret %q, want %q", content, got, want)
		}
		if got, source := c.Value("dashboard.password"); got != "<redacted>" || source.Where != "HERMES_DASHBOARD_PASSWORD_FILE" {
			t.Errorf("Value = %q from %+v", got, source)
		}
		if all := fmt.Sprintf("%v %+v %#v", c.Dashboard(), c.Dashboard(), c.Dashboard()); !strings.Contains(all, "redacted") {
			t.Errorf("printed: %s", all)
		}
	}
}

// Every secret has its _FILE form: none is forgotten when one is added.
func TestEverySecretHasAFileForm(t *testing.T) {
	found := 0
	for _, s := range config.Settings() {
		if !s.Secret {
			continue
		}
		found++
		dir := home(t, map[string]string{"key": "https://from-file\n"})
		c := load(t, config.Options{Home: dir, Part: true, Lookup: environment(map[string]string{s.Env + "_FILE": filepath.Join(dir, "key")})})
		if _, source := c.Value(s.Name()); source.Where != s.Env+"_FILE" {
			t.Errorf("%s came from %+v", s.Env, source)
		}
	}
	if found < 3 {
		t.Errorf("only %d secrets in the table", found)
	}
}

// A webhook's URL is a secret, so what is wrong with it is said without it,
// wherever it stands.
func TestSecretURLIsNeverRepeated(t *testing.T) {
	const url = "hooks.example/sesame"
	dir := home(t, map[string]string{"key": url})
	for name, o := range map[string]config.Options{
		"environment": {Lookup: environment(map[string]string{"HERMES_NOTIFY_WEBHOOK_URL": url})},
		"file":        {Lookup: environment(map[string]string{"HERMES_NOTIFY_WEBHOOK_URL_FILE": filepath.Join(dir, "key")})},
		".env":        {Home: home(t, map[string]string{".env": "HERMES_NOTIFY_WEBHOOK_URL=" + url})},
		"config.yaml": {Home: home(t, map[string]string{"config.yaml": "notify:\n  webhook_url: " + url + "\n"})},
	} {
		_, err := config.Load(o)
		if err == nil || strings.Contains(err.Error(), "sesame") || !strings.Contains(err.Error(), "expected an http or https URL") {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := load(t, config.Options{Lookup: environment(map[string]string{"HERMES_NOTIFY_WEBHOOK_URL": "https://user:sesame@hooks.example/sesame"})})
	if all := fmt.Sprintf("%v %+v %#v", c.Notify(), c.Notify(), c.Notify()); strings.Contains(all, "sesame") || !strings.HasSuffix(c.Notify().URL.Reveal(), "@hooks.example/sesame") {
		t.Errorf("printed: %s", all)
	}
}

func TestTruthyIsStrict(t *testing.T) {
	for _, yes := range []string{"1", "true", "yes", "TRUE", "Yes", "tRuE"} {
		if !config.Truthy(yes) {
			t.Errorf("Truthy(%q) = false", yes)
		}
	}
	for _, no := range []string{"", "0", "no", "off", "false", " 1", "1 ", "y", "t", "on", "ture", "yess", "2", "\u0131", "\n"} {
		if config.Truthy(no) {
			t.Errorf("Truthy(%q) = true", no)
		}
	}
}

func TestStripForeign(t *testing.T) {
	environ := []string{
		"PATH=/bin", "API_SERVER_KEY=k", "API_SERVER_KEY_FILE=/k", "API_SERVER_PORT=1", "API_SERVER_HOST=::",
		"HERMES_MODEL_API_KEY=k", "HERMES_MODEL_API_KEY_FILE=/k", "HERMES_MODEL_NAME=n", "HERMES_LOG_LEVEL=debug", "API_SERVER_KEYS=k", "API_SERVER_PORTS=kept", "weird",
	}
	before := slices.Clone(environ)
	got := config.StripForeign(environ)
	want := []string{"PATH=/bin", "HERMES_LOG_LEVEL=debug", "API_SERVER_PORTS=kept", "weird"}
	if !slices.Equal(got, want) {
		t.Errorf("StripForeign = %q, want %q", got, want)
	}
	if !slices.Equal(environ, before) {
		t.Error("StripForeign changed its argument")
	}
}

func TestEnsureAPIKey(t *testing.T) {
	dir := home(t, map[string]string{".env": "# mine\nTOKEN='a\nb'\nAPI_SERVER_KEY="})
	if err := os.Chmod(filepath.Join(dir, ".env"), 0o644); err != nil {
		t.Fatal(err)
	}
	key, created, err := config.EnsureAPIKey(dir)
	if err != nil || !created || !strings.HasPrefix(key.Reveal(), "hk_") || len(key.Reveal()) != 3+43 {
		t.Fatalf("EnsureAPIKey: created %v, %d characters, %v", created, len(key.Reveal()), err)
	}
	data, _ := os.ReadFile(filepath.Join(dir, ".env"))
	if want := "# mine\nTOKEN='a\nb'\nAPI_SERVER_KEY=\nAPI_SERVER_KEY=" + key.Reveal() + "\n"; string(data) != want {
		t.Errorf(".env is now\n%s", data)
	}
	if fi, _ := os.Stat(filepath.Join(dir, ".env")); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	again, created, err := config.EnsureAPIKey(dir)
	if err != nil || created || !again.Equal(key.Reveal()) {
		t.Errorf("second call: created %v, %v, same key %v", created, err, again.Equal(key.Reveal()))
	}
	if c := load(t, config.Options{Home: dir}); !c.API().Key.Equal(key.Reveal()) {
		t.Error("Load does not see the generated key")
	}
}

func TestEnsureAPIKeyInAFreshHome(t *testing.T) {
	first, _, err := config.EnsureAPIKey(t.TempDir())
	second, _, err2 := config.EnsureAPIKey(t.TempDir())
	if err != nil || err2 != nil || first.Equal(second.Reveal()) {
		t.Errorf("two homes: %v %v, equal keys %v", err, err2, first.Equal(second.Reveal()))
	}
}

func TestEnsureAPIKeyLeavesABrokenFileAlone(t *testing.T) {
	dir := home(t, map[string]string{".env": "oops\n"})
	_, _, err := config.EnsureAPIKey(dir)
	if exitcode.Of(err) != exitcode.Config {
		t.Errorf("error %v", err)
	}
	if data, _ := os.ReadFile(filepath.Join(dir, ".env")); string(data) != "oops\n" {
		t.Errorf(".env is now %q", data)
	}
}

func TestEnsureAPIKeyKeepsALink(t *testing.T) {
	dir, elsewhere := t.TempDir(), home(t, map[string]string{"secrets": "A=1\n"})
	if err := os.Symlink(filepath.Join(elsewhere, "secrets"), filepath.Join(dir, ".env")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := config.EnsureAPIKey(dir); err != nil {
		t.Fatal(err)
	}
	if fi, _ := os.Lstat(filepath.Join(dir, ".env")); fi.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced by a file")
	}
}

func TestEnsureAPIPort(t *testing.T) {
	taken := func(port int) bool { return port < 8650 }
	for name, c := range map[string]struct {
		files map[string]string
		want  int
		env   string // .env afterwards
	}{
		"none":        {nil, 8650, "API_SERVER_PORT=8650\n"},
		"kept lines":  {map[string]string{".env": "A=1"}, 8650, "A=1\nAPI_SERVER_PORT=8650\n"},
		"empty":       {map[string]string{".env": "API_SERVER_PORT=\n"}, 8650, "API_SERVER_PORT=\nAPI_SERVER_PORT=8650\n"},
		".env":        {map[string]string{".env": "API_SERVER_PORT=7\n"}, 7, "API_SERVER_PORT=7\n"},
		"any port":    {map[string]string{".env": "API_SERVER_PORT=0\n"}, 0, "API_SERVER_PORT=0\n"},
		"config.yaml": {map[string]string{"config.yaml": "api_server: {port: 8643}"}, 8643, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := home(t, c.files)
			for range 2 { // what is assigned is kept
				if got, err := config.EnsureAPIPort(dir, taken); got != c.want || err != nil {
					t.Errorf("port %d, %v; want %d", got, err, c.want)
				}
			}
			if data, _ := os.ReadFile(filepath.Join(dir, ".env")); string(data) != c.env {
				t.Errorf(".env is %q, want %q", data, c.env)
			}
		})
	}
	if _, err := config.EnsureAPIPort(t.TempDir(), func(int) bool { return true }); exitcode.Of(err) != exitcode.Config {
		t.Errorf("with every port taken: %v", err)
	}
	if _, err := config.EnsureAPIPort(home(t, map[string]string{".env": "oops\n"}), taken); exitcode.Of(err) != exitcode.Config {
		t.Errorf("with a broken .env: %v", err)
	}
}

func TestClaimedPorts(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []int
	}{
		"nothing":      {nil, nil},
		"both files":   {map[string]string{".env": "HERMES_DASHBOARD_PORT=1\nAPI_SERVER_PORT=2\n", "config.yaml": "api_server: {port: 3}"}, []int{1, 2, 3}},
		"one broken":   {map[string]string{".env": "oops", "config.yaml": "api_server: {port: 3}"}, []int{3}},
		"any, no port": {map[string]string{".env": "API_SERVER_PORT=0\nHERMES_DASHBOARD_PORT=x\n"}, nil},
	} {
		if got := config.ClaimedPorts(home(t, c.files)); !slices.Equal(slices.Sorted(slices.Values(got)), c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := config.DefaultPorts(); !slices.Contains(got, 8642) || !slices.Contains(got, 9119) {
		t.Errorf("the ports of the defaults are %v", got)
	}
}

// The table has no two rows of one name, and every row can be documented.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range config.Settings() {
		for _, name := range append(s.Names(), s.Key) {
			if name != "" && seen[name] {
				t.Errorf("%s stands twice in the table", name)
			}
			seen[name] = true
		}
		if s.Doc == "" || !strings.HasSuffix(s.Doc, ".") || s.Env == "" {
			t.Errorf("%s lacks a sentence or a variable", s.Name())
		}
		if s.Secret && s.PerProfile == (s.Viewer != "") {
			t.Errorf("%s is a secret of nobody, or of two: nothing withholds it", s.Name())
		}
		if s.Secret && s.Default != "" || s.Kind == config.Enum && !slices.Contains(s.Values, s.Default) && (s.Default != "" || s.DefaultDoc == "") {
			t.Errorf("%s has a default that cannot be", s.Name())
		}
	}
	want := []string{"API_SERVER_PORT", "HERMES_HOME", "HERMES_RECONCILE", "HERMES_DASHBOARD", "PGID", "HERMES_MODEL_DELAY"}
	for _, name := range want {
		if !seen[name] {
			t.Errorf("%s is not in the table; it has %v", name, slices.Sorted(maps.Keys(seen)))
		}
	}
}
