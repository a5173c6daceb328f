package e2e

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The first run on a directory of the host, whoever it belongs to.

// bind is a directory of the host to be mounted. What services leave in it
// belongs to others, so a container empties it.
func bind(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { prepare(t, dir, "find . -mindepth 1 -delete") })
	return dir
}

// owners are the uids of paths in the container, in order.
func (c *container) owners(paths ...string) string {
	c.t.Helper()
	return strings.Join(strings.Fields(c.mustExec(append([]string{"stat", "-c", "%u"}, paths...)...)), " ")
}

// Docker makes a missing directory as root:root: it becomes the service user's.
func TestMissingBindMountBecomesTheServiceUsers(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{flags: []string{"-v", filepath.Join(bind(t), "missing") + ":/opt/data"}})
	c.chats()
	if foreign := c.mustExec("find", "/opt/data", "!", "-uid", "10000"); foreign != "" {
		t.Errorf("these do not belong to the service user:\n%s", foreign)
	}
	c.wantTidyLogs()
}

// What an earlier hermes that ran as root left is given away: our own paths
// and no others, and no link is followed.
func TestRootsOldVolumeIsRepairedWithoutAWalk(t *testing.T) {
	parallel(t)
	data := volume(t)
	prepare(t, data, `chown 0:0 . && echo '{"want":"up","by":"cli"}' >intent.json && echo >config.yaml && mkdir -p mine logs/gateways &&
		echo >mine/file && ln -s /etc/passwd logs/boot.log && chown -R 0:0 . && chmod 600 config.yaml intent.json`)
	c := gateway(t, spec{flags: []string{"-v", data + ":/opt/data"}})
	if got, want := c.owners("/opt/data", "/opt/data/intent.json", "/opt/data/config.yaml", "/opt/data/logs/gateways", "/opt/data/mine/file", "/etc/passwd"),
		"10000 10000 10000 10000 0 0"; got != want {
		t.Errorf("top, intent.json, config.yaml, logs/gateways, mine/file and /etc/passwd belong to %s, want %s", got, want)
	}
	c.wantTidyLogs()
}

func TestOwnerOfABindMountIsAdopted(t *testing.T) {
	parallel(t)
	dir := bind(t)
	prepare(t, dir, "echo mine >note && chown -R 4242:4243 .")
	c := gateway(t, spec{flags: []string{"-v", dir + ":/opt/data"}})
	pid := c.gatewayPID()
	if uid, gid := c.statusLine(pid, "Uid"), c.statusLine(pid, "Gid"); uid != "4242" || gid != "4243" {
		t.Errorf("the gateway runs as %s:%s, want the volume's 4242:4243", uid, gid)
	}
	c.chats()
	if foreign := c.mustExec("find", "/opt/data", "!", "-uid", "4242"); foreign != "" {
		t.Errorf("these do not belong to the volume's owner:\n%s", foreign)
	}
	c.wantTidyLogs("hermes: /opt/data belongs to uid 4242: the services run as that user; set HERMES_UID to choose another")
}

// A group 0 of the owner is not adopted: there would be no PGID to say it with.
func TestGroupZeroIsNotAdopted(t *testing.T) {
	parallel(t)
	dir := bind(t)
	prepare(t, dir, "chown 4242:0 .")
	r := runToEnd(t, spec{flags: []string{"-v", dir + ":/opt/data"}, cmd: []string{"id"}})
	if r.code != 0 || !strings.Contains(r.stdout, "uid=4242 gid=10000") {
		t.Errorf("on a volume of 4242:0 it exits %d: %s", r.code, r.both())
	}
}

func TestAnotherUserThanTheVolumesIsRefused(t *testing.T) {
	for _, tc := range []struct {
		name, prepare, variable, remedy string
	}{
		{"with content", "echo mine >note && chown -R 4242:4243 .", "HERMES_UID", "-e PUID=4242 -e PGID=4243"},
		{"empty", "chown 4242:4243 .", "PUID", "-e PUID=4242 -e PGID=4243"},
		{"of group 0", "chown 4242:0 .", "PUID", "-e PUID=4242,"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			parallel(t)
			dir := bind(t)
			prepare(t, dir, tc.prepare)
			r := runToEnd(t, spec{flags: []string{"-v", dir + ":/opt/data"}, env: []string{tc.variable + "=77"}, cmd: []string{"gateway", "run"}})
			wantRefusal(t, r, "/opt/data", "4242", tc.variable+" is 77", tc.remedy)
			if after := runToEnd(t, spec{flags: []string{"-v", dir + ":/mnt", "--entrypoint", "stat"}, cmd: []string{"-c", "%u", "/mnt"}}); strings.TrimSpace(after.stdout) != "4242" {
				t.Errorf("the refusal gave the directory to %s", after.both())
			}
		})
	}
}

// Start-up does not walk the volume: a change of an inode, be it only of its
// owner, would show in its ctime.
func TestStartUpDoesNotGrowWithTheVolume(t *testing.T) {
	parallel(t)
	dir := bind(t)
	const files = 20000
	prepare(t, dir, `mkdir files && cd files && seq `+strconv.Itoa(files)+` | xargs touch`) // all root's
	c := gateway(t, spec{flags: []string{"-v", dir + ":/opt/data"}})
	touched := c.mustExec("sh", "-c", `find /opt/data/files -uid 10000 -o -cnewer /opt/data/intent.json | wc -l`)
	if touched != "0" {
		t.Errorf("start-up touched %s of %d files that are none of its own", touched, files)
	}
	if n := c.mustExec("sh", "-c", "find /opt/data/files -type f | wc -l"); n != strconv.Itoa(files) {
		t.Fatalf("the volume has %s files", n)
	}
	many, few := startUp(t, dir), startUp(t, bind(t))
	t.Logf("start-up: %s on %d files, %s on none", many, files, few)
	// Loose, because the machine is shared: a walk of 20,000 files takes seconds
	// on a cold disk; the proof is the one above.
	if many > 3*few+2*time.Second {
		t.Errorf("start-up takes %s on %d files and %s on none", many, files, few)
	}
}

// startUp is the best of three runs of `true`.
func startUp(t *testing.T, dir string) time.Duration {
	t.Helper()
	best := time.Hour
	for range 3 {
		began := time.Now()
		if r := runToEnd(t, spec{flags: []string{"-v", dir + ":/opt/data"}, cmd: []string{"true"}}); r.code != 0 {
			t.Fatalf("true exits %d: %s", r.code, r.both())
		}
		best = min(best, time.Since(began))
	}
	return best
}

// A filesystem that refuses chown (a NAS that squashes root; here root without
// the capability) is worth a line, and no reason to fail.
func TestRefusedChownIsInformation(t *testing.T) {
	parallel(t)
	dir := bind(t)
	prepare(t, dir, "chown 0:0 . && chmod 777 .")
	c := gateway(t, spec{flags: []string{"--cap-drop", "CHOWN", "-v", dir + ":/opt/data"}})
	if uid := c.statusLine(c.gatewayPID(), "Uid"); uid != "10000" {
		t.Errorf("the gateway runs as uid %s", uid)
	}
	c.livesAndStops()
	c.wantTidyLogs("hermes: /opt/data stays as it is: its filesystem refuses to give it to uid 10000 (operation not permitted)")
}

// Root that may change its user and little else: the usual remains of
// --cap-drop ALL --cap-add SETUID --cap-add SETGID.
func TestRootWithFewCapabilities(t *testing.T) {
	for _, tc := range []struct {
		name  string
		flags []string
	}{
		{"setuid and setgid", []string{"--cap-drop", "ALL", "--cap-add", "SETUID", "--cap-add", "SETGID"}},
		{"no dac_override, no fowner", []string{"--cap-drop", "DAC_OVERRIDE", "--cap-drop", "FOWNER"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			parallel(t)
			c := gateway(t, spec{flags: tc.flags})
			if uid := c.statusLine(c.gatewayPID(), "Uid"); uid != "10000" {
				t.Errorf("the gateway runs as uid %s", uid)
			}
			mustDocker(t, "restart", c.name) // over what the first boot left in the container's own layer
			c.waitState("gateway-default", "ready")
			c.livesAndStops()
		})
	}
}
