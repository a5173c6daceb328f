package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// A killed part comes back: one of each, in the same container, answering.
func TestKilledPartsComeBack(t *testing.T) {
	for _, part := range []struct {
		name string
		argv []string
	}{
		{"the gateway", []string{"hermes", "gateway", "run"}},
		{"its s6-supervise", []string{"s6-supervise", "gateway-default"}},
		{"its logger", []string{"s6-log", "p[default]"}},
		{"the logger's s6-supervise", []string{"s6-supervise", "gateway-default/log"}},
		{"the guard", []string{"hermes", "boot", "guard"}},
	} {
		t.Run(part.name, func(t *testing.T) {
			parallel(t)
			c := gateway(t, spec{})
			born := c.inspect("{{.State.StartedAt}}")
			victim := c.only(part.argv...)
			c.kill("KILL", victim.pid)
			until(t, part.name+" is back", func() error { return c.back(victim, part.argv) })
			c.waitState("gateway-default", "ready")
			for _, argv := range [][]string{
				{"hermes", "gateway", "run"},
				{"s6-supervise", "gateway-default"},
				{"s6-supervise", "gateway-default/log"},
				{"s6-log", "p[default]"},
				{"sleep", "infinity"},
				{"hermes", "boot", "main"},
				{"hermes", "boot", "guard"},
			} {
				c.only(argv...)
			}
			if reply := c.mustExec("hermes", "chat", "after the crash"); !strings.Contains(reply, "after the crash") {
				t.Errorf("after the crash it answers %q", reply)
			}
			if again := c.inspect("{{.State.StartedAt}}"); again != born {
				t.Errorf("the container was restarted: started %s, then %s", born, again)
			}
		})
	}
}

// back says whether exactly one process with argv runs and it is not victim.
func (c *container) back(victim process, argv []string) error {
	found := c.find(argv...)
	if len(found) != 1 || found[0].pid == victim.pid {
		return fmt.Errorf("there is %v", found)
	}
	return nil
}

// A death that no command asked for is one, also by a TERM that the gateway
// left with 0: a code says nothing about what is wanted.
func TestCrashIsCountedWithItsReason(t *testing.T) {
	for signal, reason := range map[string]string{"KILL": "killed by signal KILL", "TERM": "exit code 0"} {
		t.Run(signal, func(t *testing.T) {
			parallel(t)
			c := gateway(t, spec{})
			victim := c.only("hermes", "gateway", "run")
			c.kill(signal, victim.pid)
			until(t, "the gateway is back", func() error { return c.back(victim, []string{"hermes", "gateway", "run"}) })
			row := c.waitState("gateway-default", "ready")
			if row.Want != "up" || row.Restarts != 1 || row.LastExit == nil || row.LastExit.Reason != reason || row.LastExit.Asked {
				t.Errorf("after kill -%s the row is %s", signal, row)
			}
		})
	}
}

func TestStopStartRestart(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	c.mustExec("hermes", "gateway", "stop")
	c.wantService("gateway-default", "down", "down")
	if g := c.gateways(); len(g) != 0 {
		t.Errorf("stopped, but there is %v", g)
	}
	if r := c.exec("hermes", "healthcheck"); r.code != 0 {
		t.Errorf("a gateway that is wanted down makes the container unhealthy: %s", r.both())
	}
	if r := c.exec("hermes", "chat", "anybody?"); r.code != 69 {
		t.Errorf("chat to a stopped gateway exits %d, want 69: %s", r.code, r.both())
	}
	c.mustExec("hermes", "gateway", "start")
	c.wantService("gateway-default", "ready", "up")
	first := c.only("hermes", "gateway", "run")
	c.mustExec("hermes", "gateway", "restart")
	c.wantService("gateway-default", "ready", "up")
	if second := c.only("hermes", "gateway", "run"); second.pid == first.pid {
		t.Error("restart left the same process")
	}
	c.mustExec("hermes", "gateway", "start") // already there is success
}

// An operator's stop lasts until an operator, or the container's own command,
// wants the gateway back.
func TestMainProgramOverrulesAStop(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	c.mustExec("hermes", "gateway", "stop")
	mustDocker(t, "restart", c.name)
	c.waitState("gateway-default", "ready")
	c.logged("gateway-default was stopped by cli")
}

func TestGatewayAndDashboardBothSupervised(t *testing.T) {
	parallel(t)
	c := gateway(t, withDashboard())
	row := c.waitState("dashboard", "ready")
	if row.Kind != "dashboard" || row.Profile != nil || row.Want != "up" {
		t.Errorf("the row of the dashboard is %s", row)
	}
	c.wantHeartbeat()
	victim := c.only("hermes", "dashboard")
	c.kill("KILL", victim.pid)
	until(t, "the dashboard is back", func() error { return c.back(victim, []string{"hermes", "dashboard"}) })
	c.waitState("dashboard", "ready")
	if res := c.mustAsk(9119, request{method: "GET", path: "/"}); strings.Contains(res.body, "gateway-default") {
		t.Errorf("without a login the dashboard shows the slots:\n%s", res.body)
	}
}

func TestDashboardIsDisabledUnlessAskedFor(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	row := c.waitState("dashboard", "disabled")
	if row.PID != nil {
		t.Errorf("a disabled dashboard has a process: %s", row)
	}
	if found := c.find("hermes", "dashboard"); len(found) != 0 {
		t.Errorf("a disabled dashboard has processes: %v", found)
	}
	if r := c.exec("hermes", "healthcheck", "--ready"); r.code != 0 {
		t.Errorf("a disabled dashboard makes the container unready: %s", r.both())
	}
}

func TestOpenDashboardWithoutALoginIsRefused(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{env: []string{"HERMES_DASHBOARD=1", "HERMES_DASHBOARD_HOST=0.0.0.0"}})
	row := c.waitState("dashboard", "parked")
	if row.LastExit == nil || row.LastExit.Code == nil || *row.LastExit.Code != 78 {
		t.Errorf("the row of the refused dashboard is %s", row)
	}
	for _, name := range []string{"HERMES_DASHBOARD_USERNAME", "HERMES_DASHBOARD_PASSWORD"} {
		c.logged(name)
	}
	r := c.exec("hermes", "healthcheck")
	if r.code != 1 || !strings.Contains(r.both(), "dashboard") {
		t.Errorf("healthcheck exits %d and says %q, want 1 and the culprit", r.code, r.both())
	}
	c.wantService("gateway-default", "ready", "up")
}

// Two containers, one volume: the second waits, calm, and takes over.
func TestSecondHolderStandsByAndTakesOver(t *testing.T) {
	parallel(t)
	data := []string{"-v", volume(t) + ":/opt/data"}
	first := gateway(t, spec{flags: append([]string{"--hostname", "first-holder"}, data...)})
	second := start(t, spec{flags: data, cmd: []string{"gateway", "run"}})
	row := second.waitState("gateway-default", "standby")
	if row.Holder == nil || row.Holder.Host != "first-holder" {
		t.Errorf("the row in standby does not name the holder: %s", row)
	}
	if r := second.exec("hermes", "healthcheck"); r.code != 0 {
		t.Errorf("standby is not healthy: %s", r.both())
	}
	if r := second.exec("hermes", "healthcheck", "--ready"); r.code != 1 {
		t.Errorf("standby counts as ready: %s", r.both())
	}
	first.wantService("gateway-default", "ready", "up")
	mustDocker(t, "kill", first.name)
	row = second.waitState("gateway-default", "ready")
	if row.Restarts != 0 {
		t.Errorf("waiting was a restart loop: %s", row)
	}
}

func TestBrokenConfigurationParks(t *testing.T) {
	parallel(t)
	data := volume(t)
	docker(t, "run", "--rm", "--label", label(), "-u", "10000:0", "-v", data+":/opt/data", "--entrypoint", "sh", image(), "-c",
		`printf 'log:\n  level: info\n  format: [text\n' >/opt/data/config.yaml`)
	c := start(t, spec{flags: []string{"-v", data + ":/opt/data"}, cmd: []string{"gateway", "run"}})
	row := c.waitState("gateway-default", "parked")
	if row.LastExit == nil || row.LastExit.Code == nil || *row.LastExit.Code != 78 || row.Reason == "" {
		t.Errorf("the row of a gateway with a broken configuration is %s", row)
	}
	c.logged("/opt/data/config.yaml:")
	wantPosition(t, c.logs())
	if r := c.exec("hermes", "healthcheck"); r.code != 1 || !strings.Contains(r.both(), "gateway-default") {
		t.Errorf("healthcheck exits %d and says %q, want 1 and the culprit", r.code, r.both())
	}
	if r := c.exec("hermes", "gateway", "status"); !strings.Contains(r.stdout, "parked") {
		t.Errorf("status does not show it: %s", r.both())
	}
	if n := strings.Count(c.logs(), "/opt/data/config.yaml:"); n > 2 {
		t.Errorf("the error stands %d times in the logs: it is started again and again", n)
	}
	if strings.Contains(c.logs(), "goroutine ") {
		t.Error("there is a stack trace in the logs")
	}

	c.mustExec("rm", "/opt/data/config.yaml") // mended
	c.mustExec("hermes", "gateway", "start")
	c.wantService("gateway-default", "ready", "up")
}

// wantPosition fails unless some line has FILE:LINE:COLUMN.
func wantPosition(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		_, rest, found := strings.Cut(line, "config.yaml:")
		var row, column int
		if n, _ := fmt.Sscanf(rest, "%d:%d", &row, &column); found && n == 2 && row >= 1 && column >= 1 {
			return
		}
	}
	t.Errorf("no line says config.yaml:LINE:COLUMN:\n%s", text)
}

func TestPortTakenBacksOffAndNamesTheAddress(t *testing.T) {
	parallel(t)
	c := start(t, spec{
		env: []string{"HERMES_DASHBOARD=1", "HERMES_DASHBOARD_PORT=8642"},
		cmd: []string{"bash", "-c", "hermes boot --help >/dev/null; exec sleep infinity"},
	})
	c.waitState("dashboard", "ready")
	if r := c.exec("hermes", "gateway", "start"); r.code != 1 {
		t.Errorf("start on a taken port exits %d, want 1: %s", r.code, r.both())
	}
	row := c.waitState("gateway-default", "backoff")
	if row.Until == nil || row.LastExit == nil || row.LastExit.Code == nil || *row.LastExit.Code != 1 {
		t.Errorf("the row of a gateway whose port is taken is %s", row)
	}
	c.logged("127.0.0.1:8642")
}

// --replace asks the holder of the same profile; a neighbour is left alone.
func TestProfilesAreNeighbours(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	c.mustExec("hermes", "profile", "create", "work")
	c.mustExec("hermes", "-p", "work", "gateway", "start") // on a port of its own
	c.waitState("gateway-work", "ready")
	before := c.waitState("gateway-default", "ready")
	c.mustExec("hermes", "-p", "work", "gateway", "restart")
	c.waitState("gateway-work", "ready")
	after := c.waitState("gateway-default", "ready")
	if before.PID == nil || after.PID == nil || *before.PID != *after.PID || after.Restarts != 0 {
		t.Errorf("restarting work touched default: %s, then %s", before, after)
	}
	if n := len(c.gateways()); n != 2 {
		t.Errorf("%d gateway processes for two profiles:\n%s", n, c.table())
	}
	if owner := c.mustExec("stat", "-c", "%u", "/opt/data/profiles/work"); owner != "10000" {
		t.Errorf("what docker exec made belongs to uid %s", owner)
	}

	mustDocker(t, "restart", c.name) // both were wanted up
	c.waitState("gateway-default", "ready")
	c.waitState("gateway-work", "ready")
}

func TestNothingOutlivesTheGateway(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	c.mustExec("hermes", "gateway", "stop")
	until(t, "there are no zombies", func() error { return c.noZombies() })
}

func (c *container) noZombies() error {
	for _, p := range c.processes() {
		if p.state == "Z" {
			return errors.New("zombie " + p.String())
		}
	}
	return nil
}

// The image's own HEALTHCHECK, asked more often than every half minute.
func TestImageHealthcheck(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{
		flags: []string{"--health-interval", "1s", "--health-retries", "1", "--health-start-period", "1ms"},
		env:   []string{"HERMES_DASHBOARD=1"},
	})
	c.waitHealth("healthy")
	c.mustExec("sh", "-c", "echo '[' >/opt/data/config.yaml")
	c.kill("KILL", c.only("hermes", "gateway", "run").pid)
	c.waitState("gateway-default", "parked")
	c.waitHealth("unhealthy")
	if says := c.inspect("{{range .State.Health.Log}}{{.Output}}{{end}}"); !strings.Contains(says, "gateway-default") {
		t.Errorf("the healthcheck does not name the culprit: %q", says)
	}
}

func (c *container) waitHealth(want string) {
	c.t.Helper()
	until(c.t, "docker says "+want, func() error {
		if got := c.inspect("{{.State.Health.Status}}"); got != want {
			return errors.New("it says " + got)
		}
		return nil
	})
}
