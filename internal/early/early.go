// Package early runs what the container's supervisor executes (/init, the wrapper
// of the main program, a slot's run, finish and logger, s6-svscan's hooks) and
// ends the process before the packages that only a gateway needs are initialized.
//
// The linker orders the initialization of packages: sorted by import path, the
// first one that is not initialized and whose imports are, is next (Go 1.21
// release notes, "Runtime"; Go specification, "Program initialization"). So this
// package's init runs before github.com/openai, github.com/prometheus, net/http
// and what needs them, for as long as all that it imports is light: nothing that
// imports net, whose imports come last of all in the alphabet. internal/archtest
// holds the list of what it may import; docs/decisions/0013-early-entries.md has
// what that saves.
//
// Importing it is enough:
//
//	import _ "github.com/hermesgw/hermes/internal/early"
//
// What it does not run goes on to main and is the command line's business.
package early

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/boot"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/logging"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
	"github.com/hermesgw/hermes/internal/unix"
)

func init() {
	if run := entry(os.Args); run != nil {
		os.Exit(Exit(run(), ""))
	}
}

// entry is what argv is the call of, nil for a command of a user.
func entry(argv []string) func() error {
	switch {
	case len(argv) == 0:
		return nil
	case isSlots(argv[0]):
		return func() error { return runSlots(context.Background(), argv) }
	case filepath.Base(argv[0]) == "init":
		if m, ok := boot.Plain(argv[1:]); ok {
			return func() error { return Init(argv[1:], func([]string) boot.MainProgram { return m }) }
		}
	case filepath.Base(argv[0]) == "hermes" && len(argv) > 3 && slices.Equal(argv[1:4], boot.MainCommand()):
		return func() error { return Main(argv[4:]) }
	}
	return nil
}

// lastWordsLimit is how long the end waits for a stderr that nobody reads.
const lastWordsLimit = time.Second

// Exit says on stderr why the process ends, in one line, and returns its exit
// code. The line also goes into the file lastWords, "" for none. It is the only
// place that turns errors into codes.
func Exit(err error, lastWords string) int {
	var silent *exitcode.Error // the code says it all, or cobra printed the help that was asked for
	if err != nil && !(errors.As(err, &silent) && silent.Err == nil) {
		text := OneLine(err)
		if lastWords != "" { // the slot's finish puts them into its record
			_ = os.WriteFile(lastWords, []byte(text+"\n"), 0o600)
		}
		logging.WriteWithin(os.Stderr, "hermes: "+text+"\n", lastWordsLimit)
	}
	return exitcode.Of(err)
}

// OneLine is the text of err in one line, which is how users read errors.
func OneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// Init boots the container with its command; parse tells what hermes would make
// of that.
func Init(args []string, parse func([]string) boot.MainProgram) error {
	if err := supervises(); err != nil {
		return err
	}
	binary, err := executable()
	if err != nil {
		return err
	}
	return boot.Init(context.Background(), boot.Options{
		Args: args, Environ: os.Environ(), Root: "/", Binary: binary, Stderr: os.Stderr, Parse: parse,
		WriteSlot: func(dir string, spec supervise.Spec, down bool) error {
			return slot.Write(dir, spec, slot.WriteOptions{Binary: binary, Down: down})
		},
	})
}

// Main runs the container's command as the wrapper that carries its exit code.
func Main(args []string) error {
	if err := supervises(); err != nil {
		return err
	}
	binary, err := executable()
	if err != nil {
		return err
	}
	signal.Reset() // a stop is conducted, not suffered: Main handles the signals itself
	ready, stop, err := boot.Inherited()
	if err != nil {
		return err
	}
	return boot.Main(context.Background(), boot.MainOptions{
		Args: args, Environ: os.Environ(), Run: rundir.Dir(os.Getenv(rundir.EnvVar)), Binary: binary, Stderr: os.Stderr,
		Ready: ready, Stop: stop, IsCommand: boot.IsCommand,
	})
}

// supervises is nil where this system can supervise with s6.
func supervises() error {
	if err := unix.NeedLinux(); err != nil {
		return fmt.Errorf("cannot supervise with s6: %w; run the gateway in the foreground with: hermes gateway run --no-supervise", err)
	}
	return nil
}

func executable() (string, error) {
	binary, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("cannot find the path of hermes: %w", err)
	}
	return binary, nil
}

// hookPrefix is how s6-svscan, in its scan directory, calls its hooks.
const hookPrefix = ".s6-svscan/"

// isSlots says whether argv0 is a name by which s6-supervise or s6-svscan
// executes hermes.
func isSlots(argv0 string) bool {
	base := filepath.Base(argv0)
	return base == "run" || base == "finish" || strings.HasPrefix(argv0, hookPrefix)
}

// runSlots is what s6-supervise and s6-svscan execute: argv[0], for which
// isSlots is true, says as what. It has no handler for TERM: a pause that is told
// to end must die of it.
func runSlots(ctx context.Context, argv []string) error {
	if err := supervises(); err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("cannot tell the slot: %w", err)
	}
	if hook, isHook := strings.CutPrefix(argv[0], hookPrefix); isHook {
		return boot.Hook(hook, rundir.Dir(filepath.Dir(dir))) // s6-svscan is in its scan directory
	}
	e := slot.Entry{Dir: dir, Args: argv[1:], Environ: os.Environ(), Stdout: os.Stdout, Exec: syscall.Exec}
	if e.Binary, err = executable(); err != nil {
		return err
	}
	switch {
	case filepath.Base(argv[0]) == "finish":
		return e.Finish(ctx)
	case filepath.Base(dir) == "log":
		return e.Log()
	}
	return e.Run(ctx)
}
