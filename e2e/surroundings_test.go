package e2e

import (
	"strings"
	"testing"
)

// The same command outside our own boot: what it finds around it decides.

// without starts a shell script in place of /init.
func without(t *testing.T, script string) *container {
	t.Helper()
	return start(t, spec{flags: []string{"--entrypoint", "sh"}, cmd: []string{"-c", script}})
}

// svscan is a live s6 that hermes did not start, as s6-linux-init has it.
const svscan = "mkdir -p /run/service && { s6-svscan /run/service & } && until [ -p /run/service/.s6-svscan/control ]; do :; done; "

func TestWithoutS6ItRunsInTheForeground(t *testing.T) {
	parallel(t)
	c := without(t, "exec hermes gateway run")
	c.logged("gateway ready")
	if g := c.only("hermes", "gateway", "run"); g.pid != 1 {
		t.Errorf("the gateway is %s, want the main process itself", g)
	}
	if strings.Contains(c.logs(), "s6") {
		t.Errorf("without s6 nothing is said of it:\n%s", c.logs())
	}
	var manager string
	if s, err := c.status(); err == nil {
		manager = s.Manager
	}
	if manager != "none" {
		t.Errorf("status names the manager %q, want none", manager)
	}
	if code, took := c.stop(); code != 0 || took > quick {
		t.Errorf("docker stop: exit code %d after %s", code, took)
	}
}

func TestForeignS6IsLeftAlone(t *testing.T) {
	parallel(t)
	c := without(t, svscan+"exec hermes gateway run")
	c.logged("gateway ready")
	if g := c.only("hermes", "gateway", "run"); g.pid != 1 {
		t.Errorf("the gateway is %s, want the main process itself", g)
	}
	if got := c.mustExec("ls", "/run/service"); got != "" {
		t.Errorf("the foreign scan directory was touched: %q", got)
	}
	lines := 0
	for line := range strings.Lines(c.logs()) {
		if strings.Contains(line, "s6") && strings.Contains(line, "foreground") {
			lines++
		}
	}
	if lines != 1 {
		t.Errorf("%d lines say why the s6 there is not used, want one:\n%s", lines, c.logs())
	}
}

// What s6-overlay leaves of itself is enough to be its guest: a live s6-svscan
// as root and /run/s6/basedir. (The real s6-overlay is not among Debian's
// packages; this is its layout.)
func TestGuestOfS6Overlay(t *testing.T) {
	parallel(t)
	c := without(t, "mkdir -p /run/s6/basedir; "+svscan+"hermes gateway run & wait")
	c.logged(breadcrumb)
	c.waitState("gateway-default", "ready")
	child := c.wantOneGatewayUnder("s6-supervise", "gateway-default")
	c.only("sleep", "infinity")
	c.kill("KILL", child.pid)
	until(t, "the gateway is back", func() error { return c.back(child, []string{"hermes", "gateway", "run"}) })
	c.waitState("gateway-default", "ready")
}

// A foreground gateway beside a slot that is up would be a second one.
func TestForegroundBesideASlotIsRefused(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	r := c.exec("hermes", "gateway", "run", "--no-supervise")
	if r.code != 1 || !strings.Contains(r.stderr, "supervised gateway") || !strings.Contains(r.stderr, "gateway stop") {
		t.Errorf("a foreground run beside the slot exits %d and says %q: want 1, the owner and how to stop it", r.code, r.both())
	}
	c.wantHeartbeat()
	c.wantService("gateway-default", "ready", "up")
}
