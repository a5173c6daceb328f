package s6slots

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/s6/s6test"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
)

// TestMain makes this binary what the slots of the tests point to: the entry
// points that s6-supervise executes, and under the name hermes a service that
// does what its plan says.
func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); name {
	case "run", "finish":
		err := enter(name)
		if text := fmt.Sprint(err); err != nil && !strings.HasPrefix(text, "exit code ") {
			fmt.Fprintln(os.Stderr, "hermes:", text)
		}
		os.Exit(exitcode.Of(err))
	case "hermes":
		os.Exit(serve(os.Getenv("HERMES_HOME")))
	}
	// Under -race every process that exits would wait a second for late reports.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

// enter is app.RunEntry.
func enter(name string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	e := slot.Entry{Dir: dir, Args: os.Args[1:], Environ: os.Environ(), Stdout: os.Stdout, Exec: syscall.Exec}
	if e.Binary, err = os.Executable(); err != nil {
		return err
	}
	if spec, err := slot.ReadSpec(dir); err == nil && exists(filepath.Join(spec.Home, "cgroup")) {
		e.Cgroups = filepath.Join(spec.Home, "cgroup")
	}
	switch {
	case name == "finish":
		return e.Finish(context.Background())
	case filepath.Base(dir) == "log":
		return e.Log()
	}
	return e.Run(context.Background())
}

// serve does what the words in the file plan of home say, in order:
//
//	ready     says so on the descriptor that it was given
//	deaf      ignores TERM
//	leave     starts a child in a session of its own, which ignores TERM
//	litter    runs the script in the file litter of home and forgets it
//	words=W   leaves W as its last words
//	linger    takes its time after TERM: until there is a file go in home
//	exit=N    exits with N; without it the service ends with TERM, code 0
//
// It notes its pid, arguments and environment in home first.
func serve(home string) int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println("serving as", os.Getpid())
	note(home, "environ", strings.Join(os.Environ(), "\x00")+"\x00")
	note(home, "args", strings.Join(os.Args, " "))
	plan, _ := os.ReadFile(filepath.Join(home, "plan"))
	for word := range strings.FieldsSeq(string(plan)) {
		name, value, _ := strings.Cut(word, "=")
		switch {
		case name == "exit":
			n, _ := strconv.Atoi(value)
			return n
		case name == "words":
			_ = os.WriteFile(os.Getenv(slot.EnvLastWords), []byte(value+"\nmore\n"), 0o644)
		case word == "ready":
			fd, _ := strconv.Atoi(os.Getenv(slot.EnvNotify))
			fmt.Fprintln(os.NewFile(uintptr(fd), "notify"))
		case word == "deaf":
			signal.Ignore(syscall.SIGTERM)
		case word == "leave":
			leave(home)
		case word == "litter":
			litter(home)
		case word == "linger":
			defer awaitFile(filepath.Join(home, "go"))
		}
	}
	<-term
	return 0
}

func awaitFile(path string) {
	for range time.Tick(5 * time.Millisecond) {
		if exists(path) {
			return
		}
	}
}

func note(home, name, text string) {
	if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func leave(home string) {
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "trap '' TERM; sleep 1000 & wait"},
		&os.ProcAttr{Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true}})
	if err == nil {
		note(home, "left", strconv.Itoa(p.Pid))
	}
}

// tree is a run directory with a live s6-svscan, and a data directory.
type tree struct {
	t    *testing.T
	dir  rundir.Dir
	home string
	m    *Manager
	spec supervise.Spec // of the slot that most tests use
}

func newTree(t *testing.T, plan string) *tree {
	t.Helper()
	return newTreeOn(t, filepath.Join(t.TempDir(), "home"), plan)
}

// newTreeOn is a new container on the volume home.
func newTreeOn(t *testing.T, home, plan string) *tree {
	t.Helper()
	tr := &tree{t: t, dir: rundir.Dir(filepath.Join(t.TempDir(), "run")), home: home}
	for _, dir := range []string{string(tr.dir.Scan()), tr.dir.Hermes(), tr.home} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tr.m = &Manager{Dir: tr.dir, Binary: binary, By: "test"}
	place := supervise.Place{
		Home: tr.home, RunDir: string(tr.dir), BootID: "b",
		BackoffMax: supervise.DefaultBackoffMax, StopTimeout: 10 * time.Second,
	}
	tr.spec = place.Gateway("default", []string{"-v"}, true)
	tr.plan(plan)
	t.Cleanup(tr.endLeft) // after the tree has ended
	s6test.StartIn(t, string(tr.dir.Scan()))
	return tr
}

// endLeft ends what a failed test leaves: nothing, if the slots work.
func (tr *tree) endLeft() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	find := func() []proc.Process {
		return proc.Match(func(p proc.Process) bool { return p.HasEnv(tr.spec.Mark) })
	}
	if n, err := proc.End(ctx, find, 0); n > 0 || err != nil {
		tr.t.Errorf("%d processes outlived the tree: %v", n, err)
	}
}

// started is newTree with the slot registered and ready.
func started(t *testing.T, plan string, change ...func(*supervise.Spec)) *tree {
	t.Helper()
	tr := newTree(t, plan)
	for _, c := range change {
		c(&tr.spec)
	}
	tr.ensure()
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	return tr
}

func (tr *tree) plan(words string) { note(tr.home, "plan", words) }

func (tr *tree) ensure() {
	tr.t.Helper()
	if err := tr.m.Ensure(tr.ctx(), tr.spec); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) ctx() context.Context {
	ctx, cancel := context.WithTimeout(tr.t.Context(), 20*time.Second)
	tr.t.Cleanup(cancel)
	return ctx
}

func (tr *tree) slot() string { return tr.dir.Scan().Dir(tr.spec.Name) }

func (tr *tree) status() s6.Status {
	tr.t.Helper()
	st, err := s6.ReadStatus(tr.slot())
	if err != nil {
		tr.t.Fatal(err)
	}
	return st
}

// service is what the lister says of the slot.
func (tr *tree) service() supervise.Service {
	tr.t.Helper()
	report, err := Lister{Dir: tr.dir, Home: tr.home, Live: true}.List(tr.ctx(), true)
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, s := range report.Services {
		if s.Name == tr.spec.Name {
			return s
		}
	}
	tr.t.Fatalf("%s is not in %+v", tr.spec.Name, report)
	return supervise.Service{}
}

// copies are the running services of the slot, told by their mark.
func (tr *tree) copies() []proc.Process {
	return proc.Match(func(p proc.Process) bool {
		args := p.Args()
		return len(args) > 0 && args[0] == "hermes" && p.HasEnv(tr.spec.Mark)
	})
}

// change notes deaths in the slot's record, as if they had happened.
func (tr *tree) change(f func(*slot.Record)) {
	tr.t.Helper()
	r := slot.ReadRecord(tr.slot())
	f(&r)
	if err := r.Write(tr.slot()); err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) kill(pid int) {
	tr.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		tr.t.Fatalf("cannot kill %d: %v", pid, err)
	}
}

func (tr *tree) eventually(what string, condition func() bool) {
	tr.t.Helper()
	s6test.Eventually(tr.t, what, condition)
}

func (tr *tree) read(name string) string { return read(tr.home, name) }
