package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// litterer is a user's service that starts the script in /opt/data/litter,
// forgets it, and notes when that is done.
const litterer = `#!/bin/sh
sh /opt/data/litter >/dev/null 2>&1 &
echo $$ >/opt/data/litterer
exec sleep 86400
`

// litters are ways to outlive a service; TOKEN is an argument that names the trial.
var litters = []string{
	"exec sleep TOKEN",                              // a child
	"sleep TOKEN & wait",                            // a grandchild
	"setsid sleep TOKEN",                            // in a session of its own
	"(setsid sleep TOKEN &) &",                      // double-forked
	"trap '' TERM; sleep TOKEN & wait; sleep TOKEN", // ignores TERM
	"(env -i setsid sleep TOKEN &) &",               // with a cleared environment
	"trap '' TERM; while :; do setsid sleep TOKEN & sleep 0.05; done",     // forks while it is killed
	"env -i setsid sh -c \"trap '' TERM; while :; do sleep TOKEN; done\"", // all of it
}

// trialsVar asks for more rounds of all litters than the usual one.
const trialsVar = "HERMES_LITTER_TRIALS"

// TestNothingOutlivesAService: whatever a service left running is gone when it
// is down, when it was restarted, and when it came back after a kill -9.
func TestNothingOutlivesAService(t *testing.T) {
	parallel(t)
	rounds := 1
	if n, err := strconv.Atoi(os.Getenv(trialsVar)); err == nil {
		rounds = n
	}
	c := gateway(t, spec{flags: []string{"-v", hooks(t, map[string]string{"litterer/run": litterer}) + ":/etc/services.d:ro"}})
	trials := 0
	for range rounds {
		for _, script := range litters {
			for _, end := range []string{"s6-svc -wD -d", "s6-svc -wr -r", "kill -9"} {
				c.litterAndEnd(script, end)
				trials++
			}
		}
	}
	t.Logf("%d trials, nothing left in any", trials)
}

func (c *container) litterAndEnd(script, end string) {
	c.t.Helper()
	token := fmt.Sprintf("9%09d.5", rand.IntN(1_000_000_000))
	const slot = "/run/service/litterer"
	c.asService("sh", "-c", fmt.Sprintf("s6-svc -wD -d %s; rm -f /opt/data/litterer; cat >/opt/data/litter <<'END'\n%s\nEND\ns6-svc -u %[1]s",
		slot, strings.ReplaceAll(script, "TOKEN", token)))
	until(c.t, "the litter of "+script, func() error {
		if len(c.named(token)) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	// The next run leaves nothing, so what is found afterwards is the old one's.
	c.asService("sh", "-c", "echo exit >/opt/data/litter")
	command := end + " " + slot
	if end == "kill -9" {
		command = fmt.Sprintf(`s6-svc -o %s; pid=$(cat /opt/data/litterer); kill -9 "$pid"; s6-svwait -D %[1]s`, slot)
	}
	c.asService("sh", "-c", command)
	if left := c.named(token); len(left) > 0 {
		c.t.Errorf("%q, ended by %q, leaves %v", script, end, left)
	}
}

// named are the living processes with token among their arguments.
func (c *container) named(token string) []process {
	return slices.DeleteFunc(c.processes(), func(p process) bool {
		return p.state == "Z" || !slices.Contains(p.argv, token)
	})
}

// asService runs a command as the user of the services: s6's own tools wait for
// ever for an event that a supervisor may not send them.
func (c *container) asService(args ...string) {
	c.t.Helper()
	mustDocker(c.t, append([]string{"exec", "-u", "10000", c.name}, args...)...)
}
