package proc

import (
	"time"

	"golang.org/x/sys/unix"
)

// Uptime is how long ago the kernel was started, sleep included (CLOCK_BOOTTIME):
// a clock that all processes of a machine share and nobody sets.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("proc: " + err.Error()) // every Linux since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}
