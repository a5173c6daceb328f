package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// parkedAfter kills victim, waits until the gateway is parked and returns its row.
func (c *container) parkedAfter(victim process) service {
	c.t.Helper()
	c.kill("KILL", victim.pid)
	return c.waitState("gateway-default", "parked")
}

// A loop of crashes is remembered by the volume: each new life of the container
// gives a parked gateway one trial at once, and parks it again when that fails.
// gateway start forgives.
func TestCrashMeterSurvivesTheContainer(t *testing.T) {
	parallel(t)
	onVolume := spec{flags: []string{"-v", volume(t) + ":/opt/data"}}
	first := gateway(t, onVolume)
	// Nineteen deaths are minutes of waiting; they are noted as the gateway notes them.
	first.mustExec("sh", "-c", `echo '{"deaths":19}' >/opt/data/meter.json && chown 10000 /opt/data/meter.json`)
	first.stop()

	next := gateway(t, onVolume)
	argv := []string{"hermes", "gateway", "run"}
	row := next.parkedAfter(next.only(argv...))
	if !strings.HasPrefix(row.Reason, "20 deaths without a minute of readiness, the last: killed by signal KILL; it last logged: ") || row.Until == nil {
		t.Errorf("after the 20th death the row is %s", row)
	}
	mustDocker(t, "restart", next.name)
	next.waitState("gateway-default", "ready") // the trial
	row = next.parkedAfter(next.only(argv...))
	if !strings.HasPrefix(row.Reason, "21 deaths without") {
		t.Errorf("after the trial the row is %s", row)
	}
	next.mustExec("hermes", "gateway", "start", "--why", "looked at it")
	victim := next.only(argv...)
	next.kill("KILL", victim.pid)
	until(t, "the gateway is back", func() error { return next.back(victim, argv) })
	next.waitState("gateway-default", "ready")
	if log := next.mustExec("cat", "/opt/data/logs/audit.log"); !strings.Contains(log, `slot=gateway-default ask=start by=cli uid=0 pid=`) ||
		!strings.Contains(log, `why="looked at it"`) || !strings.Contains(log, " run=began by=boot ") || !strings.Contains(log, " next=trial ") {
		t.Errorf("the audit log says\n%s", log)
	}
}

// A gateway that the kernel killed for want of memory says so.
func TestOutOfMemoryKillIsNamed(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{flags: []string{"--memory=160m", "--memory-swap=160m"}})
	argv := []string{"hermes", "gateway", "run"}
	victim := c.only(argv...)
	// The kernel's first choice is the gateway, whoever asks for too much.
	c.mustExec("sh", "-c", fmt.Sprintf("echo 1000 >/proc/%d/oom_score_adj", victim.pid))
	c.exec("sh", "-c", "head -c 400m /dev/zero | tail") // ends by KILL, if at all
	until(t, "the gateway is another one", func() error { return c.back(victim, argv) })
	row := c.waitState("gateway-default", "ready")
	if row.LastExit == nil || row.LastExit.Reason != "killed by signal KILL while the container was out of memory" || row.Restarts < 1 {
		t.Errorf("its row is %s", row)
	}
}

// A gateway that is parked for its configuration comes back when that is
// mended; nobody has to say start.
func TestMendedConfigurationIsTried(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	config := func(text string) {
		c.mustExec("sh", "-c", "printf '%s\\n' "+strconv.Quote(text)+" >/opt/data/profiles/work/config.yaml")
	}
	c.mustExec("hermes", "profile", "create", "work")
	config("api_server: [")
	if r := c.exec("hermes", "-p", "work", "gateway", "start"); r.code != 1 || !strings.Contains(r.stderr, "gateway-work is parked: exit code 78") {
		t.Fatalf("start exits %d: %s", r.code, r.both())
	}
	c.waitState("gateway-work", "parked")
	config("log: {level: debug}")
	c.waitState("gateway-work", "ready")
	until(t, "the audit log names the guard", func() error {
		if log := c.mustExec("cat", "/opt/data/logs/audit.log"); !strings.Contains(log, "slot=gateway-work ask=start by=guard") {
			return errors.New(log)
		}
		return nil
	})
}
