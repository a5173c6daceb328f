package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A gateway that is alive but deaf is replaced, its stacks are kept, and its
// death is a crash with a reason.
func TestDeafGatewayIsReplaced(t *testing.T) {
	for name, deafen := range map[string]func(*container, process){
		"stopped":    func(c *container, victim process) { c.kill("STOP", victim.pid) },
		"deadlocked": func(c *container, _ process) { c.mustExec("hermes", "boot", "deadlock") },
	} {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			c := gateway(t, spec{env: []string{"HERMES_TEST_DEADLOCK=1"}})
			c.waitState("guard", "ready")
			victim := c.only("hermes", "gateway", "run")
			deafen(c, victim)
			until(t, "another gateway runs", func() error { return c.back(victim, []string{"hermes", "gateway", "run"}) })
			row := c.waitState("gateway-default", "ready")
			if row.Restarts != 1 || row.LastExit == nil || row.LastExit.Asked || !strings.Contains(row.LastExit.Reason, "guard: did not answer for ") {
				t.Errorf("its row is %s", row)
			}
			c.logged("stacks kept")
			if kept := c.mustExec("sh", "-c", "cat /opt/data/logs/stacks/*-gateway-default.txt"); !strings.Contains(kept, "gatewayProcess") {
				t.Errorf("no stack of the gateway was kept:\n%.2000s", kept)
			}
			c.chats()
		})
	}
}

// One that hangs on its way is replaced as well, and never left alone for its
// being new.
func TestGatewayThatNeverGetsReadyIsReplaced(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	c.mustExec("sh", "-c", "cd /opt/data && mkdir -p profiles/stuck && mkfifo -m 644 profiles/stuck/.env && chown -R 10000 profiles")
	c.mustExec("hermes", "-p", "stuck", "gateway", "start", "--no-wait")
	until(t, "it was ended", func() error {
		row, err := c.service("gateway-stuck")
		if err != nil {
			return err
		}
		if row.Restarts == 0 || row.LastExit == nil || !strings.Contains(row.LastExit.Reason, "guard: did not answer for ") {
			return fmt.Errorf("its row is %s", row)
		}
		return nil
	})
	c.wantService("gateway-default", "ready", "up")
}

// `docker pause` for longer than deafness takes: nobody is ended.
func TestPausedContainerIsNobodysFault(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	c.waitState("guard", "ready")
	before := c.only("hermes", "gateway", "run")
	mustDocker(t, "pause", c.name)
	time.Sleep(20 * time.Second) // the length of the pause, not a wait for anything
	mustDocker(t, "unpause", c.name)
	c.logged("the guard did not run for a while")
	c.chats()
	row := c.waitState("gateway-default", "ready")
	if after := c.only("hermes", "gateway", "run"); after.pid != before.pid || row.Restarts != 0 {
		t.Errorf("before %s, after %s, %s", before, after, row)
	}
}

// The slots follow the volume, whoever writes there.
func TestSlotsFollowTheVolume(t *testing.T) {
	parallel(t)
	data := volume(t)
	c := gateway(t, spec{flags: []string{"-v", data + ":/opt/data"}})
	c.waitState("guard", "ready")
	// Its own port: two profiles of one container cannot share one.
	prepare(t, data, "mkdir -p profiles/new && echo API_SERVER_PORT=8700 > profiles/new/.env && chown -R 10000 profiles")
	until(t, "it has a slot", func() error {
		if r := c.exec("test", "-e", "/run/service/gateway-new/supervise/status"); r.code != 0 {
			return errors.New("it has none")
		}
		return nil
	})
	c.wantService("gateway-new", "down", "down")
	prepare(t, data, `echo '{"want":"up","by":"host","at":"2026-01-02T03:04:05Z"}' > profiles/new/intent.json`)
	c.waitState("gateway-new", "ready")
	c.mustExec("hermes", "-p", "new", "gateway", "stop")
	c.wantService("gateway-new", "down", "down")
	c.mustExec("hermes", "-p", "new", "gateway", "start")
	prepare(t, data, "rm -rf profiles/new")
	until(t, "the slot is gone", func() error {
		if r := c.exec("test", "-e", "/run/service/gateway-new"); r.code == 0 || len(c.gateways()) != 1 {
			return fmt.Errorf("there is\n%s", c.table())
		}
		return nil
	})
	c.wantService("gateway-default", "ready", "up")
}
