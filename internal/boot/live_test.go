package boot

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/s6/s6test"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/testenv"
)

// rootVar is the root directory of a container that the test binary boots.
const rootVar = "BOOT_TEST_ROOT"

// TestMain makes this binary what boot starts: /init, the wrapper of the main
// program, the hooks of s6-svscan, and a gateway run that has redirected.
func TestMain(m *testing.M) {
	hook, isHook := strings.CutPrefix(os.Args[0], ".s6-svscan/")
	var err error
	switch {
	case isHook:
		dir, _ := os.Getwd()
		err = Hook(hook, rundir.Dir(filepath.Dir(dir)))
	case os.Getenv(rootVar) == "" || len(os.Args) < 2:
		// Under -race every process that exits would wait a second for late reports.
		os.Setenv("GORACE", "atexit_sleep_ms=0")
		os.Exit(m.Run())
	case os.Args[1] == "gateway":
		err = syscall.Exec("/bin/sleep", []string{"sleep", "infinity"}, os.Environ())
	case os.Args[2] == "init":
		err = Init(context.Background(), initOptions())
	case os.Args[2] == "main":
		err = Main(context.Background(), mainOptions())
	}
	if err != nil && err.Error() != fmt.Sprintf("exit code %d", exitcode.Of(err)) {
		fmt.Fprintln(os.Stderr, "hermes:", err)
	}
	os.Exit(exitcode.Of(err))
}

func isGateway(args []string) bool { return args[0] == "gateway" }

func initOptions() Options {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return Options{
		Args: os.Args[4:], Environ: os.Environ(), Root: os.Getenv(rootVar), Binary: self, Stderr: os.Stderr,
		Parse: func(args []string) MainProgram {
			return MainProgram{GatewayRun: isGateway(args), IsCommand: isGateway(args)}
		},
		WriteSlot: func(dir string, spec supervise.Spec, down bool) error {
			write := func(name, text string) error {
				return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755)
			}
			var errs []error
			if down {
				errs = append(errs, write("down", ""))
			}
			bye := filepath.Join(spec.Home, spec.Name)
			errs = append(errs, write("notification-fd", "3"), write("run", "#!/bin/sh\n"+
				"trap 'echo stopped >> "+bye+"; exit 0' TERM\necho >&3\nwhile :; do sleep 0.02; done\n"))
			return errors.Join(errs...)
		},
	}
}

func mainOptions() MainOptions {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	ready, stop, err := Inherited()
	if err != nil {
		panic(err)
	}
	return MainOptions{
		Args: os.Args[4:], Environ: os.Environ(), Run: rundir.Dir(os.Getenv(rundir.EnvVar)),
		Binary: self, Stderr: os.Stderr, Ready: ready, Stop: stop, IsCommand: isGateway,
	}
}

// container is a boot in a process tree of its own, over a root directory.
type container struct {
	t    *testing.T
	root string
	cmd  *exec.Cmd
	out  *output
}

// output collects lines, safe for concurrent use.
type output struct {
	mu    sync.Mutex
	lines []string
}

func (o *output) has(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.lines, func(line string) bool { return strings.Contains(line, text) })
}

func (o *output) collect(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		o.mu.Lock()
		o.lines = append(o.lines, lines.Text())
		o.mu.Unlock()
	}
}

// boot starts a container with the command args, as root if the test is: then
// it drops to uid 10000, who must reach the binary and the root directory.
func boot(t *testing.T, env []string, args ...string) *container {
	t.Helper()
	testenv.Need(t, "s6")
	root, err := os.MkdirTemp("", "boot")
	if err != nil {
		t.Fatal(err)
	}
	c := &container{t: t, root: root, out: &output{}}
	binary := filepath.Join(root, "hermes")
	data := filepath.Join(root, "data")
	if err := errors.Join(os.Chmod(root, 0o755), copyFile(os.Args[0], binary), os.Mkdir(data, 0o777), os.Chmod(data, 0o777)); err != nil {
		t.Fatal(err)
	}
	// No container starts with HUP ignored, as everything under nohup does.
	c.cmd = exec.Command("env", append([]string{"--default-signal", binary, "boot", "init", "--"}, args...)...)
	c.cmd.Env = append([]string{
		rootVar + "=" + root, "HERMES_HOME=" + data, "GORACE=atexit_sleep_ms=0",
		"PATH=" + os.Getenv("PATH"), c.mark(),
	}, env...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stdout, c.cmd.Stderr = w, w
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	collected := make(chan struct{})
	go func() { defer close(collected); c.out.collect(r) }()
	t.Cleanup(func() { c.cleanUp(); <-collected; r.Close(); os.RemoveAll(root) })
	return c
}

// mark stands in the environment of every process of the container.
func (c *container) mark() string { return "BOOT_TEST_MARK=" + c.root }

func (c *container) processes() []proc.Process {
	return proc.Match(func(p proc.Process) bool { return p.HasEnv(c.mark()) })
}

func (c *container) cleanUp() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := proc.End(ctx, c.processes, 0); err != nil {
		c.t.Error(err)
	}
	_ = c.cmd.Wait()
	if c.t.Failed() {
		c.t.Logf("the container said:\n%s", strings.Join(c.out.lines, "\n"))
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return testenv.WriteFile(to, b, 0o755)
}

func (c *container) run() rundir.Dir { return rundir.Dir(filepath.Join(c.root, "run")) }

func (c *container) eventually(what string, condition func() bool) {
	c.t.Helper()
	s6test.Eventually(c.t, what, condition)
}

func (c *container) signal(sig syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// wantExit waits for the end and checks the code; nothing may be left.
func (c *container) wantExit(code int) {
	c.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- c.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		c.t.Errorf("the container did not end")
		_ = c.cmd.Process.Kill()
		<-ended
	}
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Errorf("the container ended with %d (%v), want %d", got, c.cmd.ProcessState, code)
	}
}

func (c *container) wantNothingLeft() {
	c.t.Helper()
	c.eventually("every process has ended", func() bool { return len(c.processes()) == 0 })
}

func TestExitCodeOfTheMainProgram(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		said string
	}{
		"its own":        {[]string{"sh", "-c", "exit 42"}, 42, ""},
		"success":        {[]string{"true"}, 0, ""},
		"killed":         {[]string{"sh", "-c", "kill -9 $$"}, 137, ""},
		"missing":        {[]string{"/no/such/program"}, 127, "hermes: cannot run /no/such/program: no such file or directory"},
		"not executable": {[]string{"/etc/passwd"}, 126, "hermes: cannot run /etc/passwd: permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box := boot(t, nil, c.args...)
			box.wantExit(c.code)
			box.wantNothingLeft()
			if b, err := os.ReadFile(box.run().ExitCode()); err != nil || string(b) != strconv.Itoa(c.code) {
				t.Errorf("the exit code file holds %q, %v; want %d", b, err, c.code)
			}
			if box.run().Scan().Alive() == nil {
				t.Error("s6-svscan lives")
			}
			if c.said != "" && !box.out.has(c.said) {
				t.Errorf("it did not say %q", c.said)
			}
		})
	}
}

// A shell that says up when it is ready for signals.
const (
	deafShell = `trap "" TERM; echo up; while :; do sleep 0.02; done`
	trapShell = `trap "exit 7" %s; echo up; while :; do sleep 0.02; done`
)

func TestStopSignals(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		sig    syscall.Signal
		code   int
	}{
		"a heartbeat that is ended is a success":         {"echo up; exec sleep 1000", syscall.SIGTERM, 0},
		"its own code also after a stop":                 {fmt.Sprintf(trapShell, "TERM"), syscall.SIGTERM, 7},
		"INT is a stop, too":                             {fmt.Sprintf(trapShell, "TERM"), syscall.SIGINT, 7},
		"QUIT is a stop, too":                            {fmt.Sprintf(trapShell, "TERM"), syscall.SIGQUIT, 7},
		"USR1 goes to the main program":                  {fmt.Sprintf(trapShell, "USR1"), syscall.SIGUSR1, 7},
		"HUP goes to the main program, which dies of it": {"echo up; exec sleep 1000", syscall.SIGHUP, 129},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box := boot(t, nil, "sh", "-c", c.script)
			box.eventually("the main program is up", func() bool { return box.out.has("up") })
			box.signal(c.sig)
			box.wantExit(c.code)
			box.wantNothingLeft()
		})
	}
}

// A main program that ignores TERM is killed at the budget: that is a stop
// that succeeded, and what is waited for is named.
func TestDeafMainProgramIsKilledAtTheBudget(t *testing.T) {
	t.Parallel()
	box := boot(t, []string{"HERMES_STOP_TIMEOUT=2"}, "sh", "-c", deafShell)
	box.eventually("the main program is up", func() bool { return box.out.has("up") })
	began := time.Now()
	box.signal(syscall.SIGTERM)
	box.wantExit(0)
	if took := time.Since(began); took < 1700*time.Millisecond || took > 6*time.Second {
		t.Errorf("the stop took %s of a budget of 2 s", took)
	}
	if !box.out.has("hermes: stopping: waiting for the main program") {
		t.Error("it did not say what it waits for")
	}
	box.wantNothingLeft()
}

func TestSecondStopSignalHurries(t *testing.T) {
	t.Parallel()
	box := boot(t, []string{"HERMES_STOP_TIMEOUT=600"}, "sh", "-c", deafShell)
	box.eventually("the main program is up", func() bool { return box.out.has("up") })
	box.signal(syscall.SIGTERM)
	box.eventually("the stop has begun", box.run().Stopping)
	box.signal(syscall.SIGTERM)
	box.wantExit(0)
	box.wantNothingLeft()
}

// The whole tree: the slot that the command asks for is up, and a stop ends it
// gently and once.
func TestGatewayRunsInItsSlotAndStopsGently(t *testing.T) {
	t.Parallel()
	box := boot(t, nil, "gateway", "run")
	slot := box.run().Scan().Dir("gateway-default")
	box.eventually("the slot serves", func() bool { st, err := s6.ReadStatus(slot); return err == nil && st.Serving() })
	box.signal(syscall.SIGTERM)
	box.wantExit(0)
	box.wantNothingLeft()
	if b, err := os.ReadFile(filepath.Join(box.root, "data", "gateway-default")); string(b) != "stopped\n" {
		t.Errorf("the service noted %q, %v; want one stop", b, err)
	}
	mark, err := os.Stat(filepath.Join(box.run().Hermes(), "tree.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := os.Geteuid()
	if want == 0 {
		want = DefaultID
	}
	if st := mark.Sys().(*syscall.Stat_t); int(st.Uid) != want {
		t.Errorf("the tree belongs to %d, want %d", st.Uid, want)
	}
}

// Killing the wrapper of the main program loses the exit code, not the stop.
func TestStopWithoutTheWrapper(t *testing.T) {
	t.Parallel()
	box := boot(t, nil, "sh", "-c", "echo up; exec sleep 1000")
	box.eventually("the main program is up", func() bool { return box.out.has("up") })
	wrapper := slices.IndexFunc(box.processes(), func(p proc.Process) bool { return slices.Contains(p.Args(), "main") })
	if wrapper < 0 {
		t.Fatal("no wrapper runs")
	}
	if err := box.processes()[wrapper].Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	box.eventually("the wrapper is gone", func() bool {
		return !slices.ContainsFunc(box.processes(), func(p proc.Process) bool { return slices.Contains(p.Args(), "main") })
	})
	box.signal(syscall.SIGTERM)
	box.wantExit(1)
	if !box.out.has("its wrapper was killed") {
		t.Error("it did not say why")
	}
}

func TestBootRefusesWrongSettings(t *testing.T) {
	for env, said := range map[string]string{
		"HERMES_STOP_TIMEOUT=soon": `hermes: HERMES_STOP_TIMEOUT is "soon": give whole seconds`,
		"PUID=root":                `hermes: PUID is "root": give a numeric id`,
	} {
		t.Run(env, func(t *testing.T) {
			t.Parallel()
			if strings.HasPrefix(env, "PUID") {
				needRoot(t)
			}
			box := boot(t, []string{env}, "true")
			box.wantExit(exitcode.Config)
			box.eventually("it says why", func() bool { return box.out.has(said) })
		})
	}
}
