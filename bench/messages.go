package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// chats is how many conversations are talked in at once.
	chats = 50
	// pace is how many messages a second a calm load has, for calmFor.
	pace    = 20
	calmFor = 20 * time.Second
	// stormFor is how long every chat asks again as soon as it is answered.
	stormFor = 10 * time.Second
	// inFlight turns wait for a slow model while probes more are accepted.
	inFlight = 500
	probes   = 100
	// idleFor is how long the processor time of an idle gateway is watched.
	idleFor = 30 * time.Second
	// traced is how many messages are sent while flushes are counted.
	traced = 100
)

// talker sends messages to one gateway.
type talker struct {
	client *http.Client
	url    string
}

func talkTo(c *container) talker {
	return talker{
		client: &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * chats}},
		url:    fmt.Sprintf("http://127.0.0.1:%d", c.port),
	}
}

// post sends one request in the conversation called session, which may be "".
func (t talker) post(ctx context.Context, path, body, session string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer bench")
	if session != "" {
		req.Header.Set("X-Hermes-Session-Id", session)
	}
	return t.client.Do(req)
}

// say sends one message and returns how long the answer took.
func (t talker) say(ctx context.Context, path, body, session string, want int) (time.Duration, error) {
	began := time.Now()
	resp, err := t.post(ctx, path, body, session)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("%s answered %s: %s", path, resp.Status, text)
	}
	return time.Since(began), err
}

func (t talker) chat(ctx context.Context, session string) (time.Duration, error) {
	return t.say(ctx, "/v1/chat/completions", `{"messages":[{"role":"user","content":"hello"}]}`, session, http.StatusOK)
}

// gathered collects times from many goroutines.
type gathered struct {
	mu   sync.Mutex
	took []float64 // ms
	err  error
}

func (g *gathered) add(d time.Duration, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.err = err
		return
	}
	g.took = append(g.took, d.Seconds()*1e3)
}

// percentile returns the value below which p of the sorted values lie.
func percentile(values []float64, p float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return median(nil)
	}
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

func answerJob() job {
	return job{
		name: "answer", title: "a message and its answer",
		how: fmt.Sprintf("Through the published port, offline model, each message on disk before it is answered and its answer too. "+
			"Calm: %d messages a second over %d chats for %s. Storm: every chat asks again as soon as it is answered, for %s; "+
			"the load generator shares the processors.", pace, chats, calmFor, stormFor),
		run: func(ctx context.Context, l *lab, r *Result) error {
			box, err := l.docker.serving(ctx, l.supervised())
			if err != nil {
				return err
			}
			t := talkTo(box)
			calm, err := t.calm(ctx)
			if err != nil {
				return err
			}
			storm, err := t.storm(ctx)
			if err != nil {
				return err
			}
			p50, p99 := percentile(calm, 0.5), percentile(calm, 0.99)
			each := stormFor.Seconds() * 1e3 / float64(len(storm))
			r.add("calm, p50", milliseconds, p50)
			r.add("calm, p99", milliseconds, p99)
			r.add("storm, one message a chat, p50", milliseconds, percentile(storm, 0.5))
			r.add("storm, time per answered message", milliseconds, each)
			r.claim(Claim{What: "accepted → answered, 20 messages a second, p50", Unit: milliseconds, Floor: 40, Goal: 15, Measured: p50})
			r.claim(Claim{What: "the same, p99", Unit: milliseconds, Floor: 150, Goal: 60, Measured: p99})
			r.claim(Claim{What: "time per answered message, 50 chats (1000 a second is 1 ms)", Unit: milliseconds, Floor: 1e3 / 300.0, Goal: 1, Measured: each})
			return box.remove(ctx)
		},
	}
}

func (t talker) calm(ctx context.Context) ([]float64, error) {
	var g gathered
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / pace)
	defer tick.Stop()
	for i := range int(calmFor.Seconds()) * pace {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		wg.Go(func() { g.add(t.chat(ctx, fmt.Sprint("calm", i%chats))) })
	}
	wg.Wait()
	return g.took, g.err
}

func (t talker) storm(ctx context.Context) ([]float64, error) {
	var g gathered
	var wg sync.WaitGroup
	end := time.Now().Add(stormFor)
	for i := range chats {
		wg.Go(func() {
			for time.Now().Before(end) && ctx.Err() == nil {
				// A conversation of its own each hour of a chat: what a model is shown of a
				// long one is another matter.
				g.add(t.chat(ctx, fmt.Sprintf("storm%d-%d", i, time.Now().Unix())))
			}
		})
	}
	wg.Wait()
	return g.took, g.err
}

// gatewayPID is the gateway's process as the host sees it.
func (c *container) gatewayPID(ctx context.Context) (int, error) {
	all, err := c.processes(ctx)
	if err != nil {
		return 0, err
	}
	for _, p := range all {
		if p.isGateway() {
			return p.pid, nil
		}
	}
	return 0, fmt.Errorf("there is no gateway in %v", all)
}

func inFlightJob() job {
	return job{
		name: "inflight", title: "500 turns in flight at once",
		how: fmt.Sprintf("%d runs of a model that takes two minutes, each in a session of its own; then the time until each of %d "+
			"more is acknowledged, and the private memory of the gateway.", inFlight, probes),
		run: func(ctx context.Context, l *lab, r *Result) error {
			c := l.supervised()
			c.flags = append(c.flags, "-e", "HERMES_MODEL_DELAY=2m")
			box, err := l.docker.serving(ctx, c)
			if err != nil {
				return err
			}
			t := talkTo(box)
			for i := range inFlight {
				if _, err := t.say(ctx, "/v1/runs", fmt.Sprintf(`{"input":"x","session_id":"s%d"}`, i), "", http.StatusAccepted); err != nil {
					return err
				}
			}
			var g gathered
			for i := range probes {
				g.add(t.say(ctx, "/v1/runs", fmt.Sprintf(`{"input":"x","session_id":"probe%d"}`, i), "", http.StatusAccepted))
			}
			if g.err != nil {
				return g.err
			}
			weight, err := box.weighGateway(ctx)
			if err != nil {
				return err
			}
			p99 := percentile(g.took, 0.99)
			r.add("acknowledged, p50", milliseconds, percentile(g.took, 0.5))
			r.add("acknowledged, p99", milliseconds, p99)
			r.add("gateway, USS", megabytes, weight)
			r.claim(Claim{What: "500 turns in flight: a new message acknowledged, p99", Unit: milliseconds, Floor: 50, Measured: p99})
			r.claim(Claim{What: "the same: private memory of the gateway", Unit: megabytes, Floor: 80, Measured: weight})
			return box.remove(ctx)
		},
	}
}

func idleJob() job {
	return job{
		name: "idle", title: "an idle gateway",
		how: fmt.Sprintf("Processor time of the gateway's process over %s without a message, by /proc/PID/stat (ticks of 10 ms).", idleFor),
		run: func(ctx context.Context, l *lab, r *Result) error {
			box, err := l.docker.serving(ctx, l.supervised())
			if err != nil {
				return err
			}
			pid, err := box.gatewayPID(ctx)
			if err != nil {
				return err
			}
			if err := pause(ctx, l.settle); err != nil {
				return err
			}
			before, err := processorTime(pid)
			if err != nil {
				return err
			}
			if err := pause(ctx, idleFor); err != nil {
				return err
			}
			after, err := processorTime(pid)
			if err != nil {
				return err
			}
			used := (after - before).Seconds() * 1e3 / idleFor.Seconds()
			r.add("processor time per second", milliseconds, used)
			r.claim(Claim{What: "an idle gateway: processor time per second (0.1 % is 1 ms)", Unit: milliseconds, Floor: 5, Goal: 1, Measured: used})
			return box.remove(ctx)
		},
	}
}

// processorTime is what a process has used so far (proc(5), fields 14 and 15 of
// stat, in hundredths of a second).
func processorTime(pid int) (time.Duration, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, fmt.Errorf("cannot read the processor time of %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

func flushJob() job {
	return job{
		name: "flush", title: "flushes of the disk",
		how: fmt.Sprintf("fsync and fdatasync of the gateway by strace, for %d messages one after the other, and for as many from %d chats at once; "+
			"then the same with each flush made 20 ms longer (strace's delay_exit): the time until a run is acknowledged.", traced, chats),
		run: func(ctx context.Context, l *lab, r *Result) error {
			if _, err := exec.LookPath("strace"); err != nil {
				return fmt.Errorf("strace is not here: %w", err)
			}
			box, err := l.docker.serving(ctx, l.supervised())
			if err != nil {
				return err
			}
			pid, err := box.gatewayPID(ctx)
			if err != nil {
				return err
			}
			t := talkTo(box)
			one, err := flushes(ctx, pid, func() error { return t.inTurn(ctx) })
			if err != nil {
				return err
			}
			together, err := flushes(ctx, pid, func() error { return t.together(ctx) })
			if err != nil {
				return err
			}
			slow, err := slowDisk(ctx, pid, func() ([]float64, error) { return t.acknowledged(ctx) })
			if err != nil {
				return err
			}
			r.add("flushes per message, one at a time", times, float64(one)/traced)
			r.add("flushes per message, 50 chats at once", times, float64(together)/traced)
			r.add("acknowledged with a slow disk, p50", milliseconds, percentile(slow, 0.5))
			r.claim(Claim{What: "flushes per accepted and answered message", Unit: times, Goal: 3, Measured: float64(one) / traced})
			r.claim(Claim{What: "acknowledged, with flushes that take 20 ms longer, p99", Unit: milliseconds, Floor: 100, Measured: percentile(slow, 0.99)})
			return box.remove(ctx)
		},
	}
}

func (t talker) inTurn(ctx context.Context) error {
	for i := range traced {
		if _, err := t.chat(ctx, fmt.Sprint("turn", i%chats)); err != nil {
			return err
		}
	}
	return nil
}

func (t talker) together(ctx context.Context) error {
	var g gathered
	var wg sync.WaitGroup
	for i := range chats {
		wg.Go(func() {
			for range traced / chats {
				g.add(t.chat(ctx, fmt.Sprint("together", i)))
			}
		})
	}
	wg.Wait()
	return g.err
}

// acknowledged is the time until each of some runs is accepted, at the calm pace.
func (t talker) acknowledged(ctx context.Context) ([]float64, error) {
	var g gathered
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / pace)
	defer tick.Stop()
	for i := range traced {
		<-tick.C
		wg.Go(func() {
			body, _ := json.Marshal(map[string]string{"input": "x", "session_id": fmt.Sprint("slow", i%chats)}) // plain data
			g.add(t.say(ctx, "/v1/runs", string(body), "", http.StatusAccepted))
		})
	}
	wg.Wait()
	return g.took, g.err
}

// attach runs strace on a process while f runs, and returns what strace says.
func attach(ctx context.Context, pid int, f func() error, args ...string) (string, error) {
	out, err := os.CreateTemp("", "hermes-bench-strace-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	out.Close()
	cmd := exec.CommandContext(ctx, "strace", append(append([]string{"-f", "--seccomp-bpf", "-o", out.Name()}, args...), "-p", strconv.Itoa(pid))...)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	err = until(ctx, "strace is attached", func() (bool, error) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		return regexp.MustCompile(`TracerPid:\s+[1-9]`).Match(status), err
	})
	if err == nil {
		err = f()
	}
	_ = cmd.Process.Signal(os.Interrupt) // detaches
	_ = cmd.Wait()
	text, rerr := os.ReadFile(out.Name())
	if err == nil {
		err = rerr
	}
	return string(text), err
}

const flushCalls = "trace=fsync,fdatasync"

func flushes(ctx context.Context, pid int, f func() error) (int, error) {
	text, err := attach(ctx, pid, f, "-e", flushCalls)
	return len(regexp.MustCompile(`(?m)(fsync|fdatasync)\(`).FindAllString(text, -1)), err
}

func slowDisk(ctx context.Context, pid int, f func() ([]float64, error)) (took []float64, err error) {
	_, err = attach(ctx, pid, func() (err error) { took, err = f(); return err },
		"-e", flushCalls, "-e", "inject=fsync,fdatasync:delay_exit=20000")
	return took, err
}
