package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/unix"
)

// scannerPatience is how long s6-svscan may take to say that it is ready; it
// takes milliseconds.
const scannerPatience = 30 * time.Second

// MainOptions is what the wrapper needs.
type MainOptions struct {
	Args      []string // the container's command
	Environ   []string
	Run       rundir.Dir
	Binary    string // absolute path of hermes
	Stderr    io.Writer
	Ready     *os.File // readable once s6-svscan serves
	Stop      *os.File // the FIFO of the signal hooks
	IsCommand func(args []string) bool
}

// Main runs the container's command, carries its exit code and conducts the
// stop: one process knows what was asked and what is left. It returns after
// s6-svscan was told to end, or with an error.
func Main(ctx context.Context, o MainOptions) error {
	defer o.Stop.Close()
	signals := make(chan syscall.Signal, 16)
	go readSignals(o.Stop, signals)
	go relaySignals(ctx, signals)
	if err := awaitScanner(o.Ready); err != nil {
		return err
	}
	s := newStop(o)
	child, err := startChild(o)
	if err != nil {
		fmt.Fprintf(o.Stderr, "hermes: %v\n", err)
		s.code = exitcode.Of(err)
		return s.conduct(ctx, nil, signals)
	}
	return s.follow(ctx, child, signals)
}

// Inherited returns what Init left open for the wrapper: s6-svscan's readiness
// and the FIFO of the signal hooks. The main program must not get them.
func Inherited() (ready, stop *os.File, err error) {
	const readyFD, stopFD = 3, 4
	for _, fd := range []int{readyFD, stopFD} {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil { // so that Close ends a Read
			return nil, nil, fmt.Errorf("cannot use descriptor %d: %w; this command is the container's own", fd, err)
		}
	}
	return os.NewFile(readyFD, "ready"), os.NewFile(stopFD, "stop"), nil
}

// readSignals delivers what the hooks of s6-svscan write: one byte, the number
// of the signal that the container got.
func readSignals(r io.Reader, signals chan<- syscall.Signal) {
	buf := make([]byte, 16)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			signals <- syscall.Signal(b)
		}
		if err != nil {
			return
		}
	}
}

// relaySignals treats a signal sent to the wrapper like one sent to the container.
func relaySignals(ctx context.Context, signals chan<- syscall.Signal) {
	own := make(chan os.Signal, 16)
	signal.Notify(own, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPWR)
	defer signal.Stop(own)
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-own:
			if sig, ok := s.(syscall.Signal); ok {
				signals <- sig
			}
		}
	}
}

// awaitScanner returns when s6-svscan has written its newline. End of file
// means that it died before.
func awaitScanner(ready *os.File) error {
	if ready == nil {
		return nil
	}
	defer ready.Close()
	_ = ready.SetReadDeadline(time.Now().Add(scannerPatience)) // a file without deadlines only waits longer
	if _, err := io.ReadAtLeast(ready, make([]byte, 1), 1); err != nil {
		return fmt.Errorf("cannot wait for s6-svscan: %w", err)
	}
	return nil
}

// child is the main program while it runs.
type child struct {
	pid  int
	tty  bool
	done chan unix.WaitStatus // one value
}

// startChild starts the main program in a process group of its own, in the
// foreground of the terminal if there is one.
func startChild(o MainOptions) (*child, error) {
	path, argv, err := Resolve(o.Args, o.Binary, environment(o.Environ).or("PATH", defaultPath), o.IsCommand)
	if err != nil {
		return nil, err
	}
	tty := unix.IsTerminal(0)
	attr := &os.ProcAttr{Env: o.Environ, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}}
	if tty {
		// A helper takes the terminal and then becomes the program: only a member
		// of the new group can do both without a race.
		argv = append([]string{"hermes", "boot", "foreground", "--", path}, argv...)
		path = o.Binary
	} else {
		attr.Sys = unix.OwnGroup()
	}
	p, err := os.StartProcess(path, argv, attr)
	if err != nil {
		return nil, execError(path, err)
	}
	c := &child{pid: p.Pid, tty: tty, done: make(chan unix.WaitStatus, 1)}
	go c.wait(p)
	return c, nil
}

func (c *child) wait(p *os.Process) {
	state, err := p.Wait()
	status, _ := state.Sys().(unix.WaitStatus)
	if err != nil {
		status = unix.WaitStatus(exitcode.Failed << 8)
	}
	c.done <- status
}

// Resolve turns the container's command into a program: nothing is `gateway
// run`; a first word that is no hermes command but an executable is run;
// everything else is given to hermes.
func Resolve(args []string, binary, path string, isCommand func([]string) bool) (string, []string, error) {
	if len(args) == 0 {
		args = []string{"gateway", "run"}
	}
	if !isCommand(args) {
		if program, err := lookPath(args[0], path); err == nil {
			return program, args, nil
		}
	}
	return binary, append([]string{"hermes"}, args...), nil
}

// MainCommand is how Init calls the wrapper: `hermes boot main -- COMMAND`.
func MainCommand() []string { return []string{"boot", "main", "--"} }

// commandWords are the commands of hermes: as first word of the container's
// command none is looked up on the PATH. A test of the command line holds them
// against what there is, so that /init need not build all of it.
func commandWords() []string {
	return []string{
		"backup", "boot", "chat", "completion", "config", "dashboard", "deadletter", "doctor", "gateway", "healthcheck", "help",
		"pairing", "profile", "restore", "send", "sessions", "trace", "version",
	}
}

// IsCommand says whether the container's command is one of hermes' own: its
// first word is a command or a flag of hermes, or there is none.
func IsCommand(args []string) bool {
	return len(args) == 0 || strings.HasPrefix(args[0], "-") || slices.Contains(commandWords(), args[0])
}

// Plain is what hermes makes of a container's command that needs no parser: just
// `gateway run`, and what is not hermes' at all. ok is false for all else.
func Plain(args []string) (m MainProgram, ok bool) {
	switch {
	case len(args) == 0, slices.Equal(args, []string{"gateway", "run"}):
		return MainProgram{GatewayRun: true, IsCommand: true}, true
	case IsCommand(args), filepath.Base(args[0]) == "hermes":
		return MainProgram{}, false
	}
	return MainProgram{}, true
}

func execError(path string, err error) error {
	code := exitcode.CannotExec
	if errors.Is(err, os.ErrNotExist) {
		code = exitcode.NotFound
	}
	return exitcode.With(code, fmt.Errorf("cannot run %s: %w", path, errors.Unwrap(err)))
}

// Foreground makes this process the foreground group of the terminal on stdin
// and becomes argv (program path first).
func Foreground(path string, argv, environ []string) error {
	if err := unix.Setpgid(0, 0); err != nil {
		return fmt.Errorf("cannot make a process group: %w", err)
	}
	// A background process that takes the terminal gets TTOU, which stops it.
	signal.Ignore(unix.SIGTTOU)
	err := unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, os.Getpid())
	signal.Reset(unix.SIGTTOU)
	if err != nil {
		fmt.Fprintf(os.Stderr, "hermes: cannot take the terminal: %v; Ctrl-C may not reach %s\n", err, argv[0])
	}
	return execError(path, &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, argv, environ)})
}

// exitCode is the container's: what the main program exited with, 0 when the
// stop killed it, else 128 plus the signal.
func exitCode(status unix.WaitStatus, killedByUs bool) int {
	if status.Exited() {
		return status.ExitStatus()
	}
	if killedByUs {
		return exitcode.OK
	}
	return exitcode.SignalBase + int(status.Signal())
}

func writeExitCode(run rundir.Dir, code int) error {
	return os.WriteFile(run.ExitCode(), []byte(strconv.Itoa(code)), 0o644)
}
