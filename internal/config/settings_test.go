package config_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/config"
)

func TestDefaultsOfWhatAnswersAndWhoMayAsk(t *testing.T) {
	c := load(t, config.Options{Home: t.TempDir()})
	m := c.Model()
	if m.ContextTokens != 16000 || m.Timeout != 10*time.Minute || m.Retries != 4 || m.Fallback.Provider != "" {
		t.Errorf("Model() = %+v", m)
	}
	for name, pair := range map[string][2]any{
		"Limits":    {c.Limits(), config.Limits{Running: 512, Queued: 10000, MessageBytes: 1 << 20, AnswerBytes: 1 << 20}},
		"Chat":      {c.Chat(), config.Chat{Busy: config.BusyQueue}},
		"Retention": {c.Retention(), config.Retention{MaxBytes: 1 << 30}},
		"Access":    {c.Access(), config.Access{Pairing: true}},
		"IRC":       {c.IRC(), config.IRC{TLS: true, Nick: "hermes"}},
		"Webhook":   {c.Webhook(), config.Webhook{Window: 5 * time.Minute}},
		"requests":  {c.API().Requests, 1024},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s = %+v, want %+v", name, pair[0], pair[1])
		}
	}
	if len(c.Warnings) != 0 {
		t.Errorf("warnings of nothing: %q", c.Warnings)
	}
}

// A default is written as the value would be, so that nobody needs two forms.
func TestDefaultsAreValues(t *testing.T) {
	for _, s := range config.Settings() {
		if s.Default == "" {
			continue
		}
		c := load(t, config.Options{Home: t.TempDir(), Part: true, Lookup: environment(map[string]string{s.Env: s.Default})})
		if got, source := c.Value(s.Name()); got != s.Default || source.Kind != config.FromEnvironment {
			t.Errorf("the default %q of %s is read as %q", s.Default, s.Name(), got)
		}
	}
}

func TestListsAndSizes(t *testing.T) {
	dir := home(t, map[string]string{
		"config.yaml": "irc:\n  server: irc.example.org\n  channels:\n  - '#help'\n  - \"#talk\"\n  - '#help'\naccess:\n  allow: irc:account:alice , irc:account:bob,,\n  admins: []\nlimits: {message_bytes: 65536, answer_bytes: 2 MiB}\n",
	})
	c := load(t, config.Options{Home: dir, Lookup: environment(map[string]string{"HERMES_ACCESS_ADMINS": "", "IRC_ALLOW": " account:a, ann!~ann@2001:db8::1 "})})
	if got := c.IRC(); !slices.Equal(got.Channels, []string{"#help", "#talk"}) || !slices.Equal(got.Allow, []string{"account:a", "ann!~ann@2001:db8::1"}) {
		t.Errorf("IRC() = %+v", got)
	}
	if got := c.Access(); !slices.Equal(got.Allow, []string{"irc:account:alice", "irc:account:bob"}) || got.Admins != nil {
		t.Errorf("Access() = %+v", got)
	}
	if got := c.Limits(); got.MessageBytes != 64<<10 || got.AnswerBytes != 2<<20 {
		t.Errorf("Limits() = %+v", got)
	}
	if text, _ := c.Value("limits.message_bytes"); text != "64KiB" {
		t.Errorf("a size prints as %q", text)
	}
}

func TestWhatASettingRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"irc: {channels: [help]}":                `config.yaml:1:18: irc.channels: expected a channel such as #help, got "help"`,
		"irc:\n  channels:\n  - '#a'\n  - #b\n":  "config.yaml:4:5: irc.channels: expected a channel such as #help, found an empty item; quote one that begins with #, as in '#help'",
		"irc: {channels: ['#a,#b']}":             "config.yaml:1:18: irc.channels: expected a channel such as #help, found a comma in it",
		"irc: {channels: [[a]]}":                 "config.yaml:1:18: irc.channels: expected a single value, found a list",
		"irc: {nick: [a]}":                       "config.yaml:1:13: irc.nick: expected a single value, found a list",
		"irc: {nick: 'a b'}":                     `config.yaml:1:13: irc.nick: expected a nick name, got "a b"`,
		"irc: {nick: 1a}":                        `config.yaml:1:13: irc.nick: expected a nick name`,
		"irc: {realname: \"a\\nQUIT\"}":          "config.yaml:1:17: irc.realname: expected text without control characters",
		"irc: {password: \"sesame\\r\\nQUIT\"}":  "config.yaml:1:17: irc.password: expected text without control characters",
		"irc: {server: 'http://x'}":              "config.yaml:1:15: irc.server: expected a host or host:port",
		"irc: {tls: ture}":                       `config.yaml:1:12: irc.tls: expected true or false, got "ture"`,
		"irc: {ca_file: ca.pem}":                 "config.yaml:1:16: irc.ca_file: expected an absolute path",
		"access: {allow: [alice]}":               `config.yaml:1:18: access.allow: expected an id such as irc:account:alice or irc:nick!user@host, or * for everybody, got "alice"`,
		"access: {allow: 'irc:account:a, bob'}":  `config.yaml:1:17: access.allow: expected an id such as irc:account:alice or irc:nick!user@host, or * for everybody, got "bob"`,
		"access: {allow: ['telegram:5']}":        `config.yaml:1:18: access.allow: expected an id such as irc:account:alice or irc:nick!user@host`,
		"access: {admins: 'irc:account:a,*'}":    `config.yaml:1:18: access.admins: expected an id such as irc:account:alice or irc:nick!user@host, got "*"`,
		"irc: {allow: ['irc:account:a']}":        `config.yaml:1:15: irc.allow: expected an id such as account:alice or nick!user@host`,
		"irc: {allow: ['*!*@example.org']}":      `config.yaml:1:15: irc.allow: expected an id such as account:alice or nick!user@host`,
		"irc: {server: 'h:99999'}":               "config.yaml:1:15: irc.server: expected a host or host:port",
		"irc: {server: 'h:'}":                    "config.yaml:1:15: irc.server: expected a host or host:port",
		"limits: {message_bytes: 1MB}":           `config.yaml:1:25: limits.message_bytes: expected a number of bytes such as 65536, 64KiB or 1MiB, got "1MB"`,
		"limits: {message_bytes: 9999999999GiB}": `config.yaml:1:25: limits.message_bytes: expected a number of bytes such as`,
		"limits: {message_bytes: 5}":             `config.yaml:1:25: limits.message_bytes: expected a number of bytes from 1KiB to 1GiB, got "5"`,
		"limits: {running: 0}":                   `config.yaml:1:19: limits.running: expected a whole number of at least 1, got "0"`,
		"model: {context_tokens: 511}":           `config.yaml:1:25: model.context_tokens: expected a whole number of at least 512, got "511"`,
		"model: {retries: 101}":                  `config.yaml:1:18: model.retries: expected a whole number from 0 to 100, got "101"`,
		"model: {timeout: 5ms}":                  `config.yaml:1:18: model.timeout: expected a duration of at least 1s, got "5ms"`,
		"chat: {merge_window: 6s}":               `config.yaml:1:22: chat.merge_window: expected a duration from 0s to 5s, got "6s"`,
		"chat: {busy: drop}":                     `config.yaml:1:14: chat.busy: expected one of queue, interrupt, got "drop"`,
		"irc: {sasl_password: sesame}":           "config.yaml:1:22: irc.sasl_password: it needs irc.sasl_user beside it",
		"model: {fallback: {provider: openai}}":  "config.yaml:1:30: model.fallback.provider: the provider openai needs model.fallback.name beside it",
	} {
		dir := home(t, map[string]string{"config.yaml": text})
		_, err := config.Load(config.Options{Home: dir})
		if err == nil {
			t.Errorf("%q loads", text)
		} else if !strings.HasPrefix(err.Error(), dir+"/"+want) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestServersOfIRC(t *testing.T) {
	for _, server := range []string{"h", "irc.example.org:6697", "192.0.2.1:65535", "::1", "2001:db8::1", "[::1]", "[fe80::1%eth0]:6667"} {
		c := load(t, config.Options{Home: t.TempDir(), Lookup: environment(map[string]string{"IRC_SERVER": server, "HERMES_ACCESS_ALLOW": "irc:ann!~ann@localhost"})})
		if got := c.IRC().Server; got != server {
			t.Errorf("%q is read as %q", server, got)
		}
	}
}

// Neither an empty variable nor a typo takes a protection away.
func TestStrictBooleans(t *testing.T) {
	for _, name := range []string{"IRC_TLS", "HERMES_ACCESS_PAIRING"} {
		c := load(t, config.Options{Home: t.TempDir(), Lookup: environment(map[string]string{name: ""})})
		if !c.IRC().TLS || !c.Access().Pairing {
			t.Errorf("an empty %s means no", name)
		}
		_, err := config.Load(config.Options{Home: t.TempDir(), Lookup: environment(map[string]string{name: "ture"})})
		if err == nil || !strings.Contains(err.Error(), name+": expected true or false") {
			t.Errorf("%s=ture: %v", name, err)
		}
	}
	c := load(t, config.Options{Home: t.TempDir(), Lookup: environment(map[string]string{"IRC_TLS": "no"})})
	if c.IRC().TLS {
		t.Error("IRC_TLS=no has no effect")
	}
}

func TestDangerousSettingsWarn(t *testing.T) {
	for text, want := range map[string]string{
		"access: {allow: ['*']}":                      "config.yaml:1:17: access.allow: * lets EVERYBODY talk",
		"irc: {server: h, allow: '*'}":                "config.yaml:1:25: irc.allow: * lets EVERYBODY on IRC",
		"irc: {channels: ['#a']}":                     "config.yaml:1:17: irc.channels: it has no effect without irc.server",
		"irc: {sasl_user: me}":                        "config.yaml:1:18: irc.sasl_user: it has no effect without irc.sasl_password",
		"irc: {ca_file: /ca, tls: false}":             "config.yaml:1:16: irc.ca_file: it has no effect while irc.tls is false",
		"model: {fallback: {name: x}}":                "config.yaml:1:26: model.fallback.name: it has no effect without model.fallback.provider",
		"model: {fallback: {api_key: sesame}}":        "config.yaml:1:29: model.fallback.api_key: it has no effect without",
		"model: {fallback: {base_url: 'http://h/'}}":  "config.yaml:1:30: model.fallback.base_url: it has no effect without",
		"irc: {server: h, tls: false, password: pw}":  "config.yaml:1:23: irc.tls: the passwords of irc are sent without encryption",
		"irc: {server: h, tls: true, password: pw}":   "",
		"access: {allow: ['irc:account:a']}":          "",
		"irc: {server: h, tls: no, channels: ['#a']}": "",
	} {
		dir := home(t, map[string]string{"config.yaml": text})
		c := load(t, config.Options{Home: dir})
		got := strings.Join(c.Warnings, "\n")
		if (want == "") != (got == "") || want != "" && (len(c.Warnings) != 1 || !strings.HasPrefix(got, dir+"/"+want)) {
			t.Errorf("%q warns %q, want %q", text, got, want)
		}
	}
}

// Whoever sees part of the settings does not judge what fits what: a dashboard
// is not kept from starting by what the gateway's environment completes.
func TestPartDoesNotHoldSettingsAgainstEachOther(t *testing.T) {
	dir := home(t, map[string]string{".env": "IRC_SASL_PASSWORD=x\n"})
	if _, err := config.Load(config.Options{Home: dir}); err == nil || !strings.Contains(err.Error(), ".env:1: IRC_SASL_PASSWORD: it needs irc.sasl_user") {
		t.Errorf("the whole: %v", err)
	}
	load(t, config.Options{Home: dir, Part: true})
}

// What the predecessor left and does not fit is named, and the default counts.
func TestRulesForgiveAnInheritedHome(t *testing.T) {
	dir := home(t, map[string]string{"SOUL.md": "", ".env": "HERMES_MODEL_FALLBACK_PROVIDER=openai\n"})
	c := load(t, config.Options{Home: dir})
	if c.Model().Fallback.Provider != "" || !strings.Contains(strings.Join(c.Warnings, "\n"), "needs model.fallback.name beside it") {
		t.Errorf("%+v %q", c.Model(), c.Warnings)
	}
}

// Everything that a gateway is told belongs to one profile: what the container
// says for the main program's must not reach another. Logs are for all.
func TestSettingsOfAProfileReachNoOther(t *testing.T) {
	for _, s := range config.Settings() {
		shared := s.Key == "" || strings.HasPrefix(s.Key, "log.") || s.Global()
		if s.PerProfile == shared {
			t.Errorf("%s: PerProfile is %v", s.Name(), s.PerProfile)
		}
		for _, name := range s.Names() {
			if kept := config.StripForeign([]string{name + "=x"}); (shared && !s.Secret) != (len(kept) == 1) {
				t.Errorf("%s: another profile's gateway gets %v", name, kept)
			}
		}
	}
}
