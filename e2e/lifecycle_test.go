package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// quick is far below Docker's ten seconds and far above what an idle stop
// takes (0.2 s), so that a busy machine passes and a lost signal does not.
const quick = 5 * time.Second

func TestStopIsQuickAndExitsZero(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	if code, took := c.stop(); code != 0 || took > quick {
		t.Errorf("docker stop: exit code %d after %s, want 0 within %s", code, took, quick)
	}
}

func TestRestartBringsItBack(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	c.mustExec("hermes", "chat", "--session", "notes", "before the restart")
	mustDocker(t, "restart", c.name)
	c.waitState("gateway-default", "ready")
	c.wantHeartbeat()
	if reply := c.mustExec("hermes", "chat", "--session", "notes", "after it"); !strings.Contains(reply, "Turn 2") {
		t.Errorf("the conversation did not survive the restart: %q", reply)
	}
	if n := strings.Count(c.logs(), breadcrumb); n != 2 {
		t.Errorf("the breadcrumb stands %d times after two starts", n)
	}
}

func TestKilledContainerComesBack(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	mustDocker(t, "kill", c.name)
	if code := c.exitCode(); code != 137 {
		t.Errorf("docker kill ends with %d", code)
	}
	mustDocker(t, "start", c.name)
	c.waitState("gateway-default", "ready")
	c.wantHeartbeat()
}

func TestExitCodeOfTheMainProgram(t *testing.T) {
	for _, c := range []struct {
		name string
		cmd  []string
		want int
	}{
		{"42", []string{"sh", "-c", "exit 42"}, 42},
		{"0", []string{"true"}, 0},
		{"255", []string{"sh", "-c", "exit 255"}, 255},
		{"killed by TERM", []string{"sh", "-c", "kill -TERM $$"}, 143},
		{"killed by KILL", []string{"sh", "-c", "kill -KILL $$"}, 137},
		{"not executable", []string{"/etc/passwd"}, 126},
		{"not there", []string{"/no/such/program"}, 127},
	} {
		t.Run(c.name, func(t *testing.T) {
			parallel(t)
			if r := runToEnd(t, spec{cmd: c.cmd}); r.code != c.want {
				t.Errorf("%q ends the container with %d, want %d: %s", c.cmd, r.code, c.want, r.both())
			}
		})
	}
}

// A main program that answers TERM with a code of its own keeps it; one that
// dies of the stop's TERM counts as 0; one that ignores TERM ends at the budget.
func TestExitCodeOnStop(t *testing.T) {
	for _, c := range []struct {
		name, program string
		want          int
	}{
		{"its own", `trap "exit 9" TERM; echo up; while :; do sleep 1 & wait $!; done`, 9},
		{"died of TERM", `echo up; exec sleep infinity`, 0},
		{"ignores TERM", `trap "" TERM; echo up; while :; do sleep 1; done`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			parallel(t)
			box := start(t, spec{env: []string{"HERMES_STOP_TIMEOUT=3"}, cmd: []string{"sh", "-c", c.program}})
			box.logged("up")
			if code, took := box.stop(); code != c.want || took > quick+3*time.Second {
				t.Errorf("docker stop: exit code %d after %s, want %d within the budget", code, took, c.want)
			}
		})
	}
}

// Signals that ask for no stop reach the main program.
func TestSignalsAreForwarded(t *testing.T) {
	parallel(t)
	c := start(t, spec{cmd: []string{"sh", "-c", `trap "exit 11" USR1; echo up; while :; do sleep 1 & wait $!; done`}})
	c.logged("up")
	mustDocker(t, "kill", "-s", "USR1", c.name)
	if code := c.exitCode(); code != 11 {
		t.Errorf("the container ends with %d, want the main program's 11", code)
	}
}

// Ten thousand orphans, by double fork, half of them dead before their parent.
func TestOrphansAreReaped(t *testing.T) {
	parallel(t)
	const orphans = 10000
	c := gateway(t, spec{})
	c.mustExec("sh", "-c", `i=0; while [ $i -lt `+strconv.Itoa(orphans)+` ]; do (: &) ; i=$((i+1)); done`)
	until(t, "every orphan is reaped", func() error { return c.noZombies() })
	c.wantHeartbeat()
	c.wantService("gateway-default", "ready", "up")
}

func TestServicesRunAsTheServiceUser(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	for _, p := range c.processes() {
		uid := c.exec("stat", "-c", "%u", "/proc/"+strconv.Itoa(p.pid))
		if got := strings.TrimSpace(uid.stdout); uid.code == 0 && got != "10000" {
			t.Errorf("%s runs as uid %s", p, got)
		}
	}
	if owner := c.mustExec("stat", "-c", "%u", "/opt/data/hermes.db"); owner != "10000" {
		t.Errorf("the database belongs to uid %s", owner)
	}
}
