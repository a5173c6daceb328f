package s6slots

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/hermesgw/hermes/internal/proc"
)

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

// litterFile holds the script that a service with the word litter in its plan
// starts and forgets, as a careless tool would.
const litterFile = "litter"

func litter(home string) {
	cmd := exec.Command("sh", "-c", read(home, litterFile)) // its streams are /dev/null
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func read(home, name string) string {
	b, _ := os.ReadFile(filepath.Join(home, name))
	return string(b)
}

// sleeping lists the living processes whose argument names the trial.
func sleeping(token string) []proc.Process {
	return proc.Match(func(p proc.Process) bool { return slices.Contains(p.Args(), token) })
}

// trialsVar asks for more trials of each kind than the usual one.
const trialsVar = "HERMES_LITTER_TRIALS"

// TestNothingOutlivesItsSlot: whatever a service left running is gone when its
// slot is down, or has started again, however the service ended.
func TestNothingOutlivesItsSlot(t *testing.T) {
	trials := 1
	if n, err := strconv.Atoi(os.Getenv(trialsVar)); err == nil {
		trials = n
	}
	for name, script := range litters() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTree(t, "litter ready")
			tr.ensure()
			for range trials {
				for _, end := range []func(*tree){(*tree).stopService, (*tree).restartService, (*tree).killService} {
					litterAndEnd(t, tr, script, end)
				}
			}
		})
	}
}

func (tr *tree) stopService() {
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
		tr.t.Error(err)
	}
}

func (tr *tree) restartService() {
	tr.plan("ready")
	if err := tr.m.Restart(tr.ctx(), tr.spec.Name, true); err != nil {
		tr.t.Error(err)
	}
	tr.stopService()
}

func (tr *tree) killService() {
	tr.plan("ready")
	pid := tr.status().PID
	tr.kill(pid)
	tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != pid })
	tr.stopService()
}

func litterAndEnd(t *testing.T, tr *tree, script string, end func(*tree)) {
	token := fmt.Sprintf("9%09d.5", rand.IntN(1_000_000_000))
	t.Logf("trial %s", token)
	note(tr.home, litterFile, fmt.Sprintf(script, token))
	tr.plan("litter ready")
	t.Cleanup(func() {
		for _, p := range sleeping(token) {
			_ = p.Signal(syscall.SIGKILL)
		}
	})
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	tr.eventually("the litter is there", func() bool { return len(sleeping(token)) > 0 })
	end(tr)
	if left := sleeping(token); len(left) > 0 {
		t.Errorf("%d processes outlive their service: %+v", len(left), left)
	}
}
