package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// From a process with the service's uid there is no way to run or write
// anything as another uid, whatever it leaves where root comes by: in a tree of
// our own that is docker exec (HEALTHCHECK is one), in somebody else's the
// supervisors themselves.

// attacker returns what runs a shell script as the service user, with the
// groups that its processes have.
func (c *container) attacker() func(script string) {
	c.t.Helper()
	pid := c.gatewayPID()
	as := []string{"--reuid", c.statusLine(pid, "Uid"), "--regid", c.statusLine(pid, "Gid"), "--clear-groups"}
	if groups := c.groups(pid); len(groups) > 0 {
		as = append(as[:4], "--groups", strings.Join(groups, ","))
	}
	return func(script string) {
		c.t.Helper()
		r := docker(c.t, append(append([]string{"exec", "-u", "0", c.name, "setpriv"}, as...), "sh", "-c", script)...)
		c.t.Logf("the attack: exit code %d %s", r.code, r.both())
	}
}

// groups are the supplementary groups of a process.
func (c *container) groups(pid int) []string {
	c.t.Helper()
	return strings.Fields(c.mustExec("sed", "-n", "s/^Groups://p", fmt.Sprintf("/proc/%d/status", pid)))
}

// crown is a directory of root's, and what it looked like before.
const (
	crown    = "mkdir -p /crown && echo precious >/crown/file && chmod 600 /crown/file && cp /etc/passwd /crown/passwd"
	crownNow = "cd /crown && stat -c '%n %U %G %a %s' . * .[!.]* 2>/dev/null; stat -c '%n %U %G %a %s' /etc /etc/passwd /etc/shadow /usr/local/bin/hermes; ls -a /etc; cat file; cmp /etc/passwd passwd; ls /"
)

// unharmed fails if what f does changes anything of root's.
func (c *container) unharmed(f func()) {
	c.t.Helper()
	docker(c.t, "exec", "-u", "0", c.name, "sh", "-c", crown)
	before := mustDocker(c.t, "exec", "-u", "0", c.name, "sh", "-c", crownNow)
	f()
	if after := mustDocker(c.t, "exec", "-u", "0", c.name, "sh", "-c", crownNow); after != before {
		c.t.Errorf("root's files were\n%s\nand are\n%s", before, after)
	}
}

// rootComesBy runs, as root, what people and platforms run by docker exec.
// Whether it succeeds on a volume like this is another matter; it must end.
func (c *container) rootComesBy() {
	c.t.Helper()
	var script strings.Builder
	for _, args := range []string{
		"healthcheck", "gateway status --all", "profile create made", "gateway stop", "gateway start --no-wait",
		"-p made gateway start --no-wait", "-p evil gateway start --no-wait", "gateway stop --all",
		"gateway restart --no-wait", "gateway logs -n 1", "config show", "config set chat.busy interrupt",
		"config set irc.password --from-file /etc/hostname", "config set log.level --unset", "chat hello",
	} {
		fmt.Fprintf(&script, "echo '# hermes %s'; timeout -s KILL 20 hermes %s; echo exit code $?\n", args, args)
	}
	r := docker(c.t, "exec", "-u", "0", c.name, "sh", "-c", script.String())
	for _, never := range []string{"exit code 137", "precious", "goroutine "} {
		if strings.Contains(r.both(), never) {
			c.t.Errorf("root's commands say %q:\n%s%s", never, r.stdout, r.stderr)
		}
	}
}

// The volume as an attacker leaves it.
const (
	linksOnVolume = `cd /opt/data && rm -rf intent.json profiles logs gateway.lock config.yaml .env
		ln -s /crown/file intent.json; ln -s /crown profiles; ln -s /crown logs; ln -s /crown/file gateway.lock; ln -s /crown/file .env`
	deepLinksOnVolume = `cd /opt/data && rm -rf logs profiles && mkdir -p logs profiles && ln -s /crown logs/gateways && ln -s /crown profiles/evil; ln -s /crown logs/boot.log`
	fifosOnVolume     = `cd /opt/data && rm -rf intent.json profiles logs gateway.lock && mkfifo intent.json gateway.lock && mkdir -p logs/gateways/default profiles && mkfifo logs/gateways/default/current`
)

func TestRootsCommandsOnAHostileVolume(t *testing.T) {
	for name, script := range map[string]string{"links": linksOnVolume, "deep links": deepLinksOnVolume, "FIFOs": fifosOnVolume} {
		for _, guest := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, guest=%v", name, guest), func(t *testing.T) {
				parallel(t)
				c := victim(t, guest)
				attack := c.attacker()
				c.unharmed(func() {
					attack(script)
					c.rootComesBy()
					attack("rm -rf /run/hermes/tree.json") // and without the mark
					c.rootComesBy()
				})
			})
		}
	}
}

// victim is a ready gateway in a tree of its own, or as a guest in root's.
func victim(t *testing.T, guest bool) *container {
	t.Helper()
	if !guest {
		return gateway(t, spec{})
	}
	c := without(t, "mkdir -p /run/s6/basedir; "+svscan+"hermes gateway run & wait")
	c.waitState("gateway-default", "ready")
	return c
}

// The mark names who root becomes. One that its owner changed does not make
// root anybody else, nor give it a group that the tree has not.
func TestForgedMarkGivesNothing(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	attack := c.attacker()
	attack("cp /run/hermes/tree.json /tmp/mark")
	for _, edit := range []string{
		`s/"uid": [0-9]*/"uid": 0/`,
		`s/"gid": [0-9]*/"gid": 42/; s/"groups": \[/"groups": [42,/`,
		`s/"scanner_pid": [0-9]*/"scanner_pid": 999999/; s/"groups": \[/"groups": [42,/`,
		`s/"home": "[^"]*"/"home": "\/crown"/`,
	} {
		attack("sed '" + edit + "' /tmp/mark >/run/hermes/tree.json")
		// with-contenv shows who a command of root's becomes.
		r := docker(t, "exec", "-u", "0", c.name, "/command/with-contenv", "sh", "-c", "id -u; id -G")
		if got := strings.Fields(r.stdout); len(got) > 0 && got[0] != "10000" || slices.Contains(got, "42") {
			t.Errorf("after %s root becomes %s", edit, r.both())
		}
		c.unharmed(func() {
			docker(t, "exec", "-u", "0", c.name, "env", "-i", "/usr/local/bin/hermes", "profile", "create", "made")
		})
	}
}

// The environment that with-contenv loads is the services' to write. What it
// says root shall run is not run as root.
func TestWithContenvRunsNothingAsRoot(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	attack := c.attacker()
	attack(`mkdir -p /tmp/bin && printf '#!/bin/sh\necho evil runs as $(/usr/bin/id -u)\n' >/tmp/bin/date && chmod 755 /tmp/bin/date &&
		printf /tmp/bin >/run/s6/container_environment/PATH`)
	r := docker(t, "exec", "-u", "0", c.name, "/command/with-contenv", "date")
	if !strings.Contains(r.both(), "evil runs as 10000") {
		t.Errorf("with-contenv as root exits %d: %s", r.code, r.both())
	}
	attack("rm -rf /run/hermes/tree.json")
	if r := docker(t, "exec", "-u", "0", c.name, "/command/with-contenv", "date"); strings.Contains(r.both(), "evil runs as 0") {
		t.Errorf("with-contenv as root, without a mark, exits %d: %s", r.code, r.both())
	}
}

// In a root tree the supervisors write into the slot: whatever they write or
// follow must be out of the service's reach.
func TestGuestCannotReachTheSupervisors(t *testing.T) {
	parallel(t)
	c := victim(t, true)
	reach := `for f in $(find /run/service /run/s6 -writable ! -type l 2>/dev/null); do echo "reach: $f"; done; id`
	if groups := c.groups(c.gatewayPID()); slices.Contains(groups, "0") {
		t.Errorf("the guest's slot is in root's group, which may write event directories: groups %v", groups)
	}
	attack := c.attacker()
	if out := mustDocker(t, "exec", "-u", "10000:10000", c.name, "sh", "-c", reach); strings.Contains(out, "reach: ") {
		t.Errorf("the service may write into the tree:\n%s", out)
	}
	c.unharmed(func() {
		// An event directory follows its subscribers by name; root writes a byte to each.
		attack(`ln -s /crown/file /run/service/gateway-default/event/ftrig1:@400000006553f1000000000000000000:AAAAAA
			ln -sf /crown/file /run/service/gateway-default/supervise/status.new
			ln -sf /crown/file /run/service/gateway-default/data/record.json
			rm -f /run/service/gateway-default/run && ln -s /tmp/evil /run/service/gateway-default/run
			echo x >/run/service/gateway-default/supervise/control`)
		for range 2 {
			pid := c.gatewayPID()
			c.kill("KILL", pid)
			c.anotherGateway(pid)
		}
		c.mustExec("hermes", "gateway", "restart")
	})
}

// What a service leaves as its last words is read by root's finish: its own
// short line at most, never another's file, and it never waits.
func TestLastWordsAreOnlyWords(t *testing.T) {
	parallel(t)
	c := victim(t, true)
	attack := c.attacker()
	for name, plant := range map[string]string{
		"a link":      "ln -s /crown/file $F",
		"a hard link": "ln /opt/data/hermes.db $F",
		"a FIFO":      "mkfifo $F",
		"a directory": "mkdir $F && echo x >$F/x",
		"a huge file": "head -c 100m /dev/zero | tr '\\0' x >$F",
		"escapes":     `printf '\033]0;evil\007words\n' >$F`,
	} {
		c.unharmed(func() {
			attack("F=/run/hermes/gateway-default.lastwords; rm -rf $F; " + plant)
			c.mustExec("hermes", "gateway", "restart")
		})
		row := c.waitState("gateway-default", "ready")
		if row.LastExit == nil {
			t.Fatalf("after a restart: %s", row)
		}
		if reason := row.LastExit.Reason; len(reason) > 1100 || strings.Contains(reason, "precious") || strings.ContainsAny(reason, "\x1b\a") {
			t.Errorf("%s: the last exit is told as %.200q", name, reason)
		}
	}
}

// A log directory that leads elsewhere: the logger is the service user's too.
func TestLogDirectoryLeadsNowhereElse(t *testing.T) {
	parallel(t)
	c := victim(t, true)
	attack := c.attacker()
	c.unharmed(func() {
		attack("cd /opt/data && rm -rf logs && ln -s /crown logs")
		for _, p := range c.find("s6-log") {
			c.kill("KILL", p.pid)
		}
		until(t, "there is a logger again", func() error {
			if n := len(c.find("s6-log", "p[default]")); n != 1 {
				return fmt.Errorf("there are %d", n)
			}
			return nil
		})
		c.mustExec("hermes", "gateway", "restart")
	})
}

// A data directory behind a link of the service's would decide, at the next
// start, what root gives away and as whom all runs.
func TestHomeBehindALinkOfTheServices(t *testing.T) {
	parallel(t)
	data := volume(t)
	flags := []string{"-v", data + ":/opt/data"}
	prepare(t, data, "chown 10000 . && ln -s /etc home && chown -h 10000 home")
	r := runToEnd(t, spec{flags: flags, env: []string{"HERMES_HOME=/opt/data/home"}, cmd: []string{"gateway", "run"}})
	wantRefusal(t, r, "/opt/data/home", "uid 10000", "as root")
}
