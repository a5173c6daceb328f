package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// Every refusal is one line that says what happened and what to do; never a
// stack trace.
func TestRefusalsOfTheCommandLine(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	for _, tc := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"gateway", "run", "--no-supervize"}, 2, "--no-supervise"},
		{[]string{"gatway"}, 2, "gateway"},
		{[]string{"gateway", "strat"}, 2, "start"},
		{[]string{"-p", "nobody", "gateway", "start"}, 3, "hermes profile create nobody"},
		{[]string{"-p", "nobody", "chat", "hi"}, 3, "hermes profile create nobody"},
		{[]string{"-p", "../etc", "gateway", "status"}, 2, "../etc"},
		{[]string{"gateway", "status", "-o", "xml"}, 2, "json"},
	} {
		r := c.exec(append([]string{"hermes"}, tc.args...)...)
		if r.code != tc.code || !strings.Contains(r.stderr, tc.want) {
			t.Errorf("hermes %q exits %d, want %d, and says, without %q: %s", tc.args, r.code, tc.code, tc.want, r.both())
		}
		if n := strings.Count(strings.TrimSpace(r.stderr), "\n"); n > 0 || strings.Contains(r.stderr, "goroutine") {
			t.Errorf("hermes %q says more than one line: %s", tc.args, r.stderr)
		}
	}
	c.wantService("gateway-default", "ready", "up")
}

func TestUnknownProfileAsMainProgram(t *testing.T) {
	parallel(t)
	r := runToEnd(t, spec{cmd: []string{"-p", "nobody", "gateway", "run"}})
	if r.code != 3 || !strings.Contains(r.both(), "hermes profile create nobody") {
		t.Errorf("-p nobody gateway run exits %d, want 3: %s", r.code, r.both())
	}
}

func TestProfileAsMainProgram(t *testing.T) {
	parallel(t)
	data := []string{"-v", volume(t) + ":/opt/data"}
	if r := runToEnd(t, spec{flags: data, cmd: []string{"profile", "create", "work"}}); r.code != 0 {
		t.Fatalf("profile create exits %d: %s", r.code, r.both())
	}
	c := start(t, spec{flags: data, cmd: []string{"-p", "work", "gateway", "run"}})
	c.waitState("gateway-work", "ready")
	c.only("hermes", "-p", "work", "gateway", "run", "--replace")
	if g := c.gateways(); len(g) != 1 {
		t.Errorf("one profile was asked for, there are %v", g)
	}
}

// All keys are always there; unknown is null.
func TestStatusHasEveryKey(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	var report struct {
		Schema   int              `json:"schema"`
		Manager  string           `json:"manager"`
		Services []map[string]any `json:"services"`
	}
	text := c.mustExec("hermes", "gateway", "status", "--all", "-o", "json")
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if report.Schema != 1 || report.Manager != "s6" || len(report.Services) < 2 {
		t.Errorf("the report is %s", text)
	}
	for _, row := range report.Services {
		for _, name := range []string{
			"name", "kind", "profile", "state", "want", "since", "pid", "restarts", "requested_restarts", "memory_bytes",
			"reason", "until", "holder", "last_exit", "platforms",
		} {
			if _, ok := row[name]; !ok {
				t.Errorf("the row of %v lacks %q", row["name"], name)
			}
		}
	}
}

func TestLogsAreKeptAndShown(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	until(t, "the gateway's log has its readiness", func() error {
		if r := c.exec("hermes", "gateway", "logs", "-n", "50"); r.code != 0 || !strings.Contains(r.stdout, "gateway ready") {
			return errorOf(r)
		}
		return nil
	})
	if !strings.Contains(c.logs(), "[default] ") {
		t.Errorf("docker logs does not say who speaks:\n%s", c.logs())
	}
}

// Any user of the container finds the same tree, also with a bare environment.
func TestEveryoneFindsTheLiveTree(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	for _, user := range []string{"0", "10000:10000", "10000:0"} {
		r := docker(t, "exec", "-u", user, c.name, "env", "-i", "/usr/local/bin/hermes", "gateway", "status")
		if r.code != 0 || !strings.Contains(r.stdout, "ready") {
			t.Errorf("as %s status exits %d: %s", user, r.code, r.both())
		}
	}
	r := docker(t, "exec", "-u", "4242", c.name, "hermes", "gateway", "stop")
	if r.code == 0 {
		t.Error("a stranger's uid stopped the gateway")
	}
	c.wantService("gateway-default", "ready", "up")
}

func TestVersion(t *testing.T) {
	parallel(t)
	r := runToEnd(t, spec{cmd: []string{"version", "-o", "json"}})
	var v struct {
		Version, Commit, Go, OS, Arch string
	}
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || v.Version == "" || v.OS != "linux" || v.Go == "" {
		t.Errorf("version says %s (%v)", r.both(), err)
	}
}
