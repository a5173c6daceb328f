package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// pauseLength is longer than deafness takes; HERMES_TEST_PAUSE makes it another.
func pauseLength(t *testing.T) time.Duration {
	t.Helper()
	given := os.Getenv("HERMES_TEST_PAUSE")
	if given == "" {
		return 25 * time.Second
	}
	d, err := time.ParseDuration(given)
	if err != nil {
		t.Fatalf("HERMES_TEST_PAUSE: %v", err)
	}
	return d
}

// `docker pause` for longer than deafness takes: nobody is ended, and it answers
// at once afterwards.
func TestPausedContainerIsNobodysFault(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	c.waitState("guard", "ready")
	before := c.only("hermes", "gateway", "run")
	length := pauseLength(t)
	mustDocker(t, "pause", c.name)
	time.Sleep(length) // the length of the pause, not a wait for anything
	mustDocker(t, "unpause", c.name)
	began := time.Now()
	c.chats()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("after the pause it answers within %s", took)
	}
	c.logged("the guard did not run for a while")
	row := c.waitState("gateway-default", "ready")
	if after := c.only("hermes", "gateway", "run"); after.pid != before.pid || row.Restarts != 0 {
		t.Errorf("before %s, after %s, %s", before, after, row)
	}
}

// slotWithin is how soon what appears on the volume has its slot.
const slotWithin = 2 * time.Second

// slotOf fails unless a profile made just now, at made, has a slot in time.
func (c *container) slotOf(profile string, made time.Time) {
	c.t.Helper()
	untilWithin(c.t, time.Until(made.Add(slotWithin)), "gateway-"+profile+" is there", func() error {
		if r := c.exec("test", "-e", "/run/service/gateway-"+profile+"/supervise/status"); r.code != 0 {
			return errors.New("it is not")
		}
		return nil
	})
	c.t.Logf("gateway-%s was there after %s", profile, time.Since(made).Round(time.Millisecond))
}

// A profile that another container creates on the volume, or somebody on the
// host, has its slot within two seconds.
func TestSlotAppearsWithinTwoSeconds(t *testing.T) {
	parallel(t)
	dir := t.TempDir() // on the host's side of a bind mount
	prepare(t, dir, "chown 10000:0 . && chmod 777 .")
	t.Cleanup(func() { prepare(t, dir, "rm -rf /mnt/* /mnt/.[!.]*") })
	data := dir + ":/opt/data"
	c := gateway(t, spec{flags: []string{"-v", data}})
	c.waitState("guard", "ready")
	for i, user := range []string{"0:0", "10000:10000"} {
		name := fmt.Sprintf("other%d", i)
		r := docker(t, "run", "--rm", "--label", label(), "--user", user, "-v", data, image(), "profile", "create", name)
		if r.code != 0 {
			t.Fatalf("profile create in another container exits %d: %s", r.code, r.both())
		}
		// The container's own end is not part of it: it had made the profile before.
		c.slotOf(name, time.Now())
		c.wantService("gateway-"+name, "down", "down")
	}
	if err := os.Chmod(filepath.Join(dir, "profiles"), 0o777); err != nil { // as its owner may let others
		prepare(t, dir, "chmod 777 profiles")
	}
	made := time.Now()
	writeFile(t, filepath.Join(dir, "profiles", "host", ".env"), "API_SERVER_PORT=8700\n", 0o644)
	c.slotOf("host", made)
	c.wantService("gateway-host", "down", "down")
	c.wantService("gateway-default", "ready", "up")
}

// A profile that gets its slot from the guard is renamed, or deleted, at that
// very moment: one slot is left, or none, and no log of the old name.
func TestRenameBesideTheGuard(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	c.waitState("guard", "ready")
	// The guard looks once a second: ten moments between two looks.
	const rounds = 10
	for i := range rounds {
		r := c.exec("sh", "-c", fmt.Sprintf(`set -e
			umask 022; d=/opt/data/profiles; mkdir -p $d; chown 10000 $d
			for n in ren del; do mkdir $d/.new && echo API_SERVER_PORT=87%02d >$d/.new/.env && chown -R 10000 $d/.new && mv $d/.new $d/${n}%d; done
			sleep 0.%d
			hermes profile rename ren%d now%d
			hermes profile delete del%d --yes`, i, i, i, i, i, i))
		if r.code != 0 {
			t.Errorf("round %d exits %d: %s", i, r.code, r.both())
		}
	}
	until(t, "each profile has one slot, and nothing else has", func() error {
		slots := c.mustExec("sh", "-c", "cd /run/service && ls -d gateway-*")
		if n := len(strings.Fields(slots)); n != rounds+1 || strings.Contains(slots, "ren") || strings.Contains(slots, "del") {
			return fmt.Errorf("there are:\n%s", slots)
		}
		return nil
	})
	if logs := c.mustExec("ls", "/opt/data/logs/gateways"); strings.Contains(logs, "ren") || strings.Contains(logs, "del") {
		t.Errorf("logs of old names are left:\n%s", logs)
	}
	if text := c.logs(); strings.Contains(text, "cannot make the slot follow") {
		t.Errorf("the guard could not follow:\n%s", text)
	}
	c.wantService("gateway-default", "ready", "up")
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
