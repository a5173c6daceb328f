package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Several profiles on one volume: what is up, and what makes it so.

// fleet is a container in which default and work are up and family is stopped.
func fleet(t *testing.T, data string) *container {
	t.Helper()
	c := gateway(t, spec{flags: []string{"-v", data + ":/opt/data"}})
	c.mustExec("hermes", "profile", "create", "work", "--start")
	c.mustExec("hermes", "profile", "create", "family", "--start")
	c.mustExec("hermes", "-p", "family", "gateway", "stop")
	return c
}

// wantFleet waits until those are up that were, and fails if another is.
func (c *container) wantFleet() {
	c.t.Helper()
	c.waitState("gateway-default", "ready")
	c.waitState("gateway-work", "ready")
	c.wantService("gateway-family", "down", "down")
	if n := len(c.gateways()); n != 2 {
		c.t.Errorf("%d gateways run, want those of default and work:\n%s", n, c.table())
	}
}

// Whatever ends a container, the next one has the same gateways up: intent is
// what operators asked for, and nothing else changes it.
func TestTheSameSetIsUpAfterwards(t *testing.T) {
	parallel(t)
	data := volume(t)
	c := fleet(t, data)
	c.wantFleet()

	mustDocker(t, "restart", c.name)
	c.wantFleet()

	mustDocker(t, "kill", c.name)
	mustDocker(t, "start", c.name)
	c.wantFleet()

	c.killWhileDraining()
	mustDocker(t, "start", c.name)
	c.wantFleet()

	// A new container on the old volume, and one with another binary.
	mustDocker(t, "rm", "-f", c.name)
	c = gateway(t, spec{flags: []string{"-v", data + ":/opt/data"}})
	c.wantFleet()
	mustDocker(t, "rm", "-f", c.name)
	c = gateway(t, spec{flags: []string{"-v", data + ":/opt/data", "-v", anotherBinary(t) + ":/usr/local/bin/hermes:ro"}})
	if version := c.mustExec("hermes", "version"); !strings.Contains(version, otherVersion) {
		t.Fatalf("the binary that was to be another says %s", version)
	}
	c.wantFleet()
	if text := c.mustExec("cat", "/opt/data/profiles/family/intent.json"); !strings.Contains(text, `"down"`) || !strings.Contains(text, `"cli"`) {
		t.Errorf("the intent of the stopped profile is now %s", text)
	}
}

// killWhileDraining kills the container in the middle of a stop that waits for
// a long turn.
func (c *container) killWhileDraining() {
	c.t.Helper()
	c.mustExec("sh", "-c", "echo HERMES_MODEL_DELAY=5m >>/opt/data/profiles/work/.env")
	c.mustExec("hermes", "-p", "work", "gateway", "restart")
	mustDocker(c.t, "exec", "-d", c.name, "hermes", "-p", "work", "chat", "think long")
	until(c.t, "the turn runs", func() error {
		r := c.exec("hermes", "-p", "work", "profile", "show", "-o", "json")
		_, after, _ := strings.Cut(r.stdout, `"api":"`)
		address, _, _ := strings.Cut(after, `"`)
		metrics := c.exec("bash", "-c", fmt.Sprintf(
			`exec 3<>/dev/tcp/%s; printf 'GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3; cat <&3`, strings.Replace(address, ":", "/", 1)))
		if !strings.Contains(metrics.stdout, `hermes_messages_running{profile="work"} 1`) {
			return errorOf(metrics)
		}
		return nil
	})
	mustDocker(c.t, "kill", "-s", "TERM", c.name)
	c.logged("hermes: stopping: waiting for gateway-work")
	mustDocker(c.t, "kill", c.name)
	if code := c.exitCode(); code != 137 {
		c.t.Errorf("a container killed while it drained ends with %d", code)
	}
}

const otherVersion = "v0.0.0-another-binary"

// anotherBinary builds hermes anew, as another version.
func anotherBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hermes")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path,
		"-ldflags", "-s -w -X github.com/hermesgw/hermes/internal/buildinfo.version="+otherVersion, "../cmd/hermes")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build another binary: %v: %s", err, out)
	}
	return path
}

// A profile's slot comes, moves and goes with it, and it has what is its own.
func TestLifeOfAProfile(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{env: []string{"API_SERVER_PORT=8643", "HERMES_MODEL_API_KEY=precious"}})
	c.mustExec("hermes", "profile", "create", "idle")
	c.wantService("gateway-idle", "down", "down")
	if r := c.exec("s6-svstat", "-o", "wantedup", "/run/service/gateway-idle"); strings.TrimSpace(r.stdout) != "false" {
		t.Errorf("the slot of a new profile: wanted up is %s", r.both())
	}

	// 8643 is the main program's here.
	if said := c.mustExec("hermes", "profile", "create", "work", "--start"); !strings.Contains(said, "API port 8645") {
		t.Errorf("the second profile beside a main program on 8643 was created so: %s", said)
	}
	row := c.waitState("gateway-work", "ready")
	environ := docker(t, "exec", "-u", "10000:10000", c.name, "cat", fmt.Sprintf("/proc/%d/environ", *row.PID))
	if environ.code != 0 || strings.Contains(environ.stdout, "precious") || strings.Contains(environ.stdout, "API_SERVER_PORT") {
		t.Errorf("the environment of gateway-work holds what is the main program's: %q %s", environ.stdout, environ.stderr)
	}
	c.mustExec("hermes", "-p", "work", "chat", "--session", "notes", "before")

	c.mustExec("hermes", "profile", "rename", "work", "office")
	c.waitState("gateway-office", "ready")
	if reply := c.mustExec("hermes", "-p", "office", "chat", "--session", "notes", "after"); !strings.Contains(reply, "Turn 2") {
		t.Errorf("the conversation did not move with the profile: %s", reply)
	}
	if slots := c.mustExec("ls", "-A", "/run/service"); strings.Contains(slots, "gateway-work") {
		t.Errorf("the slot of the old name is still there: %s", slots)
	}
	if foreign := c.mustExec("find", "/opt/data", "!", "-uid", "10000"); foreign != "" {
		t.Errorf("these do not belong to the service user:\n%s", foreign)
	}

	if r := c.exec("hermes", "profile", "delete", "office"); r.code != 2 || !strings.Contains(r.stderr, "--yes") {
		t.Errorf("without a terminal delete exits %d: %s", r.code, r.both())
	}
	c.mustExec("hermes", "profile", "delete", "office", "--yes")
	if left := c.mustExec("sh", "-c", "ls -A /run/service /opt/data/profiles /opt/data/logs/gateways"); strings.Contains(left, "office") {
		t.Errorf("a deleted profile left this:\n%s", left)
	}
	c.wantService("gateway-default", "ready", "up")
}

// A renamed profile has its past in its log; logs that are in the way, or cannot
// move, are named in one line.
func TestLogsOfARenamedProfile(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{flags: []string{"-v", volume(t) + ":/opt/data/logs/gateways/fixed"}})
	c.mustExec("hermes", "profile", "create", "work", "--start")
	c.waitState("gateway-work", "ready")
	c.mustExec("sh", "-c", "mkdir /opt/data/logs/gateways/office && echo 'of an earlier office' >/opt/data/logs/gateways/office/current")
	r := c.exec("hermes", "profile", "rename", "work", "office")
	if r.code != 0 || !strings.Contains(r.stderr, `logs of an earlier profile "office" are now in /opt/data/logs/gateways/office.before-rename-`) {
		t.Errorf("rename exits %d: %s", r.code, r.both())
	}
	c.waitState("gateway-office", "ready")
	until(t, "the log has the past and goes on", func() error {
		text := c.mustExec("hermes", "-p", "office", "gateway", "logs", "-n", "1000")
		if before, after, ok := strings.Cut(text, "profile=office"); !ok || !strings.Contains(before, "profile=work") || strings.Contains(before+after, "earlier") {
			return fmt.Errorf("the log is\n%s", text)
		}
		return nil
	})
	if kept := c.mustExec("sh", "-c", "cat /opt/data/logs/gateways/office.before-rename-*/current"); kept != "of an earlier office" {
		t.Errorf("of an earlier profile there is %q", kept)
	}

	c.mustExec("hermes", "profile", "create", "fixed")
	r = c.exec("hermes", "profile", "rename", "fixed", "moved")
	if r.code != 0 || !strings.Contains(r.stderr, `the logs of "fixed" could not be moved and are still in /opt/data/logs/gateways/fixed: device or resource busy`) {
		t.Errorf("rename of a profile whose logs are a volume exits %d: %s", r.code, r.both())
	}
}

// The container's command is an operator's word too, each time it starts.
func TestCommandOverrulesAStopAndSaysSo(t *testing.T) {
	parallel(t)
	data := volume(t)
	prepare(t, data, `mkdir -p profiles/work && cd profiles/work &&
		echo '{"want":"down","by":"cli","at":"2026-01-02T03:04:05Z","why":""}' >intent.json && chown -R 10000:0 /mnt`)
	c := start(t, spec{flags: []string{"-v", data + ":/opt/data"}, cmd: []string{"-p", "work", "gateway", "run"}})
	c.waitState("gateway-work", "ready")
	const overrules = "hermes: gateway-work was stopped by cli at "
	if logs := c.logs(); strings.Count(logs, overrules+"2026-01-02T03:04:05Z") != 1 {
		t.Errorf("the start does not say once that it overrules a stop:\n%s", logs)
	}
	if text := c.mustExec("cat", "/opt/data/profiles/work/intent.json"); !strings.Contains(text, `"up"`) || !strings.Contains(text, `"main-program"`) {
		t.Errorf("the intent is %s", text)
	}
	c.wantService("gateway-default", "down", "down")
	for _, argv := range [][]string{{"rename", "work", "office"}, {"delete", "work", "--yes"}} {
		r := c.exec(append([]string{"hermes", "profile"}, argv...)...)
		if r.code != 1 || !strings.Contains(r.stderr, "main program") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("profile %q of the main program exits %d: %s", argv, r.code, r.both())
		}
	}

	mustDocker(t, "restart", c.name) // there is nothing to overrule
	c.waitState("gateway-work", "ready")
	c.mustExec("hermes", "-p", "work", "gateway", "stop")
	c.wantService("gateway-work", "down", "down")
	mustDocker(t, "restart", c.name)
	c.waitState("gateway-work", "ready")
	if logs := c.logs(); strings.Count(logs, overrules) != 2 {
		t.Errorf("two stops were overruled:\n%s", logs)
	}
}

// Beside a container that runs them, one whose main program is something else,
// or that was told so, starts no second fleet on the same volume.
func TestNoSecondFleetOnASharedVolume(t *testing.T) {
	parallel(t)
	data := volume(t)
	first := fleet(t, data)
	intents := func() string {
		return first.mustExec("sh", "-c", "cd /opt/data && cat intent.json profiles/*/intent.json")
	}
	before, pids := intents(), fmt.Sprint(first.gateways())
	for _, tc := range []struct {
		name     string
		s        spec
		gateways int
	}{
		{"another program", spec{cmd: []string{"sleep", "infinity"}}, 0},
		{"the dashboard", spec{cmd: []string{"dashboard"}}, 0},
		{"HERMES_RECONCILE=0", spec{cmd: []string{"gateway", "run"}, env: []string{"HERMES_RECONCILE=0"}}, 1},
	} {
		tc.s.flags = []string{"-v", data + ":/opt/data"}
		c := start(t, tc.s)
		until(t, tc.name+": the tree is up", func() error {
			s, err := c.status()
			if err == nil && s.Manager != "s6" {
				err = errors.New("it is not")
			}
			return err
		})
		if tc.gateways > 0 { // its own, in calm, since the first container has the profile
			c.waitState("gateway-default", "standby")
		}
		c.wantService("gateway-work", "down", "down")
		c.wantService("gateway-family", "down", "down")
		if g := c.gateways(); len(g) != tc.gateways {
			t.Errorf("%s: %d gateways run, want %d:\n%s", tc.name, len(g), tc.gateways, c.table())
		}
		mustDocker(t, "rm", "-f", c.name)
	}
	if after := intents(); wants(after) != wants(before) {
		t.Errorf("the intents were\n%s\nand are\n%s", before, after)
	}
	first.wantFleet()
	if now := fmt.Sprint(first.gateways()); now != pids {
		t.Errorf("the first container's gateways were %s and are %s", pids, now)
	}
}

// wants is what intents say that is not who and when: a second main program
// `gateway run` says up once more.
func wants(intents string) string {
	var list []string
	for line := range strings.Lines(intents) {
		want, _, _ := strings.Cut(line, `,"by"`)
		list = append(list, want)
	}
	return strings.Join(list, " ")
}

// Each gateway of a fleet waits for its turn to start, and gives it back when it
// is ready.
func TestStartsOfAFleetAreStaggered(t *testing.T) {
	parallel(t)
	const profiles = 8
	data := volume(t)
	prepare(t, data, fmt.Sprintf(`for i in $(seq %d); do mkdir -p profiles/p$i && echo API_SERVER_PORT=$((8700+i)) >profiles/p$i/.env &&
echo '{"want":"up","by":"host","at":"2026-01-02T03:04:05Z"}' >profiles/p$i/intent.json || exit 1; done; chown -R 10000 profiles`, profiles))
	c := gateway(t, spec{flags: []string{"-v", data + ":/opt/data"}})
	for i := range profiles {
		c.waitState(fmt.Sprintf("gateway-p%d", i+1), "ready")
	}
	all := c.gateways()
	if len(all) != profiles+1 {
		t.Fatalf("%d gateways run, want %d:\n%s", len(all), profiles+1, c.table())
	}
	for _, p := range all {
		r := docker(t, "exec", "-u", "10000:10000", c.name, "sh", "-c", fmt.Sprintf(`tr '\0' '\n' </proc/%[1]d/environ; ls -l /proc/%[1]d/fd`, p.pid))
		if r.code != 0 || !strings.Contains(r.stdout, "HERMES_STARTING_FD=") {
			t.Errorf("%s started out of turn: %s", p, r.both())
		}
		if strings.Contains(r.stdout, "starting.") {
			t.Errorf("%s is ready and has kept its turn: %s", p, r.stdout)
		}
	}
}
