package proc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/testenv"
)

// role makes the test binary one of the processes that the tests need.
const role = "PROC_TEST_ROLE"

// patience bounds what takes milliseconds.
const patience = 10 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		// Under -race every process that exits would wait a second for late reports.
		os.Setenv("GORACE", "atexit_sleep_ms=0")
		os.Exit(m.Run())
	case "sleeper":
		fmt.Println("up", os.Getpid())
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "deaf": // ignores TERM and has a child of its kind as often as it can
		signal.Ignore(unix.SIGTERM)
		fmt.Println("up", os.Getpid())
		forkAsOftenAsItCan()
	case "litter":
		litter()
	case "somebody":
		if err := becomeSomebody(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// forkAsOftenAsItCan starts short-lived deaf sleepers, in sessions of their
// own, until it is killed.
func forkAsOftenAsItCan() {
	for {
		p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", "trap '' TERM; sleep 1000"},
			&os.ProcAttr{Env: os.Environ(), Sys: &unix.SysProcAttr{Setsid: true}})
		if err == nil {
			_ = p.Release()
		}
		time.Sleep(5 * time.Millisecond) // as often as it can without filling the machine
	}
}

// litter tags itself and leaves an orphan in a session of its own, with an
// empty environment.
func litter() {
	if err := proc.SetTag(proc.TagOf(42)); err != nil {
		fmt.Println("error", err)
		return
	}
	out, err := exec.Command("setsid", "sh", "-c", "env -i setsid sleep 1000 >/dev/null 2>&1 & echo $!").Output()
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Print(string(out))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// process is a test binary in a role.
type process struct {
	*exec.Cmd
	id    proc.Process
	stdin io.Closer
	lines *bufio.Scanner
}

// start runs a role and ends it with the test.
func start(t *testing.T, as string, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), role+"="+as), env...)
	out, err1 := cmd.StdoutPipe()
	in, err2 := cmd.StdinPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p := &process{Cmd: cmd, stdin: in, lines: bufio.NewScanner(out)}
	if !p.lines.Scan() {
		t.Fatalf("%s said nothing", as)
	}
	if p.id, err1 = proc.Read(cmd.Process.Pid); err1 != nil {
		t.Fatal(err1)
	}
	return p
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("not within %s: %s", patience, what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func marked(entry string) func() []proc.Process {
	return func() []proc.Process { return proc.Match(func(p proc.Process) bool { return p.HasEnv(entry) }) }
}

// mark is a NAME=VALUE that no other test and no other run uses.
func mark(t *testing.T) string {
	return "PROC_TEST_MARK=" + t.Name() + "." + strconv.Itoa(os.Getpid())
}

func TestReadSelf(t *testing.T) {
	p, err := proc.Read(os.Getpid())
	if err != nil || p.PPID != os.Getppid() || p.Start == 0 || !p.Alive() {
		t.Errorf("this process: %+v, %v", p, err)
	}
	if sid, err := unix.Getsid(0); err != nil || p.Session != sid {
		t.Errorf("session %d, want %d: %v", p.Session, sid, err)
	}
	if !slices.Equal(p.Args(), os.Args) {
		t.Errorf("args %q, want %q", p.Args(), os.Args)
	}
	if self, err := proc.Read(os.Getpid()); err != nil || self.Resident < 1<<20 || self.Resident > 1<<36 {
		t.Errorf("resident %d bytes: %v", self.Resident, err)
	}
}

func TestGone(t *testing.T) {
	p := start(t, "sleeper")
	p.stdin.Close()
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := proc.Read(p.id.PID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that is gone: %v", err)
	}
	if p.id.Alive() || p.id.Signal(unix.SIGKILL) != nil || p.id.HasEnv("PATH="+os.Getenv("PATH")) || p.id.Args() != nil {
		t.Error("a process that is gone is still something")
	}
}

// A zombie is neither alive nor matched: nobody waits for it to end.
func TestZombieIsNotAlive(t *testing.T) {
	p := start(t, "sleeper")
	p.stdin.Close()
	eventually(t, "the sleeper is a zombie", func() bool {
		now, err := proc.Read(p.id.PID)
		return err == nil && now.State == 'Z'
	})
	if p.id.Alive() {
		t.Error("a zombie is alive")
	}
	if list := proc.Match(func(q proc.Process) bool { return q.PID == p.id.PID }); len(list) != 0 {
		t.Errorf("a zombie matches: %+v", list)
	}
	if n, err := proc.End(t.Context(), marked(mark(t)), 0); n != 0 || err != nil {
		t.Errorf("ended %d: %v", n, err)
	}
}

func TestMatchByMark(t *testing.T) {
	m := mark(t)
	p := start(t, "sleeper", m)
	start(t, "sleeper", m+"0")     // a longer value
	start(t, "sleeper", "X"+m)     // a longer name
	start(t, "sleeper", "A=x\n"+m) // another line is no other variable
	if list := marked(m)(); len(list) != 1 || list[0].PID != p.id.PID {
		t.Errorf("%s matches %+v, want pid %d alone", m, list, p.id.PID)
	}
}

// A pid is not a process: with another start time the same number is somebody
// else, who must not be hit.
func TestSignalNeverHitsAReusedPID(t *testing.T) {
	p := start(t, "sleeper")
	former := p.id
	former.Start--
	if former.Alive() {
		t.Error("a former holder of the pid is alive")
	}
	if err := former.Signal(unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if n, err := proc.End(t.Context(), func() []proc.Process {
		if former.Alive() {
			return []proc.Process{former}
		}
		return nil
	}, 0); n != 0 || err != nil {
		t.Errorf("ended %d: %v", n, err)
	}
	if err := unix.Kill(p.id.PID, 0); err != nil || !p.id.Alive() {
		t.Fatalf("the present holder of the pid was hit: %v", err)
	}
	p.stdin.Close()
	if err := p.Wait(); err != nil {
		t.Errorf("the present holder of the pid did not end by itself: %v", err)
	}
}

func TestSignal(t *testing.T) {
	p := start(t, "sleeper")
	if err := p.id.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
		t.Errorf("ended with %v, want SIGTERM", err)
	}
}

func TestEndIsGentleFirst(t *testing.T) {
	m := mark(t)
	p := start(t, "sleeper", m)
	if n, err := proc.End(t.Context(), marked(m), patience); n != 1 || err != nil {
		t.Errorf("ended %d: %v", n, err)
	}
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGTERM {
		t.Errorf("ended with %v, want SIGTERM", err)
	}
}

// The tree ignores TERM, leaves its session and forks while it is being
// killed: nothing of it is left.
func TestEndKillsATreeThatForks(t *testing.T) {
	for name, grace := range map[string]time.Duration{"at once": 0, "after a grace": 60 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			m := mark(t)
			start(t, "deaf", m)
			start(t, "deaf", m)
			eventually(t, "the tree has grown", func() bool { return len(marked(m)()) >= 6 })
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			n, err := proc.End(ctx, marked(m), grace)
			if err != nil || n < 6 {
				t.Errorf("ended %d: %v", n, err)
			}
			if left := marked(m)(); len(left) != 0 {
				t.Errorf("left: %+v", left)
			}
		})
	}
}

func TestEndGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	immortal := func() []proc.Process { // a process that no signal reaches
		cancel()
		return []proc.Process{{PID: os.Getpid(), Start: 1}}
	}
	if _, err := proc.End(ctx, immortal, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("End: %v", err)
	}
}

// An orphan that left its session and cleared its environment keeps its tag,
// and nobody else has it.
func TestTagIsInherited(t *testing.T) {
	p := start(t, "litter")
	pid, err := strconv.Atoi(p.lines.Text())
	if err != nil {
		t.Fatal(p.lines.Text())
	}
	orphan, err := proc.Read(pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = orphan.Signal(unix.SIGKILL) })
	if got := orphan.Tag(); got != proc.TagOf(42) {
		t.Errorf("the orphan's tag is %x, want %x", got, proc.TagOf(42))
	}
	if self := (proc.Process{PID: os.Getpid()}); self.Tag() != 0 {
		t.Errorf("this process has the tag %x", self.Tag())
	}
	if nobody := (proc.Process{PID: 1 << 30}); nobody.Tag() != 0 {
		t.Errorf("nobody has the tag %x", nobody.Tag())
	}
}

// Root becomes somebody else for good, and knows before it tries whether it
// can.
func TestBecome(t *testing.T) {
	testenv.Need(t, "root")
	if !proc.CanBecome() {
		t.Skip("needs the capabilities to become another user")
	}
	for groups, want := range map[string]string{"": "10001 10002 [] false", "0,5": "10001 10002 [0 5] false"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = []string{role + "=somebody", "GROUPS=" + groups}
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("with groups %q: uid gid groups may-change-again: %s, %v; want %s", groups, got, err, want)
		}
	}
}

func becomeSomebody() error {
	var groups []int
	for g := range strings.FieldsFuncSeq(os.Getenv("GROUPS"), func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(g)
		if err != nil {
			return err
		}
		groups = append(groups, n)
	}
	if err := proc.Become(10001, 10002, groups); err != nil {
		return err
	}
	if err := proc.Become(0, 0, nil); err == nil {
		return errors.New("became root again")
	}
	got, err := os.Getgroups()
	fmt.Println(os.Getuid(), os.Getgid(), got, proc.CanBecome())
	return err
}

// A mark is found wherever it stands, also in an environment that is longer
// than one read.
func TestHasEnvInALongEnvironment(t *testing.T) {
	long := "PROC_TEST_LONG=" + strings.Repeat("x", 100_000)
	p := start(t, "sleeper", long, mark(t))
	if !p.id.HasEnv(mark(t)) || !p.id.HasEnv(long) || p.id.HasEnv(mark(t)+"0") || p.id.HasEnv("PROC_TEST_LONG=x") {
		t.Error("the environment was not read whole, or not line by line")
	}
}

func TestInSession(t *testing.T) {
	self := proc.Process{PID: os.Getpid()}
	sid, err := unix.Getsid(0)
	if err != nil || !self.InSession(sid) || self.InSession(sid+1) {
		t.Errorf("this process is not in its session %d: %v", sid, err)
	}
	if nobody := (proc.Process{PID: 1 << 30}); nobody.InSession(sid) {
		t.Error("nobody is in our session")
	}
}

// A pid that became another's between two looks is not matched: keep must be
// true of the very process that is returned.
func TestMatchAsksAgainAboutTheProcessItRead(t *testing.T) {
	p := start(t, "sleeper")
	asked := 0
	list := proc.Match(func(q proc.Process) bool {
		if q.PID != p.id.PID {
			return false
		}
		asked++
		return asked == 1 || q.Start != p.id.Start // as if the one that was meant were gone
	})
	if len(list) != 0 || asked != 2 {
		t.Errorf("asked %d times, matched %+v", asked, list)
	}
}

func BenchmarkMatch(b *testing.B) {
	for b.Loop() {
		proc.Match(func(p proc.Process) bool {
			return p.InSession(1<<30) || p.Tag() == proc.TagOf(42) || p.HasEnv("PROC_TEST_MARK=none")
		})
	}
}
