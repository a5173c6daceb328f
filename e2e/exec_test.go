package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// Whoever comes by docker exec, with whatever environment, finds the one live
// tree, or is told whose it is.

func TestExecFindsTheTree(t *testing.T) {
	inTmp := []string{"--user", "12345:0"} // /run is root's
	for _, place := range []struct {
		name  string
		flags []string
		scan  string
		uid   string
		root  bool // may enter
	}{
		{"in run", nil, "/run/service", "10000", true},
		{"in tmp", inTmp, "/tmp/hermes-12345/service", "12345", true},
		{"in tmp, no capabilities", append([]string{"--cap-drop", "ALL", "--security-opt", "no-new-privileges"}, inTmp...), "/tmp/hermes-12345/service", "12345", false},
		{"in run, no dac_override", []string{"--cap-drop", "DAC_OVERRIDE"}, "/run/service", "10000", true},
	} {
		t.Run(place.name, func(t *testing.T) {
			parallel(t)
			c := gateway(t, spec{flags: place.flags})
			for _, who := range []struct {
				user  string
				enter bool
			}{
				{"0", place.root},
				{place.uid, true},
				{place.uid + ":4711", true},
				{"5000", false},
				{"5000:0", false},
			} {
				for _, env := range [][]string{nil, {"env", "-i"}, {"env", "-i", "HOME=/nowhere", "XDG_RUNTIME_DIR=/tmp", "HERMES_RUN_DIR=/opt/data"}} {
					argv := append(append([]string{"exec", "-u", who.user, c.name}, env...), "/usr/local/bin/hermes", "gateway", "status")
					r := docker(t, argv...)
					said := fmt.Sprintf("as %s with %q it exits %d: %s", who.user, env, r.code, r.both())
					switch {
					case !strings.Contains(r.both(), place.scan):
						t.Errorf("%s; it does not name %s", said, place.scan)
					case who.enter && (r.code != 0 || !strings.Contains(r.stdout, "ready")):
						t.Errorf("%s; it may look", said)
					case !who.enter && (r.code != 1 || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, "docker exec -u "+place.uid)):
						t.Errorf("%s; want 1 and one line that says as whom", said)
					}
				}
			}
		})
	}
}

// What a command of root's leaves belongs to the service user.
func TestExecAsRootLeavesNothingOfRoots(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	for _, argv := range [][]string{
		{"profile", "create", "work"},
		{"gateway", "stop"},
		{"gateway", "start"},
		{"gateway", "restart"},
		{"chat", "hello"},
		{"config", "show"},
		{"config", "set", "chat.busy", "interrupt"},
		{"-p", "work", "config", "set", "irc.password", "--from-file", "/etc/hostname"},
	} {
		c.mustExec(append([]string{"env", "-i", "/usr/local/bin/hermes"}, argv...)...)
	}
	if foreign := c.mustExec("find", "/opt/data", "/run/service", "/run/hermes", "!", "-uid", "10000"); foreign != "" {
		t.Errorf("these do not belong to the service user:\n%s", foreign)
	}
}

// A tree that somebody else made up in /tmp is not believed: root would become
// whoever it says, and any user would send it their commands. This one has all
// that ours has: a live s6-svscan and a mark.
func TestPlantedTreeIsNotBelieved(t *testing.T) {
	for _, tc := range []struct{ name, dir, mark, as string }{
		{"of a uid that is not its owner's", "/tmp/hermes-666", `"uid":666`, "5000"},
		{"that names another uid than its owner's", "/tmp/hermes-5000", `"uid":0`, "5000"},
		{"that anybody may write", "/tmp/hermes-5000", `"uid":5000`, "5000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			parallel(t)
			c := gateway(t, spec{flags: []string{"--user", "12345:0"}})
			mustDocker(t, "exec", "-d", "-u", tc.as, c.name, "sh", "-c", `umask 0; mkdir -p `+tc.dir+`/hermes `+tc.dir+`/service &&
				echo '{"schema":1,`+tc.mark+`,"gid":0,"groups":[0],"home":"/opt/planted","profile":"default"}' >`+tc.dir+`/hermes/tree.json &&
				exec s6-svscan `+tc.dir+`/service`)
			until(t, "the planted tree lives", func() error {
				if r := docker(t, "exec", "-u", "0", c.name, "test", "-p", tc.dir+"/service/.s6-svscan/control"); r.code != 0 {
					return errorOf(r)
				}
				return nil
			})
			for _, user := range []string{"0", "12345"} {
				r := docker(t, "exec", "-u", user, c.name, "env", "-i", "/usr/local/bin/hermes", "gateway", "status")
				if r.code != 0 || !strings.Contains(r.stdout, "(/tmp/hermes-12345/service)") {
					t.Errorf("as uid %s it exits %d: %s", user, r.code, r.both())
				}
			}
		})
	}
}
