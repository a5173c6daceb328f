package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/config"
)

// What an existing home says in another way is named and never an error.
func TestInheritedHomeLoads(t *testing.T) {
	dir := home(t, map[string]string{
		"gateway_state.json": "{}",
		"config.yaml":        "_config_version: 50\nmodel:\n  default: house/model\n  provider: Ollama\n  base_url: http://127.0.0.1:11434/v1\n  context_length: 5\nlog: loud\napi_server: {port: [1]}\nagent: {max_turns: 60}\ndashboard: {port: many}\n",
		".env":               "API_SERVER_HOST=::1\nno assignment\nTELEGRAM_BOT_TOKEN=s3cret\nHERMES_HOME=/x\nHERMES_LOG_LEVEL=shout\nA='open\nAPI_SERVER_KEY=k\n",
	})
	c := load(t, config.Options{Home: dir})
	if m := c.Model(); m.Provider != "openai" || m.Name != "house/model" || m.BaseURL != "http://127.0.0.1:11434/v1" {
		t.Errorf("Model() = %+v", m)
	}
	if a := c.API(); a.Host != "::1" || a.Port != 8642 || a.Key.Reveal() != "k" {
		t.Errorf("API() = %+v", a)
	}
	if c.Dashboard().Port != 9119 || c.Log().Level.String() != "INFO" {
		t.Errorf("%+v %+v", c.Dashboard(), c.Log())
	}
	got := strings.ReplaceAll(strings.Join(c.Warnings, "\n"), dir+"/", "")
	for _, want := range []string{
		".env:2: expected NAME=value; the line is ignored",
		".env:6: A: expected a closing '; the line is ignored",
		".env: not settings of hermes, and not used: HERMES_HOME, TELEGRAM_BOT_TOKEN",
		"config.yaml: not settings of hermes, and not used: _config_version, agent, model.context_length",
		"config.yaml:7:6: log: expected a mapping of settings (name: value), found a single value; it is ignored",
		"config.yaml:8:20: api_server.port: expected a single value, found a list; it is ignored",
		`config.yaml:10:19: dashboard.port: expected a port from 0 to 65535 (0: any free one), got "many"; dashboard.port stays at its default "9119"`,
		`.env:5: HERMES_LOG_LEVEL: expected one of debug, info, warn, error, got "shout"; log.level stays at its default "info"`,
	} {
		if !strings.Contains("\n"+got+"\n", "\n"+want+"\n") {
			t.Errorf("no warning %q in:\n%s", want, got)
		}
	}
	if len(c.Warnings) != 8 || strings.Contains(got, "s3cret") {
		t.Errorf("%d warnings:\n%s", len(c.Warnings), got)
	}
}

// A provider that hermes does not know leaves the offline model, and says so.
func TestInheritedProviderThatIsUnknown(t *testing.T) {
	dir := home(t, map[string]string{"SOUL.md": "", "config.yaml": "model: {provider: auto, default: a/b}\n"})
	c := load(t, config.Options{Home: dir})
	if m := c.Model(); m.Provider != "offline" || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], `got "auto"; model.provider stays at its default "offline"`) {
		t.Errorf("%+v: %q", m, c.Warnings)
	}
}

// Without a trace of the predecessor the same files are wrong, as ever; with
// one, a secret that cannot be read still is.
func TestWhatAnInheritedHomeDoesNotForgive(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"own home":            {"config.yaml": "model: {provider: auto}\n"},
		"own .env":            {".env": "no assignment\n"},
		"key of a shape":      {"SOUL.md": "", "config.yaml": "api_server: {key: [a]}\n"},
		"key file is missing": {"SOUL.md": "", ".env": "API_SERVER_KEY_FILE=/nonexistent/key\n"},
		"no YAML at all":      {"SOUL.md": "", "config.yaml": "a: [\n"},
	} {
		if _, err := config.Load(config.Options{Home: home(t, files)}); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
	dir := home(t, map[string]string{"SOUL.md": ""})
	if _, err := config.Load(config.Options{Home: dir, Lookup: environment(map[string]string{"API_SERVER_PORT": "many"})}); err == nil {
		t.Error("a wrong variable of the environment was forgiven")
	}
}

// What hermes makes up goes into a file of its own there, and counts after .env.
func TestMadeUpSettingsLeaveAnInheritedDotenvAlone(t *testing.T) {
	const theirs = "no assignment\nTELEGRAM_BOT_TOKEN=x\n"
	dir := home(t, map[string]string{"SOUL.md": "", ".env": theirs})
	port, err := config.EnsureAPIPort(dir, func(port int) bool { return port == 8643 })
	if err != nil || port != 8644 {
		t.Fatalf("port %d, %v", port, err)
	}
	key, created, err := config.EnsureAPIKey(dir)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	if again, created, err := config.EnsureAPIKey(dir); created || err != nil || !again.Equal(key.Reveal()) {
		t.Errorf("a second key: %v %v", created, err)
	}
	c := load(t, config.Options{Home: dir})
	if text, source := c.Value("api_server.port"); text != "8644" || source.Where != "hermes.env:1" || !c.API().Key.Equal(key.Reveal()) {
		t.Errorf("port %s from %+v", text, source)
	}
	if ports := config.ClaimedPorts(dir); len(ports) != 1 || ports[0] != 8644 {
		t.Errorf("claims %v", ports)
	}
	if data, err := os.ReadFile(filepath.Join(dir, ".env")); err != nil || string(data) != theirs {
		t.Errorf(".env holds %q, %v", data, err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "hermes.env")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("hermes.env: %v, %v", fi, err)
	}
}
