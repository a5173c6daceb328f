package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/config"
)

// Who sees what of a container's environment.
func TestWithhold(t *testing.T) {
	const (
		own, other, dash, guard = "own", "other", "dashboard", "guard"
	)
	viewers := map[string]config.Viewer{
		own: config.OwningGateway, other: config.OtherGateway, dash: config.DashboardSlot, guard: config.GuardSlot,
	}
	for name, seenBy := range map[string]string{
		"PATH":                           "own other dashboard guard",
		"HERMES_LOG_LEVEL":               "own other dashboard guard",
		"HERMES_DASHBOARD_USERNAME":      "own other dashboard guard",
		"HTTPS_PROXY":                    "own other dashboard guard",
		"KEYBOARD":                       "own other dashboard guard",
		"TOKENS_PER_MINUTE":              "own other dashboard guard",
		"HERMES_DASHBOARD_PASSWORD":      "dashboard",
		"HERMES_DASHBOARD_PASSWORD_FILE": "dashboard",
		"HERMES_NOTIFY_WEBHOOK_URL":      "guard",
		"HERMES_NOTIFY_WEBHOOK_URL_FILE": "guard",
		"HERMES_NOTIFY_WEBHOOK_SECRET":   "guard",
		"API_SERVER_PORT":                "own",
		"API_SERVER_KEY":                 "own",
		"API_SERVER_KEY_FILE":            "own",
		"HERMES_MODEL_API_KEY":           "own",
		"HERMES_MODEL_BASE_URL":          "own",
		"OPENAI_API_KEY":                 "own",
		"TELEGRAM_BOT_TOKEN":             "own",
		"SLACK_TOKEN_FILE":               "own",
		"DB_PASSWORD":                    "own",
		"my_secret":                      "own",
		"AWS_SHARED_CREDENTIALS_FILE":    "own",
		"DBOS__APPID":                    "",
		"DBOS__CLOUD_TOKEN":              "",
	} {
		for who, viewer := range viewers {
			environ := []string{"FIRST=1", name + "=sesame", "weird"}
			kept, withheld := config.Withhold(environ, viewer)
			want := slices.Contains(strings.Fields(seenBy), who)
			if got := slices.Contains(kept, name+"=sesame"); got != want || len(kept)+len(withheld) != len(environ) {
				t.Errorf("%s for %s: %v, want %v", name, who, got, want)
			}
			for _, w := range withheld {
				if w.Name != name || w.Reason == "" || strings.Contains(fmt.Sprint(w), "sesame") {
					t.Errorf("%s for %s: %+v", name, who, w)
				}
			}
		}
	}
}

func TestLook(t *testing.T) {
	dir := home(t, map[string]string{
		".env":        "API_SERVER_KEY=sesame1\nHERMES_MODEL_API_KEY_FILE=/etc/hostname\nEXTRA=sesame2\nHERMES_UID=7\nAPI_SERVER_PORT=8001\n",
		"config.yaml": "model:\n  name: sesame3\n",
	})
	seen, unread, err := config.Look(dir, []string{"FOO=sesame4", "API_SERVER_PORT=", "API_SERVER_HOST=127.0.0.1", "HERMES_HOME=/x", "HERMES_SLOT=y"}, []string{"HERMES_HOME", "HERMES_SLOT"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range seen {
		if got[s.Name] != "" {
			t.Errorf("%s twice", s.Name)
		}
		got[s.Name] = s.Source + "|" + s.Where
	}
	for name, want := range map[string]string{
		"API_SERVER_KEY":       ".env|.env:1",
		"HERMES_MODEL_API_KEY": "_FILE|HERMES_MODEL_API_KEY_FILE in .env:2",
		"HERMES_MODEL_NAME":    "config.yaml|config.yaml:2:9",
		"FOO":                  "container|",
		"API_SERVER_HOST":      "container|",
		"API_SERVER_PORT":      ".env|.env:5", // an empty one counts as not given
		"HERMES_HOME":          "slot|",
		"HERMES_SLOT":          "slot|",
		"HERMES_LOG_LEVEL":     "default|",
		"EXTRA":                "",
		"HERMES_UID":           "",
	} {
		if got[name] != want {
			t.Errorf("%s comes from %q, want %q", name, got[name], want)
		}
	}
	if text := fmt.Sprint(unread); len(unread) != 2 || !strings.Contains(text, "{EXTRA .env:3: no setting") || !strings.Contains(text, "{HERMES_UID .env:4: it is read from") {
		t.Errorf("unread: %s", text)
	}
	if text := fmt.Sprint(seen, unread); strings.Contains(text, "sesame") {
		t.Errorf("a value shows: %s", text)
	}
}
