package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

type runBody struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Output string `json:"output"`
}

// run asks for one run, or makes one.
func (c *container) run(method, path, body string, header ...string) (runBody, error) {
	h := map[string]string{"Authorization": "Bearer " + key}
	for i := 0; i < len(header); i += 2 {
		h[header[i]] = header[i+1]
	}
	res, err := c.ask(8642, request{method: method, path: path, body: body, header: h})
	if err != nil {
		return runBody{}, err
	}
	if res.code/100 != 2 {
		return runBody{}, fmt.Errorf("%s %s answers %d: %s", method, path, res.code, res.body)
	}
	var r runBody
	return r, json.Unmarshal([]byte(res.body), &r)
}

// metric reads a number of /metrics.
func (c *container) metric(name string) string {
	c.t.Helper()
	res := c.mustAsk(8642, request{method: "GET", path: "/metrics", header: map[string]string{"Authorization": "Bearer " + key}})
	for line := range strings.Lines(res.body) {
		if rest, ok := strings.CutPrefix(line, name+`{profile="default"} `); ok {
			return strings.TrimSpace(rest)
		}
	}
	c.t.Fatalf("no %s in\n%s", name, res.body)
	return ""
}

// What was accepted is answered, whatever is killed in between: the gateway in
// the middle of its turns, then the container. The same key gets the same
// answer, and every message is answered once and in order.
func TestAcceptedMeansAnswered(t *testing.T) {
	parallel(t)
	data := volume(t)
	c := served(t, spec{flags: []string{"-v", data + ":/opt/data"}, env: []string{"HERMES_MODEL_DELAY=1s"}})
	const chats, each = 3, 3
	var ids [chats][each]string
	var wg sync.WaitGroup
	for i := range chats {
		wg.Go(func() {
			for j := range each {
				r, err := c.run("POST", "/v1/runs", fmt.Sprintf(`{"input":"message %d","session_id":"chat%d"}`, j, i), "Idempotency-Key", fmt.Sprintf("key-%d-%d", i, j))
				if err != nil || r.Status != "queued" {
					t.Errorf("%+v %v", r, err)
				}
				ids[i][j] = r.ID
			}
		})
	}
	wg.Wait()
	c.kill("KILL", c.only("hermes", "gateway", "run").pid)
	until(t, "the first turns are under way again", func() error {
		r, err := c.run("GET", "/v1/runs/"+ids[0][0], "")
		if err == nil && r.Status == "queued" {
			err = errors.New("it is queued")
		}
		return err
	})
	mustDocker(t, "kill", c.name)
	mustDocker(t, "start", c.name)
	c.waitState("gateway-default", "ready")
	for i := range chats {
		for j := range each {
			var got runBody
			until(t, ids[i][j]+" is answered", func() (err error) {
				if got, err = c.run("GET", "/v1/runs/"+ids[i][j], ""); err == nil && got.Status != "completed" {
					err = errors.New("it is " + got.Status)
				}
				return err
			})
			// The number of the turn says that none came twice and none came early.
			if want := fmt.Sprintf("Turn %d of this conversation. You said: message %d", j+1, j); !strings.HasSuffix(got.Output, want) {
				t.Errorf("chat %d, message %d: %q", i, j, got.Output)
			}
			again, err := c.run("POST", "/v1/runs", fmt.Sprintf(`{"input":"message %d","session_id":"chat%d"}`, j, i), "Idempotency-Key", fmt.Sprintf("key-%d-%d", i, j))
			if err != nil || again != got {
				t.Errorf("the same key gave %+v, %v", again, err)
			}
		}
	}
	for name, want := range map[string]string{"received_total": "9", "answered_total": "9", "failed_total": "0"} {
		if got := c.metric("hermes_messages_" + name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if out := c.mustExec("hermes", "trace", ids[0][0]); !strings.Contains(out, "attempt") || !strings.Contains(out, "answered") {
		t.Errorf("trace says\n%s", out)
	}
}
