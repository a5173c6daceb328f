// Package s6test runs a real s6-svscan for tests, as the user who runs the
// test or as another one. It is for tests only and fakes nothing.
//
//	scandir := s6test.Start(t)
//	err := scandir.Register(ctx, "echo", s6test.Service("exec sleep 1000"))
package s6test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/testenv"
)

// patience bounds the start and the end of the tree; both take milliseconds.
const patience = 10 * time.Second

// Start runs s6-svscan with args on a new directory, waits until it takes
// commands, and ends the whole tree when the test does. It skips (or fails) the
// test where s6 is missing.
func Start(t testing.TB, args ...string) s6.Scandir {
	t.Helper()
	return start(t, t.TempDir(), nil, args)
}

// StartIn is Start on dir, which exists.
func StartIn(t testing.TB, dir string, args ...string) s6.Scandir {
	t.Helper()
	return start(t, dir, nil, args)
}

// StartInAs is StartIn as another user, who may write to dir and reach it.
func StartInAs(t testing.TB, dir string, who syscall.Credential, args ...string) s6.Scandir {
	t.Helper()
	return start(t, dir, &who, args)
}

// StartAs is Start as the user and group uid. It skips the test unless root
// runs it.
func StartAs(t testing.TB, uid uint32, args ...string) s6.Scandir {
	t.Helper()
	testenv.Need(t, "root")
	dir, err := os.MkdirTemp("", "s6test") // the parents of t.TempDir keep other users out
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, int(uid), int(uid)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return start(t, dir, &syscall.Credential{Uid: uid, Gid: uid}, args)
}

func start(t testing.TB, dir string, who *syscall.Credential, args []string) s6.Scandir {
	t.Helper()
	testenv.Need(t, "s6")
	log, err := os.Create(filepath.Join(t.TempDir(), "svscan.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	// Under nohup every process would ignore HUP, which services may want.
	cmd := exec.Command("env", append([]string{"--default-signal", "s6-svscan"}, append(args, "--", dir)...)...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	scandir := s6.Scandir(dir)
	t.Cleanup(func() { stop(t, scandir, cmd.Process, ended, log.Name()) })
	Eventually(t, "s6-svscan takes commands", func() bool { return scandir.Alive() == nil })
	return scandir
}

// stop kills every service, hidden ones too, and waits for the end of the tree.
func stop(t testing.TB, scandir s6.Scandir, svscan *os.Process, ended <-chan error, log string) {
	defer func() {
		if out, err := os.ReadFile(log); err == nil && len(out) > 0 {
			t.Logf("s6-svscan and the services said:\n%s", out)
		}
	}()
	_ = scandir.Control(s6.Stop) // in vain if the test ended it
	deadline := time.After(patience)
	for {
		killServices(scandir)
		select {
		case <-ended:
			return
		case <-deadline:
			t.Errorf("s6-svscan (pid %d) did not end within %s; killed", svscan.Pid, patience)
			_ = svscan.Kill()
			<-ended
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func killServices(scandir s6.Scandir) {
	entries, err := os.ReadDir(string(scandir))
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := scandir.Dir(e.Name())
		_ = s6.Send(dir, s6.Down+s6.Exit+s6.Continue+s6.Kill)
		_ = s6.Send(filepath.Join(dir, "log"), s6.Down+s6.Exit+s6.Continue+s6.Kill)
	}
}

// Service is a build function for Register: a run script for /bin/sh, nothing
// else.
func Service(script string) func(dir string) error {
	return func(dir string) error {
		return Script(filepath.Join(dir, "run"), script)
	}
}

// LoggedService is Service with a logger that runs logScript.
func LoggedService(script, logScript string) func(dir string) error {
	return func(dir string) error {
		if err := Script(filepath.Join(dir, "run"), script); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(dir, "log"), 0o755); err != nil {
			return err
		}
		return Script(filepath.Join(dir, "log", "run"), logScript)
	}
}

// Script writes an executable script for /bin/sh to path.
func Script(path, body string) error {
	return testenv.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755)
}

// Eventually fails the test unless the condition becomes true in ten seconds.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", patience, what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
