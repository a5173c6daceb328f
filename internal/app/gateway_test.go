package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/lease"
	"github.com/hermesgw/hermes/internal/logging"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/sdnotify"
	"github.com/hermesgw/hermes/internal/supervise"
)

// childVar makes this test binary a gateway process; its value is the options
// in JSON. It prints "ready" when it is, and exits with the code of the error.
const childVar = "APP_TEST_GATEWAY"

// patience is how long a test waits for what must happen.
const patience = 15 * time.Second

type childOptions struct {
	Home, RunDir        string
	Supervised, Replace bool
}

func TestMain(m *testing.M) {
	if ran, code := entry(); ran {
		os.Exit(code)
	}
	if text := os.Getenv(childVar); text != "" {
		var o childOptions
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			panic(err)
		}
		err := runChild(o)
		if err != nil {
			fmt.Fprintln(os.Stderr, "hermes:", err)
		}
		os.Exit(exitcode.Of(err))
	}
	// Under -race every process that exits would wait a second for late reports.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

func runChild(o childOptions) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() { <-term; cancel() }()
	cfg, err := config.Load(config.Options{Home: o.Home, Lookup: os.LookupEnv})
	if err != nil {
		return err
	}
	return app.RunGateway(ctx, app.GatewayOptions{
		Profile: profile.Profile{Name: profile.Default, Home: o.Home}, RunDir: o.RunDir,
		Supervised: o.Supervised, Replace: o.Replace, Config: cfg,
		Ready:          func() { fmt.Println("ready") },
		ServiceManager: sdnotify.Take(os.LookupEnv, os.Unsetenv, os.Getpid()),
		MayDeadlock:    os.Getenv(app.DeadlockVar) == "1",
		Log:            logging.New(os.Stderr, logging.Text, 0),
	})
}

// child is a gateway process under test.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	opts   childOptions
	out    *lockedBuffer // stdout and stderr
	exited chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func spawn(t *testing.T, o childOptions, env ...string) *child {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, opts: o, out: &lockedBuffer{}, exited: make(chan struct{}), cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "API_SERVER_") }),
		append([]string{childVar + "=" + string(text), "API_SERVER_PORT=0"}, env...)...)
	c.cmd.Stdout, c.cmd.Stderr = c.out, c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.cmd.Wait(); close(c.exited) }()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.exited
		if t.Failed() {
			t.Logf("pid %d:\n%s", c.cmd.Process.Pid, c.out)
		}
	})
	return c
}

func (c *child) signal(s os.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

// code waits for the end and returns the exit code, -1 for a signal.
func (c *child) code() int {
	c.t.Helper()
	select {
	case <-c.exited:
		return c.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		c.t.Fatalf("still running:\n%s", c.out)
		return 0
	}
}

func (c *child) alive() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

func (c *child) waitReady() *child {
	c.t.Helper()
	until(c.t, "the gateway is ready", func() bool {
		if !c.alive() {
			c.t.Fatalf("exited with %d:\n%s", c.code(), c.out)
		}
		return strings.Contains("\n"+c.out.String(), "\nready\n")
	})
	return c
}

func (c *child) client() *control.Client {
	return control.Dial(control.SocketPath(c.opts.RunDir, profile.Default))
}

func (c *child) status() control.Status {
	c.t.Helper()
	s, err := c.client().Status(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// say talks to the gateway over its control socket and returns the answer; 0
// means there was none.
func (c *child) say(session, text string) (int, string) {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, control.BaseURL+"/v1/chat/completions",
		strings.NewReader(fmt.Sprintf(`{"messages":[{"role":"user","content":%q}]}`, text)))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("X-Hermes-Session-Id", session)
	resp, err := c.client().HTTPClient().Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// place is a home and a run directory.
func place(t *testing.T) childOptions {
	return childOptions{Home: filepath.Join(t.TempDir(), "home"), RunDir: t.TempDir()}
}

func TestGatewayLivesAndStops(t *testing.T) {
	c := spawn(t, place(t)).waitReady()
	s := c.status()
	if s.State != supervise.Ready || s.PID != c.cmd.Process.Pid || s.Profile != "default" || s.Model != "offline" || s.Supervised || s.Holder != nil {
		t.Errorf("%+v", s)
	}
	if len(s.Platforms) != 1 || s.Platforms[0].Name != "http" {
		t.Errorf("platforms %+v", s.Platforms)
	}
	resp, err := http.Get("http://" + s.Address + "/readyz")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	if code, body := c.say("s", "hello"); code != 200 || !strings.Contains(body, "hello") {
		t.Errorf("%d %s", code, body)
	}
	if text, err := c.client().Stacks(t.Context()); err != nil || !bytes.Contains(text, []byte("RunGateway")) {
		t.Errorf("stacks: %v", err)
	}
	c.signal(syscall.SIGTERM)
	if code := c.code(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, c.out)
	}
	if _, err := os.Stat(control.SocketPath(c.opts.RunDir, "default")); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
	if strings.Count(c.out.String(), "ready\n") < 1 || strings.Contains(c.out.String(), "goroutine") {
		t.Errorf("output:\n%s", c.out)
	}
}

func TestRestartAndKillForgetNothing(t *testing.T) {
	where := place(t)
	for i, end := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGTERM} {
		c := spawn(t, where).waitReady()
		if code, body := c.say("s", "x"); code != 200 || !strings.Contains(body, fmt.Sprintf("Turn %d ", i+1)) {
			t.Errorf("run %d: %d %s", i, code, body)
		}
		c.signal(end)
		c.code()
	}
}

func TestTermWaitsForARunningTurn(t *testing.T) {
	c := spawn(t, place(t), "HERMES_MODEL_DELAY=600ms").waitReady()
	answer := make(chan string, 1)
	go func() { code, body := c.say("s", "slow"); answer <- fmt.Sprint(code, body) }()
	until(t, "the turn runs", func() bool { return c.metric("hermes_messages_running") == 1 })
	c.signal(syscall.SIGTERM)
	if got := <-answer; !strings.HasPrefix(got, "200") || !strings.Contains(got, "slow") {
		t.Errorf("the running turn got %s", got)
	}
	if code := c.code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func (c *child) metric(name string) float64 {
	c.t.Helper()
	resp, err := http.Get("http://" + c.status().Address + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, name+"{") {
			v, _ := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:]), 64)
			return v
		}
	}
	return 0
}

func TestStopBudgetIsKept(t *testing.T) {
	c := spawn(t, place(t), "HERMES_MODEL_DELAY=1h", "HERMES_STOP_TIMEOUT=2").waitReady()
	go c.say("s", "x")
	until(t, "the turn runs", func() bool { return c.metric("hermes_messages_running") == 1 })
	start := time.Now()
	c.signal(syscall.SIGTERM)
	if code := c.code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("a budget of 2s took %s", took)
	}
}

func TestForegroundBesideAHolderIsRefused(t *testing.T) {
	where := place(t)
	first := spawn(t, where).waitReady()
	second := spawn(t, where)
	if code := second.code(); code != 1 || !strings.Contains(second.out.String(), fmt.Sprintf(`profile "default" is held by pid %d since`, first.cmd.Process.Pid)) {
		t.Errorf("exit code %d: %s", code, second.out)
	}
	if !first.alive() {
		t.Error("the first one left")
	}
}

func TestHolderElsewhereIsNamed(t *testing.T) {
	where := place(t)
	holdElsewhere(t, where.Home)
	for _, replace := range []bool{false, true} {
		where.Replace = replace
		c := spawn(t, where)
		want := `profile "default" is held by web-1 since 2026-01-02T03:04:05Z; stop it there`
		if code := c.code(); code != 1 || !strings.Contains(c.out.String(), want) {
			t.Errorf("replace %v: exit code %d: %s", replace, code, c.out)
		}
	}
}

// holdElsewhere holds the profile as another container would.
func holdElsewhere(t *testing.T, home string) *lease.Lease {
	t.Helper()
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := lease.TryAcquire(home, lease.Holder{Host: "web-1", PID: 12, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), RunDir: "/run", Supervised: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Release)
	return l
}

func TestSupervisedWaitsInStandbyAndTakesOver(t *testing.T) {
	where := place(t)
	where.Supervised, where.Replace = true, true
	l := holdElsewhere(t, where.Home)
	c := spawn(t, where)
	until(t, "it says standby", func() bool {
		s, err := c.client().Status(t.Context())
		return err == nil && s.State == supervise.Standby && s.Holder != nil && s.Holder.Host == "web-1" && s.PID == c.cmd.Process.Pid
	})
	if code, body := c.say("s", "x"); code != 503 || !strings.Contains(body, `"standby"`) {
		t.Errorf("a message in standby got %d %s", code, body)
	}
	if n := strings.Count(c.out.String(), "held by another gateway"); n != 1 {
		t.Errorf("said %d times who holds:\n%s", n, c.out)
	}
	start := time.Now()
	l.Release()
	until(t, "it serves", func() bool { return c.status().State == supervise.Ready })
	if took := time.Since(start); took > time.Second {
		t.Errorf("took over after %s", took)
	}
	c.waitReady()
	if s := c.status(); s.Holder != nil || !s.Supervised {
		t.Errorf("%+v", s)
	}
	c.signal(syscall.SIGTERM)
	if code := c.code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Two containers on one volume: the second follows the first's kill -9.
func TestStandbyFollowsAKilledHolder(t *testing.T) {
	first := place(t)
	first.Supervised = true
	second := childOptions{Home: first.Home, RunDir: t.TempDir(), Supervised: true, Replace: true}
	a := spawn(t, first).waitReady()
	b := spawn(t, second)
	until(t, "the second stands by", func() bool {
		s, err := b.client().Status(t.Context())
		return err == nil && s.State == supervise.Standby
	})
	start := time.Now()
	a.signal(syscall.SIGKILL)
	until(t, "the second serves", func() bool { return b.status().State == supervise.Ready })
	if took := time.Since(start); took > time.Second {
		t.Errorf("took over after %s", took)
	}
}

func TestStandbyStopsAtOnce(t *testing.T) {
	where := place(t)
	where.Supervised = true
	holdElsewhere(t, where.Home)
	c := spawn(t, where)
	until(t, "it says standby", func() bool {
		s, err := c.client().Status(t.Context())
		return err == nil && s.State == supervise.Standby
	})
	start := time.Now()
	c.signal(syscall.SIGTERM)
	if code := c.code(); code != 0 || time.Since(start) > 2*time.Second {
		t.Errorf("exit code %d after %s", code, time.Since(start))
	}
}

func TestReplaceHandsOverAndCutsNothing(t *testing.T) {
	for _, supervised := range []bool{false, true} {
		t.Run(fmt.Sprintf("supervised %v", supervised), func(t *testing.T) {
			where := place(t)
			where.Supervised = supervised
			a := spawn(t, where, "HERMES_MODEL_DELAY=500ms").waitReady()
			answer := make(chan string, 1)
			go func() { code, body := a.say("s", "slow"); answer <- fmt.Sprint(code, body) }()
			until(t, "the turn runs", func() bool { return a.metric("hermes_messages_running") == 1 })
			where.Replace = true
			b := spawn(t, where).waitReady()
			if got := <-answer; !strings.HasPrefix(got, "200") {
				t.Errorf("the running turn got %s", got)
			}
			if code := a.code(); code != exitcode.Restart {
				t.Errorf("the first exits with %d", code)
			}
			if s := b.status(); s.PID != b.cmd.Process.Pid || s.State != supervise.Ready {
				t.Errorf("%+v", s)
			}
			if code, body := b.say("s", "x"); code != 200 || !strings.Contains(body, "Turn 2 ") {
				t.Errorf("%d %s", code, body)
			}
		})
	}
}

func TestForegroundDoesNotReplaceASupervisedOne(t *testing.T) {
	where := place(t)
	where.Supervised = true
	a := spawn(t, where).waitReady()
	where.Supervised, where.Replace = false, true
	b := spawn(t, where)
	if code := b.code(); code != 1 || !strings.Contains(b.out.String(), "gateway stop") {
		t.Errorf("exit code %d: %s", code, b.out)
	}
	if s := a.status(); s.State != supervise.Ready {
		t.Errorf("the supervised one suffered: %+v", s)
	}
}

func TestTwoHomesInOneRunDirectory(t *testing.T) {
	a := place(t)
	spawn(t, a).waitReady()
	b := childOptions{Home: t.TempDir(), RunDir: a.RunDir, Replace: true}
	c := spawn(t, b)
	if code := c.code(); code != 1 || !strings.Contains(c.out.String(), "HERMES_RUN_DIR") {
		t.Errorf("exit code %d: %s", code, c.out)
	}
}

func TestTakenPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	c := spawn(t, place(t), fmt.Sprintf("API_SERVER_PORT=%d", port))
	want := fmt.Sprintf("hermes: cannot listen on 127.0.0.1:%d: address already in use; stop what listens there", port)
	if code := c.code(); code != 1 || !strings.Contains(c.out.String(), want) {
		t.Errorf("exit code %d: %s", code, c.out)
	}
}

// Broken settings park the slot: they must not wait in standby first.
func TestBrokenSettingsExit78EvenWhenHeld(t *testing.T) {
	where := place(t)
	where.Supervised = true
	holdElsewhere(t, where.Home)
	if err := os.WriteFile(filepath.Join(where.Home, "config.yaml"), []byte("api_server:\n  port: many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := spawn(t, where, "API_SERVER_PORT=")
	if code := c.code(); code != exitcode.Config || !strings.Contains(c.out.String(), "config.yaml:2:9") {
		t.Errorf("exit code %d: %s", code, c.out)
	}
}

func TestModelWithoutItsKeyExits78(t *testing.T) {
	c := spawn(t, place(t), "HERMES_MODEL_PROVIDER=openai")
	if code := c.code(); code != exitcode.Config || !strings.Contains(c.out.String(), "HERMES_MODEL_API_KEY") {
		t.Errorf("exit code %d: %s", code, c.out)
	}
}

func TestWideBindMakesAKeyAndNeverShowsIt(t *testing.T) {
	where := place(t)
	c := spawn(t, where, "API_SERVER_HOST=0.0.0.0").waitReady()
	_, port, err := net.SplitHostPort(c.status().Address)
	if err != nil {
		t.Fatal(err)
	}
	key, created, err := config.EnsureAPIKey(where.Home)
	if err != nil || created {
		t.Fatalf("no key was made: %v", err)
	}
	for bearer, want := range map[string]int{"": 401, key.Reveal(): 200} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+"/v1/models", nil)
		req.Header.Set("Authorization", "Bearer "+bearer)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s, want %d", resp.Status, want)
		}
	}
	if strings.Contains(c.out.String(), key.Reveal()) || !strings.Contains(c.out.String(), filepath.Join(where.Home, ".env")) {
		t.Errorf("output:\n%s", c.out)
	}
	if code, body := c.say("s", "no key on the socket"); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

// note reads the note that a gateway leaves beside its control socket.
func (c *child) note() (control.Note, error) {
	n, _, err := control.ReadNote(nil, control.SocketPath(c.opts.RunDir, profile.Default))
	return n, err
}

// A gateway in a deadlock confirms nothing: its note stops being believed, and
// who looks asks it, and hears that it does not answer.
func TestNoteOfADeafGatewayIsDoubted(t *testing.T) {
	t.Parallel() // for it takes as long as a note is believed
	c := spawn(t, place(t), app.DeadlockVar+"=1").waitReady()
	n, err := c.note()
	if s := c.status(); err != nil || n.PID != s.PID || n.State != supervise.Ready || !n.Since.Equal(s.Since) || !slices.Equal(n.Platforms, s.Platforms) {
		t.Fatalf("the note says %+v (%v), the gateway %+v", n, err, s)
	}
	path := control.SocketPath(c.opts.RunDir, profile.Default) + ".note"
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	until(t, "the gateway confirms it", func() bool { _, err := c.note(); return err == nil })
	if err := c.client().Deadlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "nobody believes it any more", func() bool { _, err := c.note(); return err != nil })
}

func TestNoteFollowsTheLifeOfAGateway(t *testing.T) {
	c := spawn(t, place(t)).waitReady()
	if n, err := c.note(); err != nil || n.State != supervise.Ready {
		t.Fatalf("%+v, %v", n, err)
	}
	c.signal(syscall.SIGTERM)
	if code := c.code(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Lstat(control.SocketPath(c.opts.RunDir, profile.Default) + ".note"); !os.IsNotExist(err) {
		t.Errorf("the note is left: %v", err)
	}
}
