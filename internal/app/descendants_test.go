package app_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/hermesgw/hermes/internal/proc"
)

// litter does what a slot's entry does to a gateway, then starts script and
// forgets it, as a careless tool would.
func litter(script string) error {
	if err := proc.BecomeSubreaper(); err != nil {
		return err
	}
	cmd := exec.Command("sh", "-c", script)
	return cmd.Start() // its streams are /dev/null
}

// litters are ways to outlive a parent; %s is an argument of sleep that names
// the trial.
func litters() map[string]string {
	return map[string]string{
		"child":               "exec sleep %s",
		"grandchild":          "sleep %s & wait",
		"setsid":              "setsid sleep %s",
		"double fork":         "(setsid sleep %s &) &",
		"ignores TERM":        "trap '' TERM; sleep %s & wait; sleep %[1]s",
		"cleared environment": "(env -i setsid sleep %s &) &",
		"forks while killed":  "trap '' TERM; while :; do setsid sleep %s & sleep 0.01; done",
		"cleared, ignores":    "env -i setsid sh -c \"trap '' TERM; while :; do sleep %s; done\" &",
		"a tree of them":      "for i in 1 2 3 4 5 6 7 8; do (setsid sh -c 'sleep %s & sleep %[1]s' &) & done",
		"stopped by a signal": "setsid sh -c 'kill -STOP $$' %s &",
		"zombies in between":  "for i in 1 2 3 4 5; do (true &) & done; setsid sleep %s",
		"two sessions deep":   "setsid sh -c 'env -i setsid sleep %s' &",
	}
}

// sleeping lists the living processes whose argument names the trial.
func sleeping(token string) []proc.Process {
	return proc.Match(func(p proc.Process) bool { return slices.Contains(p.Args(), token) })
}

// trialsVar asks for more trials than the usual one of each kind.
const trialsVar = "HERMES_LITTER_TRIALS"

// TestNothingOutlivesAStoppedGateway: whatever a supervised gateway left
// running is gone when its process is.
func TestNothingOutlivesAStoppedGateway(t *testing.T) {
	trials := 1
	if n, err := strconv.Atoi(os.Getenv(trialsVar)); err == nil {
		trials = n
	}
	for name, script := range litters() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range trials {
				stopLittering(t, script)
			}
		})
	}
}

func stopLittering(t *testing.T, script string) {
	token := fmt.Sprintf("9%09d.5", rand.IntN(1_000_000_000))
	t.Logf("trial %s", token)
	o := place(t)
	o.Supervised, o.Litter = true, fmt.Sprintf(script, token)
	c := spawn(t, o)
	t.Cleanup(func() {
		for _, p := range sleeping(token) {
			_ = p.Signal(syscall.SIGKILL)
		}
	})
	until(t, "the litter is there", func() bool { return len(sleeping(token)) > 0 })
	c.waitReady()
	c.signal(syscall.SIGTERM)
	if code := c.code(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if left := sleeping(token); len(left) > 0 {
		t.Errorf("%d processes outlive their gateway: %+v", len(left), left)
	}
}
