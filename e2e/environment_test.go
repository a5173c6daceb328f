package e2e

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// show-env tells what a gateway sees and from where: names, never values. What
// belongs to another profile is withheld, and so it is from the process.
func TestShowEnvTellsNamesNeverValues(t *testing.T) {
	parallel(t)
	// Whatever has a value here has sesame in it, or is the port.
	secretFile := script(t, "sesame-file\n")
	c := gateway(t, spec{
		flags: []string{"-v", secretFile + ":/run/model-key:ro"},
		env: []string{
			"API_SERVER_KEY=sesame-key", "API_SERVER_PORT=8643", "HERMES_MODEL_API_KEY_FILE=/run/model-key", "SOME_TOKEN=sesame-token",
			"HERMES_NOTIFY_WEBHOOK_SECRET=sesame-notify", "PLAIN=sesame-plain",
		},
	})
	c.mustExec("sh", "-c", "echo IRC_SASL_PASSWORD=sesame-dotenv >>/opt/data/.env")
	c.mustExec("hermes", "profile", "create", "work")
	c.mustExec("sh", "-c", "printf 'HERMES_MODEL_API_KEY=sesame-work\\nHERMES_RETENTION_DAYS=4711\\n' >>/opt/data/profiles/work/.env")
	c.mustExec("hermes", "-p", "work", "gateway", "start")

	const elsewhere = "withheld"
	for profile, want := range map[string]map[string]string{
		"default": {
			"API_SERVER_KEY": "container", "API_SERVER_PORT": "container", "SOME_TOKEN": "container", "PLAIN": "container",
			"HERMES_MODEL_API_KEY": "_FILE", "IRC_SASL_PASSWORD": ".env", "HERMES_RETENTION_DAYS": "default", "HERMES_SLOT": "slot",
			"HERMES_NOTIFY_WEBHOOK_SECRET": elsewhere,
		},
		"work": {
			"API_SERVER_KEY": elsewhere, "API_SERVER_PORT": ".env", "SOME_TOKEN": elsewhere, "PLAIN": "container",
			"HERMES_MODEL_API_KEY": ".env", "HERMES_MODEL_API_KEY_FILE": elsewhere, "IRC_SASL_PASSWORD": "default", "HERMES_RETENTION_DAYS": ".env",
			"HERMES_SLOT": "slot", "HERMES_NOTIFY_WEBHOOK_SECRET": elsewhere,
		},
	} {
		text := c.mustExec("hermes", "-p", profile, "gateway", "show-env")
		asJSON := c.mustExec("hermes", "-p", profile, "gateway", "show-env", "-o", "json")
		for _, value := range []string{"sesame", "4711", "8643", "8645"} {
			if strings.Contains(text, value) || strings.Contains(asJSON, value) {
				t.Errorf("%s: the value %q is shown:\n%s\n%s", profile, value, text, asJSON)
			}
		}
		sources, withheld := shownEnv(t, asJSON, profile)
		for name, source := range want {
			inText := "(?m)^" + name + ` +` + regexp.QuoteMeta(source) + `( \(.+\))?$`
			if source == elsewhere {
				inText = "(?m)^" + name + ` +withheld: .+$`
			}
			if !regexp.MustCompile(inText).MatchString(text) {
				t.Errorf("%s: %s should come from %s:\n%s", profile, name, source, text)
			}
			got := sources[name]
			if reason := withheld[name]; source == elsewhere && reason != "" && (got == "" || got == "default") {
				continue
			}
			if got != source {
				t.Errorf("%s: %s comes from %q in JSON and is withheld for %q, want %s", profile, name, got, withheld[name], source)
			}
		}
	}

	row := c.waitState("gateway-work", "ready")
	environ := c.environ(*row.PID)
	if strings.Contains(environ, "sesame-key") || strings.Contains(environ, "sesame-token") || strings.Contains(environ, "API_SERVER_PORT") ||
		strings.Contains(environ, "/run/model-key") || !strings.Contains(environ, "PLAIN=sesame-plain") {
		t.Errorf("the environment of gateway-work is %q", environ)
	}
	if environ := c.environ(c.gatewayPID()); strings.Contains(environ, "sesame-notify") || !strings.Contains(environ, "SOME_TOKEN=sesame-token") {
		t.Errorf("the environment of gateway-default is %q", environ)
	}
}

// shownEnv reads the JSON of show-env: sources and reasons by name.
func shownEnv(t *testing.T, text, profile string) (sources, withheld map[string]string) {
	t.Helper()
	var shown struct {
		Schema    int
		Profile   string
		Variables []struct{ Name, Source, Where string }
		Withheld  []struct{ Name, Reason string }
	}
	if err := json.Unmarshal([]byte(text), &shown); err != nil || shown.Schema != 1 || shown.Profile != profile {
		t.Fatalf("show-env of %s is %v in %s", profile, err, text)
	}
	sources, withheld = map[string]string{}, map[string]string{}
	for _, v := range shown.Variables {
		sources[v.Name] = v.Source
	}
	for _, v := range shown.Withheld {
		withheld[v.Name] = v.Reason
	}
	return sources, withheld
}

// environ is the environment of a process of the service user.
func (c *container) environ(pid int) string {
	c.t.Helper()
	return mustDocker(c.t, "exec", "-u", "10000:10000", c.name, "cat", "/proc/"+strconv.Itoa(pid)+"/environ")
}
