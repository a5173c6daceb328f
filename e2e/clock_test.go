package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/testenv"
)

// clock is the time of day of one container, which can be set: that of the machine
// is everybody's. Hermes is built from the same source with a package time that adds
// an offset; the C library of s6 is told to add it as well.
type clock struct{ dir string }

// newClock compiles everything anew: minutes of processor time, once. The build cache
// knows it from then on.
func newClock(t *testing.T) clock {
	t.Helper()
	testenv.Need(t, "gcc")
	dir := t.TempDir()
	compile := func(name string, args ...string) string {
		cmd := exec.Command(name, args...)
		cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	std := filepath.Join(compile("go", "env", "GOROOT"), "src", "time")
	source, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const reads = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), reads) != 1 {
		t.Fatalf("this Go reads the clock otherwise than by %q", reads)
	}
	writeFile(t, filepath.Join(dir, "time.go"), strings.Replace(string(source), reads, reads+"\tsec += testOffset\n", 1), 0o644)
	offset, err := filepath.Abs("testdata/clock/offset.txt")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(std, "time.go"): filepath.Join(dir, "time.go"), filepath.Join(std, "offset.go"): offset,
	}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "overlay.json"), string(overlay), 0o644)
	compile("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "hermes"), "./cmd/hermes")
	compile("gcc", "-shared", "-fPIC", "-O1", "-o", filepath.Join(dir, "clock.so"), "e2e/testdata/clock/clock.c", "-ldl")
	k := clock{dir}
	k.set(t, 0)
	return k
}

// set sets the clock to so many seconds after the machine's.
func (k clock) set(t *testing.T, seconds int) {
	t.Helper()
	writeFile(t, filepath.Join(k.dir, "clock", "offset"), fmt.Sprint(seconds), 0o644)
}

func (k clock) spec() spec {
	return spec{
		flags: []string{
			"-v", k.dir + "/clock:/clock:ro", "-v", k.dir + "/clock.so:/clock.so:ro", "-v", k.dir + "/hermes:/usr/local/bin/hermes:ro",
		},
		env: []string{"LD_PRELOAD=/clock.so"},
	}
}

// A clock that is set by a day, in either direction: nobody is shot, a pause is not
// a day long, and a death is one death.
func TestClockThatIsSet(t *testing.T) {
	parallel(t)
	k := newClock(t)
	const day = 24 * 60 * 60
	c := gateway(t, k.spec())
	c.mustExec("hermes", "profile", "create", "loop", "--start")
	for i, offset := range []int{-day, day} {
		for range 3 { // the pause after these is long enough to be seen
			c.kill("KILL", *c.waitState("gateway-loop", "ready").PID)
		}
		c.waitState("gateway-loop", "backoff")
		steady := *c.waitState("gateway-default", "ready").PID
		k.set(t, offset)
		until(t, "the container has the new time", func() error {
			var now int64
			if _, err := fmt.Sscan(c.mustExec("date", "+%s"), &now); err != nil {
				return err
			}
			if ahead := now - time.Now().Unix(); ahead < int64(offset)-day/2 || ahead > int64(offset)+day/2 {
				return fmt.Errorf("it is %d s ahead", ahead)
			}
			return nil
		})
		c.waitState("gateway-loop", "ready")
		if row := c.waitState("gateway-default", "ready"); *row.PID != steady || row.Restarts != i {
			t.Errorf("set by %d s: gateway %d became %s", offset, steady, row)
		}
		c.kill("KILL", steady)
		until(t, "the gateway is back", func() error {
			row, err := c.service("gateway-default")
			if err == nil && (row.State != "ready" || row.Restarts != i+1) {
				err = fmt.Errorf("it is %s", row)
			}
			return err
		})
		if log := c.mustExec("cat", "/opt/data/logs/audit.log"); strings.Contains(log, "next=trial") || strings.Contains(log, "guard: ") {
			t.Errorf("set by %d s: the audit log says\n%s", offset, log)
		}
	}
	if r := c.exec("hermes", "healthcheck"); r.code != 0 {
		t.Error(errorOf(r))
	}
	for _, command := range []string{"restart", "stop", "start"} {
		c.mustExec("hermes", "gateway", command, "--all")
	}
}
