package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

const (
	breadcrumb = "hermes: gateway is supervised by s6"
	sentinel   = "HERMES_S6_SUPERVISED_CHILD"
)

// wantHeartbeat fails unless the main program became the heartbeat: one
// `sleep infinity`, child of the wrapper, beside one supervised gateway.
func (c *container) wantHeartbeat() {
	c.t.Helper()
	wrapper := c.only("hermes", "boot", "main")
	beat := c.only("sleep", "infinity")
	if beat.ppid != wrapper.pid {
		c.t.Errorf("the heartbeat is %s, not a child of the wrapper %s", beat, wrapper)
	}
	c.wantOneGatewayUnder("s6-supervise")
}

// wantOneGatewayUnder fails unless there is exactly one gateway process and
// its parent's argument vector begins with words.
func (c *container) wantOneGatewayUnder(words ...string) process {
	c.t.Helper()
	gateways := c.gateways()
	if len(gateways) != 1 {
		c.t.Fatalf("%d gateway processes, want one; all processes:\n%s", len(gateways), c.table())
	}
	for _, p := range c.processes() {
		if p.pid == gateways[0].ppid && (len(p.argv) < len(words) || !slices.Equal(p.argv[:len(words)], words)) {
			c.t.Errorf("the gateway's parent is %s, want %q", p, words)
		}
	}
	return gateways[0]
}

func TestRedirectFires(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	c.wantHeartbeat()
	row := c.waitState("gateway-default", "ready")
	if row.Want != "up" || row.Kind != "gateway" || row.Profile == nil || *row.Profile != "default" || row.PID == nil {
		t.Errorf("the slot's row is %s", row)
	}
	if got := c.only("hermes", "gateway", "run", "--replace"); row.PID != nil && *row.PID != got.pid {
		t.Errorf("status says pid %d, the process is %s", *row.PID, got)
	}
	r := docker(t, "logs", c.name)
	if n := strings.Count(r.both(), breadcrumb); n != 1 {
		t.Errorf("the breadcrumb stands %d times in the logs, want once:\n%s", n, r.both())
	}
	if !strings.Contains(r.stderr, breadcrumb) {
		t.Errorf("the breadcrumb is not on stderr: %q", r.stderr)
	}
	for line := range strings.Lines(r.stderr) {
		if strings.Contains(line, breadcrumb) && !(strings.Contains(line, "--no-supervise") && strings.Contains(line, "HERMES_GATEWAY_NO_SUPERVISE=1")) {
			t.Errorf("the line does not say how to opt out: %q", line)
		}
	}
}

func TestNoCommandMeansGatewayRun(t *testing.T) {
	parallel(t)
	c := start(t, spec{})
	c.waitState("gateway-default", "ready")
	c.wantHeartbeat()
}

func TestFlagsReachTheSupervisedGateway(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{cmd: []string{"gateway", "run", "-v"}})
	c.only("hermes", "gateway", "run", "--replace", "-v")
}

func TestRedirectWritesIntentByMainProgram(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	text := c.mustExec("cat", "/opt/data/intent.json")
	for _, want := range []string{`"up"`, `"main-program"`} {
		if !strings.Contains(text, want) {
			t.Errorf("intent.json lacks %s: %s", want, text)
		}
	}
}

// wantForeground fails unless the gateway is the main program itself and its
// slot is not wanted up.
func (c *container) wantForeground() {
	c.t.Helper()
	c.logged("gateway ready")
	c.wantOneGatewayUnder("hermes", "boot", "main")
	if beats := c.find("sleep", "infinity"); len(beats) != 0 {
		c.t.Errorf("there is a heartbeat beside a foreground gateway: %v", beats)
	}
	row, err := c.service("gateway-default")
	if err != nil || row.Want == "up" && row.State != "ready" {
		c.t.Errorf("the row of the foreground gateway is %s, %v", row, err)
	}
	if svstat := c.exec("s6-svstat", "-o", "up,wantedup", "/run/service/gateway-default"); strings.Contains(svstat.stdout, "true") {
		c.t.Errorf("s6 says of the slot: up,wantedup = %s; it must be neither", svstat.stdout)
	}
	if strings.Contains(c.logs(), breadcrumb) {
		c.t.Error("a foreground gateway says that it is supervised")
	}
}

func TestNoSuperviseFlagRunsInTheForeground(t *testing.T) {
	parallel(t)
	c := start(t, spec{cmd: []string{"gateway", "run", "--no-supervise"}})
	c.wantForeground()
	if r := c.exec("test", "-e", "/opt/data/intent.json"); r.code == 0 {
		t.Error("--no-supervise wrote an intent")
	}
	if code, _ := c.stop(); code != 0 {
		t.Errorf("a drained foreground gateway ends the container with %d, want 0", code)
	}
}

func TestNoSuperviseVariable(t *testing.T) {
	for _, value := range []string{"1", "true", "YES"} {
		t.Run(value, func(t *testing.T) {
			parallel(t)
			start(t, spec{env: []string{"HERMES_GATEWAY_NO_SUPERVISE=" + value}, cmd: []string{"gateway", "run"}}).wantForeground()
		})
	}
	for _, value := range []string{"0", "no", "", " 1", "on", "ture"} {
		t.Run(fmt.Sprintf("not %q", value), func(t *testing.T) {
			parallel(t)
			gateway(t, spec{env: []string{"HERMES_GATEWAY_NO_SUPERVISE=" + value}}).wantHeartbeat()
		})
	}
}

func TestNoSuperviseOverrulesStoredIntent(t *testing.T) {
	parallel(t)
	data := []string{"-v", volume(t) + ":/opt/data"}
	before := gateway(t, spec{flags: data}) // stores "up"
	if code, _ := before.stop(); code != 0 {
		t.Fatalf("stop ends with %d", code)
	}
	for _, s := range []spec{
		{flags: data, cmd: []string{"gateway", "run", "--no-supervise"}},
		{flags: data, env: []string{"HERMES_GATEWAY_NO_SUPERVISE=1"}, cmd: []string{"gateway", "run"}},
	} {
		c := start(t, s)
		c.wantForeground()
		if text := c.mustExec("cat", "/opt/data/intent.json"); !strings.Contains(text, `"up"`) {
			t.Errorf("the foreground run changed the intent to %s", text)
		}
		c.stop()
	}
}

// The gateway's own exit code is the container's, also on docker stop: a
// stand-in that exits 7 on TERM.
func TestNoSuperviseForwardsTheExitCodeOnStop(t *testing.T) {
	parallel(t)
	standIn := script(t, "#!/bin/sh\ntrap 'exit 7' TERM\necho stand-in runs \"$@\"\nwhile :; do sleep 1 & wait $!; done\n")
	c := start(t, spec{
		flags: []string{"-v", standIn + ":/usr/local/sbin/hermes:ro"},
		cmd:   []string{"hermes", "gateway", "run", "--no-supervise"},
	})
	c.logged("stand-in runs gateway run --no-supervise")
	if code, took := c.stop(); code != 7 {
		t.Errorf("the container ends with %d after %s, want 7", code, took)
	}
}

// A sentinel given by hand is a foreground run that says so: whatever the
// environment, there is never a second layer.
func TestRecursionIsImpossible(t *testing.T) {
	t.Run("supervised", func(t *testing.T) {
		parallel(t)
		c := gateway(t, spec{})
		c.wantHeartbeat()
		child := c.wantOneGatewayUnder("s6-supervise", "gateway-default")
		environ := docker(t, "exec", "-u", "10000:10000", c.name, "cat", fmt.Sprintf("/proc/%d/environ", child.pid))
		if !strings.Contains(environ.stdout, sentinel+"=1\x00") {
			t.Errorf("the supervised child was started without the sentinel: %q %s", environ.stdout, environ.stderr)
		}
	})
	t.Run("sentinel by hand", func(t *testing.T) {
		parallel(t)
		c := start(t, spec{env: []string{sentinel + "=1"}, cmd: []string{"gateway", "run"}})
		c.wantForeground()
		if n := strings.Count(c.logs(), sentinel); n != 1 {
			t.Errorf("the sentinel is named %d times in the logs, want in one line", n)
		}
	})
	t.Run("a second gateway run inside", func(t *testing.T) {
		parallel(t)
		c := gateway(t, spec{})
		mustDocker(t, "exec", "-d", c.name, "hermes", "gateway", "run")
		until(t, "the second run is a heartbeat too", func() error {
			beats := slices.DeleteFunc(slices.Collect(maps.Values(c.everything())), func(p *process) bool { return p.name != "sleep" })
			if len(beats) != 2 {
				return fmt.Errorf("there are %d heartbeats", len(beats))
			}
			return nil
		})
		c.wantOneGatewayUnder("s6-supervise", "gateway-default")
	})
}
