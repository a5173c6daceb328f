package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// One stop budget: what is nearly done is finished, what does not end is
// ended, and the container's end is never a 137.

// stubborn is a user's service that ignores TERM and notes, by the container's
// own clock, when it lived last.
const stubborn = `#!/bin/sh
trap 'echo stubborn got TERM' TERM
echo stubborn is up
while :; do date +%s.%N >/opt/data/last.new; mv /opt/data/last.new /opt/data/last; sleep 0.02; done
`

func stubbornService(t *testing.T, budget int) []string {
	t.Helper()
	return []string{
		"-v", hooks(t, map[string]string{"stubborn/run": stubborn}) + ":/etc/services.d:ro",
		"-e", "HERMES_STOP_TIMEOUT=" + strconv.Itoa(budget),
	}
}

// stopTimes runs the main program that notes when the stop began beside the
// stubborn service, stops it, and returns how long after that the service and
// the container lived.
func stopTimes(t *testing.T, c *container, data string) (service, whole time.Duration) {
	t.Helper()
	out := mustDocker(t, "run", "--rm", "--label", label(), "-v", data+":/mnt", "--entrypoint", "cat", image(), "/mnt/term", "/mnt/last")
	var term, last float64
	if n, err := fmt.Sscan(out, &term, &last); n != 2 {
		t.Fatalf("the programs left %q: %v", out, err)
	}
	finished, err := time.Parse(time.RFC3339Nano, c.inspect("{{.State.FinishedAt}}"))
	if err != nil {
		t.Fatal(err)
	}
	end := float64(finished.UnixNano()) / 1e9
	return time.Duration((last - term) * 1e9), time.Duration((end - term) * 1e9)
}

func TestStopEndsAtTheBudget(t *testing.T) {
	parallel(t)
	const budget = 3
	data := volume(t)
	c := start(t, spec{
		flags: append(stubbornService(t, budget), "-v", data+":/opt/data"),
		cmd:   []string{"sh", "-c", `trap 'date +%s.%N >/opt/data/term; exit 0' TERM; echo main is up; while :; do sleep 1 & wait $!; done`},
	})
	c.logged("main is up")
	c.logged("stubborn is up")
	if code, _ := c.stop(); code != 0 {
		t.Errorf("docker stop ends with %d, want 0", code)
	}
	service, whole := stopTimes(t, c, data)
	t.Logf("a service that ignores TERM lived %s, the container %s", service, whole)
	const tolerance = 300 * time.Millisecond
	// The service has all of the budget but what killing and reaping takes.
	if service < budget*time.Second-2*tolerance || service > budget*time.Second+tolerance {
		t.Errorf("a service that ignores TERM lived %s after the stop began, want %d s", service, budget)
	}
	// Docker notes the end later than it is, on a busy machine much later.
	if whole < budget*time.Second-tolerance || whole > budget*time.Second+tolerance+2*time.Second {
		t.Errorf("the container ended %s after the stop began, want %d s ± %s", whole, budget, tolerance)
	}
	logs := c.logs()
	for second := range budget - 1 {
		if want := fmt.Sprintf("hermes: stopping: waiting for stubborn (%d s of %d)\n", second+1, budget); strings.Count(logs, want) != 1 {
			t.Errorf("the logs do not say once %q:\n%s", want, logs)
		}
	}
	if n := strings.Count(logs, "stubborn got TERM"); n != 1 {
		t.Errorf("the service was signalled %d times, want once", n)
	}
}

func TestSecondTermKillsAtOnce(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{flags: stubbornService(t, 60)})
	c.logged("stubborn is up")
	mustDocker(t, "kill", "-s", "TERM", c.name)
	c.logged("waiting for stubborn (1 s of 60)")
	began := time.Now()
	mustDocker(t, "kill", "-s", "TERM", c.name)
	if code := c.exitCode(); code != 0 {
		t.Errorf("after a second TERM the container ends with %d, want 0", code)
	}
	if took := time.Since(began); took > quick {
		t.Errorf("a second TERM took %s", took)
	}
}

// Nothing is registered or started any more once the stop has begun.
func TestStartDuringAStopIsRefused(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{flags: stubbornService(t, 20)})
	c.logged("stubborn is up")
	mustDocker(t, "kill", "-s", "TERM", c.name)
	c.logged("stubborn got TERM")
	mustDocker(t, "exec", "-u", "10000", c.name, "mkdir", "-p", "/opt/data/profiles/late")
	for _, argv := range [][]string{{"-p", "late", "gateway", "start"}, {"gateway", "start"}, {"gateway", "restart"}} {
		r := c.exec(append([]string{"hermes"}, argv...)...)
		if r.code != 1 || !strings.Contains(r.stderr, "stopping") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("hermes %q during a stop exits %d: %s", argv, r.code, r.both())
		}
	}
	if r := c.exec("test", "-e", "/run/service/gateway-late"); r.code == 0 {
		t.Error("a slot was registered during the stop")
	}
	if g := c.gateways(); len(g) != 0 {
		t.Errorf("a gateway was started during the stop: %v", g)
	}
	mustDocker(t, "kill", "-s", "TERM", c.name)
	if code := c.exitCode(); code != 0 {
		t.Errorf("the container ends with %d", code)
	}
}

// A turn that is running is finished: its answer arrives whole, and then the
// container ends at once.
func TestDrainGetsItsTime(t *testing.T) {
	for _, tc := range []struct {
		name  string
		think time.Duration
		env   []string
		stop  []string
	}{
		{"5 s by default", 5 * time.Second, nil, []string{"stop"}},
		// Beyond Docker's ten seconds and our nine: the two variables decide.
		{"20 s when asked for", 20 * time.Second, []string{"HERMES_STOP_TIMEOUT=28"}, []string{"stop", "-t", "30"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			parallel(t)
			c := served(t, spec{env: append(tc.env, "HERMES_MODEL_DELAY="+tc.think.String())})
			began := time.Now()
			answer := make(chan result, 1)
			go func() {
				res, err := c.ask(8642, chat("finish this", ""))
				answer <- result{stdout: res.body, stderr: fmt.Sprint(err), code: res.code}
			}()
			until(t, "the turn runs", func() error {
				res, err := c.ask(8642, request{method: "GET", path: "/metrics", header: withKey()})
				if err == nil && !strings.Contains(res.body, `hermes_messages_running{profile="default"} 1`) {
					err = fmt.Errorf("the metrics are %s", res.body)
				}
				return err
			})
			mustDocker(t, append(tc.stop, c.name)...)
			if code := c.exitCode(); code != 0 {
				t.Errorf("docker %q ends with %d, want 0", tc.stop, code)
			}
			took := time.Since(began)
			if got := <-answer; got.code != 200 || !strings.Contains(got.stdout, "finish this") {
				t.Errorf("the turn that ran when the stop began answers %d: %s (%s)", got.code, got.stdout, got.stderr)
			}
			if took < tc.think || took > tc.think+quick {
				t.Errorf("a turn of %s and the stop took %s together", tc.think, took)
			}
			c.logged("hermes: stopping: waiting for gateway-default (1 s of ")
		})
	}
}
