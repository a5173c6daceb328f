package boot

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/unix"
)

// hookNames are the files in .s6-svscan that s6-svscan executes (s6-svscan
// documentation, 2.11): finish when it ends, crash when it cannot go on, and
// one for each signal it diverts.
func hookNames() []string {
	return []string{
		"finish", "crash", "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGPWR", "SIGWINCH",
	}
}

// Hook is what s6-svscan executes under one of hookNames.
func Hook(name string, run rundir.Dir) error {
	if name == "finish" {
		return finish(run)
	}
	if name == "crash" {
		return exitcode.With(exitcode.Failed, errors.New("s6-svscan crashed: the container ends; please report what stands above"))
	}
	sig := unix.SignalNum(name)
	if sig == 0 {
		return exitcode.With(exitcode.Usage, fmt.Errorf("no hook is called %q", name))
	}
	return deliver(run, sig)
}

// finish ends the container with the main program's exit code. Without one the
// main program's wrapper was killed.
func finish(run rundir.Dir) error {
	b, err := os.ReadFile(run.ExitCode())
	if err != nil {
		return exitcode.With(exitcode.Failed, errors.New("the container ends without the exit code of its main program: its wrapper was killed"))
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("cannot read the exit code: %w", err)
	}
	return exitcode.Silent(code)
}

// deliver passes a signal of the container on to the wrapper. A stop without a
// wrapper is carried out by s6 itself.
func deliver(run rundir.Dir, sig syscall.Signal) error {
	fd, err := unix.Open(run.StopFIFO(), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte{byte(sig)})
	}
	if err != nil && endsContainer(sig) {
		return run.Scan().Control(s6.Stop)
	}
	return err
}
