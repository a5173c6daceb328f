package dbosproof

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
)

// childVar holds the order of a child process: this binary again.
const childVar = "HERMES_PROOF_CHILD"

// order is what a child is to do.
type order struct {
	Job   string
	Setup setup
	Log   string // every start of a model call and every reply, a line each

	From, To  int // messages to accept in each chat, the first and the last
	Chats     int
	Messages  int           // for each chat
	Rate      int           // messages a second; 0 is as fast as they are answered
	Wait      time.Duration // how long the model takes
	Version   string
	CrashText string
}

func TestMain(m *testing.M) {
	text := os.Getenv(childVar)
	if text == "" {
		os.Exit(m.Run())
	}
	var o order
	if err := errors.Join(json.Unmarshal([]byte(text), &o), o.run()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (o order) run() error {
	switch o.Job {
	case "serve":
		return o.serve()
	case "throughput", "paced":
		return o.load()
	case "rest":
		return o.rest()
	case "flight":
		return o.flight()
	case "old", "new":
		return o.version()
	}
	return fmt.Errorf("unknown job %q", o.Job)
}

// command is the child that does o, in front of it what runs it (strace).
func command(t *testing.T, o order, front ...string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	argv := append(front, self)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), childVar+"="+string(text))
	return cmd
}

// result runs the child to its end and decodes what it found.
func result[T any](t *testing.T, o order, front ...string) (v T) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := command(t, o, front...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", o.Job, o.Setup.Kind, err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatalf("%s %s: %v in %q", o.Job, o.Setup.Kind, err, out.String())
	}
	return v
}

// serve accepts its messages, says so, and ends when every accepted one is
// answered or set aside; its parent may not wait for that.
func (o order) serve() error {
	log, err := os.OpenFile(o.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	accepted := make(chan struct{})
	var e engine // set before accepted is closed
	e, err = open(o.Setup, hooks{
		model: func(ctx context.Context, m message) (string, error) {
			fmt.Fprintf(log, "start %s %d\n", m.Chat, m.N)
			if o.CrashText != "" && m.Text == o.CrashText {
				<-accepted
				return "", crash(ctx, e)
			}
			return m.Text, pause(ctx, o.Wait)
		},
		reply: func(m message) { fmt.Fprintf(log, "reply %s %d\n", m.Chat, m.N) },
	})
	if err != nil {
		return err
	}
	fmt.Println("up")
	for n := o.From; n <= o.To; n++ {
		for c := range o.Chats {
			m := message{Chat: fmt.Sprintf("chat%d", c), N: n, Text: "hello"}
			if o.CrashText != "" && c == 0 && n == 1 {
				m.Text = o.CrashText
			}
			if err := e.accept(context.Background(), m); err != nil {
				return err
			}
			fmt.Println("accepted", c, n)
		}
	}
	close(accepted)
	if err := settle(e); err != nil {
		return err
	}
	c, err := e.counts(context.Background())
	if err != nil {
		return err
	}
	fmt.Println("counts", c.Answered, c.Failed)
	return nil // without close: the next start must not need it
}

// crash ends the process once the other chat's answers stand in the database, in
// this life or in one before. A reply that went out is not enough: what ends
// between it and its own record counts as a try of that message too.
func crash(ctx context.Context, e engine) error {
	for {
		c, err := e.counts(ctx)
		if err != nil {
			return err
		}
		if c.Answered >= poisonMessages {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		time.Sleep(time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// life is a serving child as its parent sees it.
type life struct {
	cmd      *exec.Cmd
	lines    chan string
	accepted map[int]int // by chat, the last one
	counts   counts
	up, done bool
}

func start(t *testing.T, o order) *life {
	t.Helper()
	cmd := command(t, o)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l := &life{cmd: cmd, lines: make(chan string, 1024), accepted: map[int]int{}}
	go scan(out, l.lines)
	return l
}

func scan(out io.Reader, lines chan<- string) {
	defer close(lines)
	for s := bufio.NewScanner(out); s.Scan(); {
		lines <- s.Text()
	}
}

func (l *life) note(line string) {
	var a, b int
	switch word, rest, _ := strings.Cut(line, " "); word {
	case "up":
		l.up = true
	case "accepted":
		fmt.Sscan(rest, &a, &b)
		l.accepted[a] = b
	case "counts":
		fmt.Sscan(rest, &a, &b)
		l.counts, l.done = counts{Answered: a, Failed: b}, true
	}
}

// kill kills the child with signal 9 after d from its being up.
func (l *life) kill(t *testing.T, d time.Duration) {
	t.Helper()
	for line := range l.lines {
		if l.note(line); l.up {
			break
		}
	}
	time.Sleep(d)
	if err := l.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	l.end()
}

// end reads the child to its end and returns whether it ended by itself.
func (l *life) end() bool {
	for line := range l.lines {
		l.note(line)
	}
	return l.cmd.Wait() == nil
}

// steps is the pause in which what lies between two versions of a workflow shows.
type steps struct {
	mu   sync.Mutex
	made map[string]int
}

func (s *steps) add(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made[name]++
}

// versionTurns is how many turns the old version leaves behind.
const versionTurns = 100

// version leaves turns behind as the old binary, half of them before and half of
// them after the place that the new binary changes, or finishes them as the new one.
func (o order) version() error {
	db, err := openSQLite(o.Setup.Path, "WAL", o.Setup.Conns)
	if err != nil {
		return err
	}
	ctx, err := dbos.NewContext(context.Background(), config(db, o.Version))
	if err != nil {
		return err
	}
	s := &steps{made: map[string]int{}}
	var blocked sync.WaitGroup
	blocked.Add(versionTurns)
	turn := func(ctx dbos.Context, n int) (string, error) {
		step := func(name string) error {
			_, err := dbos.RunAsStep(ctx, func(context.Context) (string, error) { s.add(name); return name, nil }, dbos.WithStepName(name))
			return err
		}
		if err := step("history"); err != nil {
			return "", err
		}
		if o.Job == "old" {
			if n%2 == 1 {
				if err := step("model"); err != nil {
					return "", err
				}
			}
			blocked.Done()
			<-ctx.Done()
			return "", context.Cause(ctx)
		}
		patched, err := dbos.Patch(ctx, "summary")
		if err != nil {
			return "", err
		}
		if patched {
			if err := step("summary"); err != nil {
				return "", err
			}
		}
		return "", errors.Join(step("model"), step("send"))
	}
	dbos.RegisterWorkflow(ctx, turn, dbos.WithWorkflowName("turn"))
	if err := dbos.Launch(ctx); err != nil {
		return err
	}
	if o.Job == "old" {
		for n := range versionTurns {
			if _, err := dbos.RunWorkflow(ctx, turn, n, dbos.WithWorkflowID(strconv.Itoa(n))); err != nil {
				return err
			}
		}
		blocked.Wait()
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	for n := range versionTurns {
		h, err := dbos.RetrieveWorkflow[string](ctx, strconv.Itoa(n))
		if err != nil {
			return err
		}
		if _, err := h.GetResult(dbos.WithHandlePollingInterval(10 * time.Millisecond)); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(s.made)
}
