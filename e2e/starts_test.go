package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Every way people start a container: in each the gateway answers, comes back
// after kill -9, restarts when it is told to, and stops with 0.

// way is one way of starting.
type way struct {
	name string
	spec spec
	uid  string   // the gateway's, "10000" when empty
	says []string // lines that the logs must have, once each
}

const notPID1 = "hermes: not PID 1: s6-svscan reaps what its services leave, PID 1 (docker-init) all else"

func TestWaysOfStarting(t *testing.T) {
	for _, w := range []way{
		{name: "default"},
		{name: "init", spec: spec{flags: []string{"--init"}}, says: []string{notPID1}},
		{name: "user 12345:0", spec: spec{flags: []string{"--user", "12345:0"}}, uid: "12345"},
		{name: "read-only root", spec: spec{flags: []string{"--read-only", "--tmpfs", "/tmp"}}},
		{
			name: "no capabilities", spec: spec{flags: []string{"--cap-drop", "ALL", "--security-opt", "no-new-privileges"}}, uid: "0",
			says: []string{"hermes: root without CAP_SETUID and CAP_SETGID stays root: the services run as uid 0"},
		},
		{name: "noexec run", spec: spec{flags: []string{"--tmpfs", "/run"}}},
		{name: "all together", spec: spec{flags: []string{
			"--init", "--user", "12345:0", "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/run",
			"--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		}}, uid: "12345", says: []string{notPID1}},
		{name: "PUID and PGID", spec: spec{env: []string{"PUID=99", "PGID=100"}, flags: []string{"--group-add", "777"}}, uid: "99"},
		// Nothing may ask whether this is Docker.
		{name: "no dockerenv", spec: spec{
			flags: []string{"--entrypoint", "sh"},
			cmd:   []string{"-c", "rm /.dockerenv && exec /init gateway run"},
		}},
	} {
		t.Run(w.name, func(t *testing.T) {
			parallel(t)
			c := gateway(t, w.spec)
			if w.uid == "" {
				w.uid = "10000"
			}
			if uid := c.statusLine(c.gatewayPID(), "Uid"); uid != w.uid {
				t.Errorf("the gateway runs as uid %s, want %s", uid, w.uid)
			}
			c.livesAndStops()
			c.wantTidyLogs(w.says...)
		})
	}
}

// A uid outside group 0 needs a volume of its own.
func TestUserWithAVolumeOfItsOwn(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{flags: []string{"--user", "12345:54321", "-v", volumeOf(t, "12345:54321") + ":/opt/data"}})
	if uid := c.statusLine(c.gatewayPID(), "Uid"); uid != "12345" {
		t.Errorf("the gateway runs as uid %s", uid)
	}
	c.livesAndStops()
	c.wantTidyLogs()
}

// --group-add is kept, and group 0 with it: what an administrator gave by
// group stays readable.
func TestSupplementaryGroupsAreKept(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{env: []string{"PUID=99", "PGID=100"}, flags: []string{"--group-add", "777"}})
	pid := c.gatewayPID()
	if gid := c.statusLine(pid, "Gid"); gid != "100" {
		t.Errorf("with PGID=100 the gateway has gid %s", gid)
	}
	groups := c.groups(pid)
	for _, want := range []string{"0", "777"} {
		if !slices.Contains(groups, want) {
			t.Errorf("the gateway is in the groups %v, without %s", groups, want)
		}
	}
}

// Under docker run --init what a service leaves is still reaped.
func TestOrphansUnderDockersInit(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{flags: []string{"--init"}})
	c.mustExec("sh", "-c", `i=0; while [ $i -lt 200 ]; do (: &) ; i=$((i+1)); done`)
	until(t, "every orphan is reaped", c.noZombies)
	c.wantService("gateway-default", "ready", "up")
}

// In another container's pid namespace nothing of that one is touched: not by
// a restart, not by a stop, not by what sweeps left-overs up. Its processes
// run as the same user, so that the kernel would let us.
func TestGuestInAnotherPidNamespace(t *testing.T) {
	parallel(t)
	host := start(t, spec{
		flags: []string{"--user", "10000:0", "--entrypoint", "sh"},
		cmd: []string{"-c", `for s in TERM INT HUP QUIT USR1; do trap "echo host got $s" $s; done
			sleep 86400 & setsid sleep 86401 & echo up; while :; do sleep 1 & wait $!; done`},
	})
	host.logged("up")
	before := host.bystanders()
	c := gateway(t, spec{flags: []string{"--pid", "container:" + host.name}})
	c.livesAndStops()
	c.wantTidyLogs("hermes: not PID 1: s6-svscan reaps what its services leave, PID 1 (sh) all else")
	if host.inspect("{{.State.Running}}") != "true" {
		t.Fatal("the stop ended the container whose pid namespace was borrowed")
	}
	if after := host.bystanders(); !slices.Equal(before, after) {
		t.Errorf("the host container's processes were %v, now %v", before, after)
	}
	if logs := host.logs(); strings.Contains(logs, "host got") {
		t.Errorf("the host container was signalled:\n%s", logs)
	}
	until(t, "nothing of ours is left there", func() error {
		for _, p := range host.everything() {
			if strings.HasPrefix(p.name, "s6-") || p.name == "hermes" {
				return errors.New(p.String())
			}
		}
		return nil
	})
}

// bystanders are the pids of what must not be touched, in order.
func (c *container) bystanders() []int {
	c.t.Helper()
	var pids []int
	for pid, p := range c.everything() {
		if pid == 1 || p.name == "sleep" && len(p.argv) == 2 && strings.HasPrefix(p.argv[1], "8640") {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// As a guest of a root tree the slot, its logger and what they write belong to
// HERMES_UID; only the supervisors are root.
func TestGuestSlotDropsToTheServiceUser(t *testing.T) {
	parallel(t)
	c := start(t, spec{
		flags: []string{"--entrypoint", "sh"}, env: []string{"HERMES_UID=1234", "HERMES_GID=4321"},
		cmd: []string{"-c", "chown 1234 /opt/data; mkdir -p /run/s6/basedir; " + svscan + "hermes gateway run & wait"},
	})
	c.waitState("gateway-default", "ready")
	if uid := c.statusLine(1, "Uid"); uid != "0" {
		t.Errorf("the tree around it runs as uid %s", uid)
	}
	for _, argv := range [][]string{{"hermes", "gateway", "run"}, {"s6-log"}} {
		pid := c.only(argv...).pid
		if uid, gid := c.statusLine(pid, "Uid"), c.statusLine(pid, "Gid"); uid != "1234" || gid != "4321" {
			t.Errorf("%q runs as %s:%s, want 1234:4321", argv, uid, gid)
		}
	}
	c.chats()
	c.mustExec("hermes", "gateway", "restart")
	c.wantService("gateway-default", "ready", "up")
	if foreign := c.mustExec("find", "/opt/data", "!", "-uid", "1234"); foreign != "" {
		t.Errorf("these do not belong to the service user:\n%s", foreign)
	}
	c.mustExec("hermes", "gateway", "stop")
	c.wantService("gateway-default", "down", "down")
}

// livesAndStops is the life of a container: it answers, the gateway comes back
// after kill -9, is restarted on command, and docker stop ends all with 0.
func (c *container) livesAndStops() {
	c.t.Helper()
	c.chats()
	first := c.gatewayPID()
	// As the gateway's own user: root may lack CAP_KILL.
	mustDocker(c.t, "exec", "-u", c.statusLine(first, "Uid"), c.name, "sh", "-c", fmt.Sprintf("kill -KILL %d", first))
	second := c.anotherGateway(first)
	c.mustExec("hermes", "gateway", "restart")
	c.anotherGateway(second)
	c.chats()
	if code, took := c.stop(); code != 0 || took > quick {
		c.t.Errorf("docker stop: exit code %d after %s, want 0 within %s", code, took, quick)
	}
}

func (c *container) chats() {
	c.t.Helper()
	if reply := c.mustExec("hermes", "chat", "are you there"); !strings.Contains(reply, "are you there") {
		c.t.Errorf("it answers %q", reply)
	}
}

// gatewayPID is the pid of the running gateway, as status has it.
func (c *container) gatewayPID() int {
	c.t.Helper()
	row := c.waitState("gateway-default", "ready")
	if row.PID == nil {
		c.t.Fatalf("a ready gateway without a pid: %s", row)
	}
	return *row.PID
}

// anotherGateway waits until a gateway other than old is ready.
func (c *container) anotherGateway(old int) (pid int) {
	c.t.Helper()
	until(c.t, "a new gateway is ready", func() error {
		row, err := c.service("gateway-default")
		if err == nil && (row.State != "ready" || row.PID == nil || *row.PID == old) {
			err = fmt.Errorf("it is %s", row)
		}
		if err == nil {
			pid = *row.PID
		}
		return err
	})
	return pid
}

// statusLine is the first value of a line of /proc/PID/status (proc(5)).
func (c *container) statusLine(pid int, name string) string {
	c.t.Helper()
	value, _, _ := strings.Cut(c.mustExec("sed", "-n", `s/^`+name+`:\t//p`, fmt.Sprintf("/proc/%d/status", pid)), "\t")
	return value
}

// volumeOf makes a volume that belongs to owner, UID:GID, with a file in it:
// an empty one Docker gives the image's owner again.
func volumeOf(t *testing.T, owner string) string {
	t.Helper()
	name := volume(t)
	prepare(t, name, "touch note && chown -R "+owner+" .")
	return name
}

// prepare runs a shell script as root in a volume or bind mount.
func prepare(t testing.TB, source, script string) {
	t.Helper()
	mustDocker(t, "run", "--rm", "--label", label(), "-v", source+":/mnt", "-w", "/mnt", "--entrypoint", "sh", image(), "-c", script)
}

// wantTidyLogs fails unless docker logs has each of says exactly once and
// nothing that no user should see.
func (c *container) wantTidyLogs(says ...string) {
	c.t.Helper()
	logs := c.logs()
	for _, line := range says {
		if n := strings.Count(logs, line+"\n"); n != 1 {
			c.t.Errorf("the logs say %d times, want once: %q\n%s", n, line, logs)
		}
	}
	for _, ugly := range []string{"goroutine ", "panic", "s6-supervise", "s6-svscan: ", "s6-log: ", "%!", "cannot ", "denied", "<nil>"} {
		if strings.Contains(logs, ugly) {
			c.t.Errorf("the logs have %q:\n%s", ugly, logs)
		}
	}
	for line := range strings.Lines(logs) {
		expected := strings.HasPrefix(line, "hermes: ") || strings.HasPrefix(line, "[") || slices.Contains(says, strings.TrimSpace(line))
		if !expected {
			c.t.Errorf("a stray line in the logs: %q", line)
		}
	}
}

// `version -o json` says what runs: a report of a fault starts with it.
func TestVersionAsJSON(t *testing.T) {
	parallel(t)
	r := runToEnd(t, spec{cmd: []string{"version", "-o", "json"}})
	var got map[string]any
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.code != 0 {
		t.Fatalf("it exits %d, %v: %s", r.code, err, r.both())
	}
	for key, ok := range map[string]func(any) bool{
		"version": func(v any) bool { s, _ := v.(string); return s != "" },
		"commit":  func(v any) bool { s, _ := v.(string); return len(s) == 40 || s == "" },
		"dirty":   func(v any) bool { _, is := v.(bool); return is },
		"go":      func(v any) bool { s, _ := v.(string); return strings.HasPrefix(s, "go1.") },
		"os":      func(v any) bool { return v == "linux" },
		"arch":    func(v any) bool { s, _ := v.(string); return s != "" },
		"s6":      func(v any) bool { s, _ := v.(string); return strings.HasSuffix(s, "/s6-svscan") },
	} {
		if !ok(got[key]) {
			t.Errorf("%s is %v in %s", key, got[key], r.stdout)
		}
	}
}
