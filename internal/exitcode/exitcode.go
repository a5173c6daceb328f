// Package exitcode names the exit codes that scripts and supervisors may rely
// on, and carries one through an error to the place that ends the process.
//
// It does not decide which failure deserves which code; the package that
// detects the failure does:
//
//	return exitcode.With(exitcode.Config, fmt.Errorf("cannot read %q: %w", path, err))
package exitcode

import (
	"errors"
	"fmt"
)

// The codes of the contract. 69, 75 and 78 are those of sysexits.h.
const (
	OK      = 0  // what was asked for happened
	Failed  = 1  // it did not
	Usage   = 2  // wrong flags or arguments
	NoSuch  = 3  // no such profile or slot
	Down    = 69 // no gateway is listening
	Restart = 75 // restart me: free only while a restart or drain was asked for
	Config  = 78 // configuration is wrong: park, do not restart

	// Permanent is what finish tells s6-supervise to park a service for good
	// (s6-supervise documentation: "if finish exits 125, the service is not restarted").
	Permanent = 125

	CannotExec  = 126 // found but not executable, as a shell says
	NotFound    = 127 // no such program, as a shell says
	SignalBase  = 128 // plus n: killed by signal n
	maxExitCode = 255
)

// Entry is one row of the published table.
type Entry struct {
	Code    int
	Meaning string
}

// Table lists the published codes in ascending order, for the reference page.
func Table() []Entry {
	return []Entry{
		{OK, "what was asked for happened"},
		{Failed, "it failed; one line on stderr says why and what to do"},
		{Usage, "wrong usage: an unknown command, flag or argument"},
		{NoSuch, "no such profile or slot"},
		{Down, "no gateway is listening"},
		{Restart, "restart me; free only while a restart or drain of that slot is outstanding, else a death like any other"},
		{Config, "the configuration is wrong: the slot is parked, not restarted"},
		{CannotExec, "the program was found but cannot be executed, as a shell says"},
		{NotFound, "no such program, as a shell says"},
	}
}

// Error is an error that knows the exit code of the process it ends.
type Error struct {
	Code int // 0..255
	Err  error
}

// Error returns the text of the wrapped error, or the bare code without one.
func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// With attaches code to err; nil stays nil.
func With(code int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Code: code, Err: err}
}

// Silent is an exit with a code and nothing more to say.
func Silent(code int) error { return &Error{Code: code} }

// Of returns the code err carries: 0 for nil, 1 for an error without one.
func Of(err error) int {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) && e.Code >= 0 && e.Code <= maxExitCode {
		return e.Code
	}
	return Failed
}
