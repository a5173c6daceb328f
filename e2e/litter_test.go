package e2e

import (
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
			for _, end := range []string{"stop", "restart", "kill -9"} {
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
	// The wait apart from the command: with -w, s6-svc returns at once where the
	// service is down already, maybe before it has said "down".
	c.asService("sh", "-c", fmt.Sprintf("s6-svc -d %s; s6-svwait -D %[1]s; rm -f /opt/data/litterer; cat >/opt/data/litter <<'END'\n%s\nEND\ns6-svc -u %[1]s",
		slot, strings.ReplaceAll(script, "TOKEN", token)))
	until(c.t, fmt.Sprintf("the litter of %q, to be ended by %q", script, end), func() error {
		if noted := c.exec("test", "-e", "/opt/data/litterer"); noted.code != 0 || len(c.named(token)) == 0 {
			return fmt.Errorf("there is none beside\n%s%s", c.table(), c.exec("s6-svstat", slot).both())
		}
		return nil
	})
	// The next run leaves nothing, so what is found afterwards is the old one's.
	c.asService("sh", "-c", "echo exit >/opt/data/litter")
	command := map[string]string{
		"stop":    "s6-svc -d %[1]s; s6-svwait -D %[1]s",
		"restart": "s6-svc -wr -r %[1]s",
		"kill -9": `s6-svc -o %[1]s; kill -9 "$(cat /opt/data/litterer)"; s6-svwait -D %[1]s`,
	}[end]
	c.asService("sh", "-c", fmt.Sprintf(command, slot))
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
