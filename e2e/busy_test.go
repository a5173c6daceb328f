package e2e

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// published is the address on this machine of a port of the container.
func (c *container) published(port int) string {
	c.t.Helper()
	address, _, _ := strings.Cut(mustDocker(c.t, "port", c.name, strconv.Itoa(port)), "\n")
	return address
}

// hammer has many clients send one request after the other, each until next
// says no, and returns how many were answered with 200. Another answer is a
// failure. Connections are kept, unlike ask's.
func hammer(t *testing.T, address string, clients int, next func(client, n int) (request, bool)) int {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	client := http.Client{Timeout: 2 * patience, Transport: transport}
	var answered atomic.Int64
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for n := 0; ; n++ {
				r, ok := next(i, n)
				if !ok {
					return
				}
				if err := send(&client, address, r); err != nil {
					t.Errorf("client %d, request %d: %v", i, n, err)
					return
				}
				answered.Add(1)
			}
		})
	}
	wg.Wait()
	return int(answered.Load())
}

func send(client *http.Client, address string, r request) error {
	req, err := http.NewRequest(r.method, "http://"+address+r.path, strings.NewReader(r.body))
	if err != nil {
		return err
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %d: %s", res.StatusCode, body)
	}
	return err
}

// A gateway that answers 500 conversations while every core of its container is
// taken is busy, not deaf: for longer than three missed answers take, the guard
// leaves it alone.
func TestBusyGatewayIsNotShot(t *testing.T) {
	parallel(t)
	const (
		sessions = 500
		// The guard ends a deaf gateway after 23 s at most.
		length = 35 * time.Second
		cores  = 2

		busyLoop = "while :; do :; done"
	)
	c := served(t, spec{
		// The fewest shares: what is tested beside it has the machine first.
		flags: []string{"--cpus", strconv.Itoa(cores), "--cpu-shares", "128"},
		env:   []string{"HERMES_MODEL_DELAY=20ms"},
	})
	c.waitState("guard", "ready")
	before := c.gatewayPID()
	for range 2 * cores {
		mustDocker(t, "exec", "-d", c.name, "sh", "-c", busyLoop)
	}
	end := time.Now().Add(length)
	var served [sessions]bool
	answered := hammer(t, c.published(8642), sessions, func(client, n int) (request, bool) {
		served[client] = n > 0
		return chat("hello", fmt.Sprintf("s%d", client)), n == 0 || time.Now().Before(end)
	})
	t.Logf("%d turns of %d conversations were answered", answered, sessions)
	loops := 0
	for _, p := range c.everything() {
		if slices.Contains(p.argv, busyLoop) {
			loops++
		}
	}
	if loops != 2*cores {
		t.Errorf("%d busy loops run, want %d: the cores were not taken", loops, 2*cores)
	}
	for i, ok := range served {
		if !ok {
			t.Errorf("conversation %d had no answer", i)
		}
	}
	row := c.waitState("gateway-default", "ready")
	if row.PID == nil || *row.PID != before || row.Restarts != 0 || row.LastExit != nil {
		t.Errorf("the gateway was pid %d and is %s", before, row)
	}
	if kept := c.exec("ls", "-A", "/opt/data/logs/stacks").stdout; strings.TrimSpace(kept) != "" {
		t.Errorf("stacks were kept: %s", kept)
	}
	c.chats()
}
