package e2e

import (
	"strings"
	"testing"
)

// What cannot work ends with 78 and one line that says what to do; nothing is
// half done.

// wantRefusal fails unless r is exit code 78 and its only line has every word.
func wantRefusal(t *testing.T, r result, words ...string) {
	t.Helper()
	if r.code != 78 {
		t.Errorf("it exits %d, want 78", r.code)
	}
	if n := strings.Count(r.both(), "\n"); n != 1 {
		t.Errorf("it says %d lines, want one", n)
	}
	for _, word := range words {
		if !strings.Contains(r.both(), word) {
			t.Errorf("it does not say %q", word)
		}
	}
	if t.Failed() {
		t.Logf("it says:\n%s", r.both())
	}
}

func TestVariablesThatCannotBe(t *testing.T) {
	for _, name := range []string{"HERMES_UID", "PUID", "HERMES_GID", "HERMES_STOP_TIMEOUT", "HERMES_BACKOFF_MAX"} {
		for _, value := range []string{"0", "-1", "abc", "root", "1e9", " 5", "99999999999"} {
			t.Run(name+"="+value, func(t *testing.T) {
				parallel(t)
				r := runToEnd(t, spec{env: []string{name + "=" + value}, cmd: []string{"gateway", "run"}})
				wantRefusal(t, r, name, value, "1 to ")
			})
		}
	}
}

func TestDirectoriesThatCannotBe(t *testing.T) {
	for _, name := range []string{"HERMES_HOME", "HERMES_RUN_DIR"} {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			r := runToEnd(t, spec{env: []string{name + "=some/where"}, cmd: []string{"gateway", "run"}})
			wantRefusal(t, r, name, `"some/where"`, "absolute")
		})
	}
}

// An empty variable is an unset one: Compose files have many.
func TestEmptyVariablesAreUnset(t *testing.T) {
	parallel(t)
	r := runToEnd(t, spec{
		env: []string{"HERMES_UID=", "PUID=", "PGID=", "HERMES_STOP_TIMEOUT=", "HERMES_RUN_DIR=", "HERMES_HOME="},
		cmd: []string{"sh", "-c", "id -u; echo $HERMES_HOME"},
	})
	if r.code != 0 || r.both() != "10000\n/opt/data\n" {
		t.Errorf("it exits %d: %s", r.code, r.both())
	}
}

// Ids beyond 65535 are as good as any.
func TestLargeUID(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{env: []string{"HERMES_UID=70000"}})
	if uid := c.statusLine(c.gatewayPID(), "Uid"); uid != "70000" {
		t.Errorf("with HERMES_UID=70000 the gateway runs as %s", uid)
	}
	c.chats()
	c.wantTidyLogs()
}

func TestVolumeThatCannotBeWritten(t *testing.T) {
	t.Run("read-only", func(t *testing.T) {
		parallel(t)
		r := runToEnd(t, spec{flags: []string{"-v", volume(t) + ":/opt/data:ro"}, cmd: []string{"gateway", "run"}})
		wantRefusal(t, r, "/opt/data", "read-only file system", ":ro")
	})
	t.Run("of root, as another user", func(t *testing.T) {
		parallel(t)
		r := runToEnd(t, spec{flags: []string{"--user", "12345:54321", "-v", volumeOf(t, "0:0") + ":/opt/data"}, cmd: []string{"gateway", "run"}})
		wantRefusal(t, r, "uid 12345", "/opt/data", "chown 12345")
	})
	t.Run("fresh, outside group 0", func(t *testing.T) {
		parallel(t)
		r := runToEnd(t, spec{flags: []string{"--user", "12345:54321"}, cmd: []string{"gateway", "run"}})
		wantRefusal(t, r, "uid 12345", "/opt/data", "--user 12345:0")
	})
	t.Run("of another user", func(t *testing.T) {
		parallel(t)
		r := runToEnd(t, spec{flags: []string{"--user", "12345:54321", "-v", volumeOf(t, "4242:4243") + ":/opt/data"}, cmd: []string{"gateway", "run"}})
		wantRefusal(t, r, "uid 12345", "/opt/data", "--user 4242:4243")
	})
	// A shell to mend it with starts all the same, and says what is wrong.
	t.Run("another command", func(t *testing.T) {
		parallel(t)
		r := runToEnd(t, spec{flags: []string{"-v", volume(t) + ":/opt/data:ro"}, cmd: []string{"echo", "at work"}})
		if r.code != 0 || !strings.Contains(r.stdout, "at work") || !strings.Contains(r.stderr, "read-only file system") {
			t.Errorf("it exits %d: %s", r.code, r.both())
		}
	})
}

// A run directory that somebody else prepared could be changed under a running
// tree.
func TestRunDirectoryOfSomebodyElse(t *testing.T) {
	for _, tc := range []struct{ name, prepare, want string }{
		{"of another user", "mkdir /opt/run && chown 4242 /opt/run", "belongs to uid 4242"},
		{"anybody may write", "mkdir -m 777 /opt/run && chown 10000 /opt/run", "can be written by others"},
		{"a link", "mkdir /opt/else && ln -s /opt/else /opt/run", "is not a directory"},
		{"a file", "echo >/opt/run", "is not a directory"},
		{"a parent that is missing", "true", "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			parallel(t)
			dir := "/opt/run"
			if strings.Contains(tc.name, "missing") {
				dir = "/opt/none/run"
			}
			r := runToEnd(t, spec{
				flags: []string{"--entrypoint", "sh"}, env: []string{"HERMES_RUN_DIR=" + dir},
				cmd: []string{"-c", tc.prepare + "; exec /init gateway run"},
			})
			wantRefusal(t, r, "HERMES_RUN_DIR="+dir, tc.want)
		})
	}
}

// Where only /tmp is left, /tmp/hermes-UID made by another user is not entered.
func TestPlantedTemporaryRunDirectory(t *testing.T) {
	parallel(t)
	r := runToEnd(t, spec{
		flags: []string{"--entrypoint", "sh"},
		cmd: []string{"-c", `setpriv --reuid 4242 --clear-groups mkdir -m 777 /tmp/hermes-12345
			exec setpriv --reuid 12345 --regid 0 --clear-groups /init gateway run`},
	})
	wantRefusal(t, r, "/tmp/hermes-12345 belongs to uid 4242", "--tmpfs")
}

// A volume without room is refused at the start; where it fills up later the
// gateway says that it is degraded, and serves again once there is room.
func TestFullVolume(t *testing.T) {
	small := []string{"--tmpfs", "/opt/data:size=8m,mode=1777"}
	const ballast = "head -c 20m /dev/zero >/opt/data/ballast 2>/dev/null; "
	t.Run("at the start", func(t *testing.T) {
		parallel(t)
		r := runToEnd(t, spec{flags: append([]string{"--entrypoint", "sh"}, small...), cmd: []string{"-c", ballast + "exec /init gateway run"}})
		wantRefusal(t, r, "/opt/data", "no space left on device", "make room")
	})
	t.Run("later", func(t *testing.T) {
		parallel(t)
		c := gateway(t, spec{flags: small})
		c.exec("sh", "-c", ballast)
		r := c.exec("hermes", "chat", "is there room")
		if r.code != 1 || !strings.Contains(r.stderr, "full") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("chat on a full volume exits %d: %s", r.code, r.stderr)
		}
		if row := c.waitState("gateway-default", "degraded"); !strings.Contains(row.Reason, "full") {
			t.Errorf("the row on a full volume is %s", row)
		}
		// Its own /readyz says that it serves nobody; the container stays where it is.
		if answer := c.readyz(); !strings.HasPrefix(answer, "HTTP/1.0 503 ") || !strings.Contains(answer, `"degraded"`) {
			t.Errorf("/readyz on a full volume says %s", answer)
		}
		c.mustExec("hermes", "healthcheck", "--ready")
		c.mustExec("hermes", "healthcheck")
		list, _ := doctor(t, c)
		wantFinding(t, list, "volume.writable", "problem", "is full", "make room")
		c.mustExec("rm", "/opt/data/ballast")
		c.waitState("gateway-default", "ready")
		c.chats()
		if code, took := c.stop(); code != 0 || took > quick {
			t.Errorf("docker stop: exit code %d after %s", code, took)
		}
	})
}

// readyz is what the default profile's gateway answers, asked from inside.
func (c *container) readyz() string {
	c.t.Helper()
	return c.mustExec("bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/8642; printf 'GET /readyz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3; cat <&3`)
}

// Too little room for rotated logs: the container's own log has them all.
func TestNoRoomForLogs(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{flags: []string{"--tmpfs", "/opt/data:size=2m,mode=1777"}})
	c.livesAndStops()
	for _, want := range []string{"gateway-default: log to stdout only: ", "[default] info gateway ready"} {
		if !strings.Contains(c.logs(), want) {
			t.Errorf("the logs do not say %q:\n%s", want, c.logs())
		}
	}
}
