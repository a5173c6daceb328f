package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestCommandRules(t *testing.T) {
	for _, c := range []struct {
		name string
		cmd  []string
		want string // in the output
		code int
	}{
		{"a program on PATH is run", []string{"echo", "plain program"}, "plain program", 0},
		{"a program by path is run", []string{"/bin/echo", "by path"}, "by path", 0},
		{"a hermes command needs no hermes", []string{"version"}, "hermes ", 0},
		{"a hermes flag needs no hermes", []string{"--help"}, "gateway", 0},
		{"hermes by name", []string{"hermes", "version"}, "hermes ", 0},
		{"an unknown word gets a suggestion", []string{"gatewya", "run"}, "gateway", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			parallel(t)
			r := runToEnd(t, spec{cmd: c.cmd})
			if r.code != c.code || !strings.Contains(r.both(), c.want) {
				t.Errorf("%q exits %d, want %d, and prints, without %q:\n%s", c.cmd, r.code, c.code, c.want, r.both())
			}
		})
	}
}

// A container with another command starts no fleet beside another container.
func TestOtherCommandsStartNoGateway(t *testing.T) {
	parallel(t)
	data := []string{"-v", volume(t) + ":/opt/data"}
	gateway(t, spec{flags: data}).stop() // stores "up"
	c := start(t, spec{flags: data, cmd: []string{"sh", "-c", "echo up; exec sleep infinity"}})
	c.logged("up")
	c.wantService("gateway-default", "down", "down")
	if g := c.gateways(); len(g) != 0 {
		t.Errorf("sh as the command started %v", g)
	}
	c.mustExec("hermes", "gateway", "start") // it can be asked for
	c.wantService("gateway-default", "ready", "up")
}

// hooks is a directory of executables to be mounted.
func hooks(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		writeFile(t, filepath.Join(dir, name), text, 0o755)
	}
	return dir
}

func TestContInitHooksRunFirstAsTheServiceUser(t *testing.T) {
	parallel(t)
	dir := hooks(t, map[string]string{
		"01-first":  "#!/command/with-contenv sh\necho \"first: $GREETING as $(id -u), home $HOME\"\n",
		"02-second": "#!/usr/bin/with-contenv sh\necho \"second: $GREETING\"; echo made >/opt/data/made-by-hook\n",
	})
	c := gateway(t, spec{flags: []string{"-v", dir + ":/etc/cont-init.d:ro"}, env: []string{"GREETING=hello there"}})
	logs := c.logs()
	first, second, crumb := strings.Index(logs, "first: hello there as 10000, home /opt/data"), strings.Index(logs, "second: hello there"),
		strings.Index(logs, "gateway ready")
	if first < 0 || second < first || crumb < second {
		t.Errorf("hooks out of order, or not as the service user:\n%s", logs)
	}
	if owner := c.mustExec("stat", "-c", "%u", "/opt/data/made-by-hook"); owner != "10000" {
		t.Errorf("the hook's file belongs to uid %s", owner)
	}
}

func TestFailingHookIsNamedWithItsUser(t *testing.T) {
	parallel(t)
	dir := hooks(t, map[string]string{"50-needs-root": "#!/bin/sh\ntouch /etc/mine\n"})
	c := gateway(t, spec{flags: []string{"-v", dir + ":/etc/cont-init.d:ro"}})
	for _, want := range []string{"/etc/cont-init.d/50-needs-root", "uid 10000"} {
		if !strings.Contains(c.logs(), want) {
			t.Errorf("the logs do not name %q:\n%s", want, c.logs())
		}
	}
	strict := runToEnd(t, spec{flags: []string{"-v", dir + ":/etc/cont-init.d:ro"}, env: []string{"S6_BEHAVIOUR_IF_STAGE2_FAILS=2"}, cmd: []string{"true"}})
	if strict.code != 1 {
		t.Errorf("S6_BEHAVIOUR_IF_STAGE2_FAILS=2 ends with %d, want 1: %s", strict.code, strict.both())
	}
}

func TestServicesOfTheUserAreSupervised(t *testing.T) {
	parallel(t)
	dir := hooks(t, map[string]string{
		"beacon/run": "#!/usr/bin/with-contenv sh\necho \"beacon: $GREETING as $(id -u)\"\nexec sleep 86400\n",
	})
	c := gateway(t, spec{flags: []string{"-v", dir + ":/etc/services.d:ro"}, env: []string{"GREETING=ahoy"}})
	c.logged("beacon: ahoy as 10000")
	victim := c.only("sleep", "86400")
	c.kill("KILL", victim.pid)
	until(t, "the user's service is back", func() error { return c.back(victim, []string{"sleep", "86400"}) })
	if row, err := c.service("beacon"); err != nil || row.Kind != "service" {
		t.Errorf("status shows %s, %v", row, err)
	}
}

func TestContFinishHooksRunAtTheStop(t *testing.T) {
	parallel(t)
	dir := hooks(t, map[string]string{"99-bye": "#!/command/with-contenv sh\necho \"finish hook as $(id -u)\"\n"})
	c := gateway(t, spec{flags: []string{"-v", dir + ":/etc/cont-finish.d:ro"}})
	if code, _ := c.stop(); code != 0 {
		t.Errorf("docker stop ends with %d", code)
	}
	if !strings.Contains(c.logs(), "finish hook as 10000") {
		t.Errorf("the finish hook did not run:\n%s", c.logs())
	}
}

// docker exec starts with a bare environment: with-contenv fills it.
func TestWithContenvInDockerExec(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{env: []string{"ODD=two words and 'quotes'"}})
	if got := c.mustExec("env", "-i", "/command/with-contenv", "sh", "-c", `printf %s "$ODD"`); got != "two words and 'quotes'" {
		t.Errorf("with-contenv loads ODD as %q", got)
	}
	if r := c.exec("env", "-i", "/command/with-contenv", "no-such-program"); r.code != 127 {
		t.Errorf("with-contenv of an unknown program exits %d, want 127: %s", r.code, r.both())
	}
}

// A volume that belongs to another user is used as that user, and said so.
func TestVolumeOfAnotherUser(t *testing.T) {
	parallel(t)
	data := volume(t)
	// With a file in it: Docker gives an empty volume the image's owner again.
	mustDocker(t, "run", "--rm", "--label", label(), "-v", data+":/opt/data", "--entrypoint", "sh", image(), "-c",
		"touch /opt/data/note && chown -R 1500:1500 /opt/data")
	c := gateway(t, spec{flags: []string{"-v", data + ":/opt/data"}})
	c.logged("/opt/data belongs to uid 1500")
	if owner := c.mustExec("stat", "-c", "%u", "/opt/data/hermes.db"); owner != "1500" {
		t.Errorf("the database belongs to uid %s", owner)
	}
}
