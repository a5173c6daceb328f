package cli

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6/s6test"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/testenv"
)

// scriptPatience is how long a script waits for what takes milliseconds.
const scriptPatience = 30 * time.Second

// scriptLimit ends a script in which something hangs.
const scriptLimit = 2 * time.Minute

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"hermes": func() { os.Exit(Main(os.Args)) },
		"http":   func() { os.Exit(httpProgram(os.Args[1:])) },
	})
}

// Every script is a user at a terminal: a home, a run directory and a port of
// its own, and the real program.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(scripts) < 14 {
		t.Fatalf("found %d scripts in testdata (%v), there were 14 and more", len(scripts), err)
	}
	p := params(t, nil)
	p.Dir = "testdata"
	testscript.Run(t, p)
}

// TestScriptsInATree runs scripts as a user beside a live tree: a real
// s6-svscan in the run directory, with the mark that a boot leaves.
func TestScriptsInATree(t *testing.T) {
	testenv.Need(t, "s6")
	scripts, err := filepath.Glob("testdata/tree/*.txtar")
	if err != nil || len(scripts) < 1 {
		t.Fatalf("found %d scripts in testdata/tree (%v)", len(scripts), err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			t.Parallel()
			base := t.TempDir()
			run, home := rundir.Dir(filepath.Join(base, "run")), filepath.Join(base, "home")
			for _, dir := range []string{string(run.Scan()), run.Hermes(), home} {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := run.WriteMark(rundir.Mark{
				Schema: rundir.MarkSchema, BootID: "test", Home: home, UID: os.Getuid(), Profile: "default", Started: time.Now(),
			}); err != nil {
				t.Fatal(err)
			}
			p := params(t, func(e *testscript.Env) error {
				e.Setenv("HERMES_HOME", home)
				e.Setenv("HERMES_RUN_DIR", string(run))
				e.Setenv("API_SERVER_PORT", "") // a slot's environment is the tree's
				if err := os.Symlink(home, filepath.Join(e.WorkDir, "home")); err != nil {
					return err
				}
				return os.Symlink(string(run.Scan()), filepath.Join(e.WorkDir, "service"))
			})
			p.Files = []string{script}
			s6test.StartIn(t, string(run.Scan()))
			testscript.Run(t, p)
		})
	}
}

// params are those of every script; setup, if any, has the last word.
func params(t *testing.T, setup func(*testscript.Env) error) testscript.Params {
	t.Helper()
	return testscript.Params{
		Deadline: time.Now().Add(scriptLimit),
		Setup: func(e *testscript.Env) error {
			e.Setenv("LONG", strings.Repeat("a", 65)) // a name one letter too long
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("HERMES_HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("HERMES_RUN_DIR", filepath.Join(e.WorkDir, "run"))
			e.Setenv("API_SERVER_PORT", "0")
			// The race detector's second of sleep at exit is for goroutines of a
			// process that lives on; here it would be paid by every command.
			e.Setenv("GORACE", "atexit_sleep_ms=0")
			if setup == nil {
				return nil
			}
			return setup(e)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":       exits,
			"await-state": awaitState,
			"await-text":  awaitText,
			"mode":        mode,
			"signal":      signalProcess,
			"future-db":   futureDatabase,
		},
	}
}

// future-db FILE makes FILE a database that a newer hermes has written.
func futureDatabase(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: future-db FILE")
	}
	path := ts.MkAbs(args[0])
	s, err := store.Open(context.Background(), path)
	ts.Check(err)
	ts.Check(s.Close())
	db, err := sql.Open("sqlite", path) // store's driver
	ts.Check(err)
	defer db.Close()
	_, err = db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`)
	ts.Check(err)
}

// exits CODE PROGRAM [ARG...] runs a program that must end with CODE.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var e *exec.ExitError
		if !errors.As(err, &e) {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = e.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exited %d, not %d", strings.Join(args[1:], " "), got, want)
	}
}

// await-state STATE [PROFILE] waits until the gateway of PROFILE says STATE;
// its HTTP API is then at $API.
func awaitState(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: await-state STATE [PROFILE]")
	}
	profileName := "default"
	if len(args) > 1 {
		profileName = args[1]
	}
	path := control.SocketPath(ts.Getenv("HERMES_RUN_DIR"), profileName)
	poll(ts, args[0]+" of "+profileName, func(ctx context.Context) error {
		s, err := control.Dial(path).Status(ctx)
		if err == nil && s.State != supervise.State(args[0]) {
			err = fmt.Errorf("it is %s: %s", s.State, s.Reason)
		}
		if err == nil {
			ts.Setenv("API", "http://"+s.Address)
			ts.Setenv("ADDRESS", s.Address)
			_, port, _ := strings.Cut(s.Address, ":")
			ts.Setenv("PORT", port)
			ts.Setenv("PID", strconv.Itoa(s.PID))
		}
		return err
	})
}

// await-text FILE TEXT waits until FILE holds TEXT.
func awaitText(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await-text FILE TEXT")
	}
	poll(ts, args[1], func(context.Context) error {
		data, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && !strings.Contains(string(data), args[1]) {
			err = fmt.Errorf("%s holds %q", args[0], data)
		}
		return err
	})
}

func poll(ts *testscript.TestScript, what string, try func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), scriptPatience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("waited %s for %s: %v", scriptPatience, what, err)
		}
	}
}

// mode OCTAL FILE checks the permissions of FILE.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode OCTAL FILE")
	}
	fi, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", fi.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, not %s", args[1], got, args[0])
	}
}

// signal NAME PID sends a signal; testscript's own kill knows INT and KILL only.
func signalProcess(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signal NAME PID")
	}
	pid, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(syscall.Kill(pid, unix.SignalNum("SIG"+args[0])))
}

// httpProgram is `http METHOD URL [@BODYFILE] [HEADER:VALUE]...`: the answer's
// body on stdout, its status and headers on stderr, exit code 0 for 2xx.
func httpProgram(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: http METHOD URL [@BODYFILE] [HEADER:VALUE]...")
		return 2
	}
	ok, err := exchange(args[0], args[1], args[2:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if !ok {
		return 1
	}
	return 0
}

func exchange(method, url string, extra []string) (ok bool, err error) {
	var body io.Reader
	header := http.Header{}
	for _, arg := range extra {
		if path, isBody := strings.CutPrefix(arg, "@"); isBody {
			f, err := os.Open(path)
			if err != nil {
				return false, err
			}
			defer f.Close()
			body = f
			continue
		}
		name, value, _ := strings.Cut(arg, ":")
		header.Set(name, strings.TrimSpace(value))
	}
	ctx, cancel := context.WithTimeout(context.Background(), scriptPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return false, err
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	fmt.Fprintln(os.Stderr, resp.Status)
	if err := resp.Header.Write(os.Stderr); err != nil {
		return false, err
	}
	_, err = io.Copy(os.Stdout, resp.Body)
	return resp.StatusCode/100 == 2, err
}
