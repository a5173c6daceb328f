package runmode

import (
	"context"
	"fmt"
	"io"
)

// Slot is what a redirect needs of the supervisor.
type Slot interface {
	// Start registers the slot if it is missing and asks for it to be up,
	// without waiting for ready. The same function as `gateway start`.
	Start(ctx context.Context) error
	// Withdraw sets the slot to want-down and confirms it; a slot that is not
	// there is success.
	Withdraw(ctx context.Context) error
}

// Heartbeat is the argument vector the main program becomes.
func Heartbeat() []string { return []string{"sleep", "infinity"} }

// Become carries a redirect out: start the slot, leave the breadcrumb, exec the
// heartbeat. It returns true when exec returned without an error (exec of a
// real process does not return; one that waits in-process does), and false
// with a nil error when the slot could not be started and was withdrawn: then
// the caller goes foreground. When the slot could not be withdrawn either it
// returns an error: two gateways would be worse than none.
func Become(ctx context.Context, slot Slot, stderr io.Writer, notice string, exec func(argv []string) error) (bool, error) {
	if err := slot.Start(ctx); err != nil {
		if down := slot.Withdraw(ctx); down != nil {
			return false, fmt.Errorf("cannot start the supervised gateway: %w; and its slot may come up later, so nothing is run in the foreground: %w", err, down)
		}
		fmt.Fprintf(stderr, "hermes: cannot start the supervised gateway (%v): it runs in the foreground, unsupervised\n", err)
		return false, nil
	}
	fmt.Fprintln(stderr, notice)
	return true, exec(Heartbeat())
}
