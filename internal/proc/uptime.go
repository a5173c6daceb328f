package proc

import (
	"time"

	"github.com/hermesgw/hermes/internal/unix"
)

// Uptime is how long ago the kernel was started, sleep included (CLOCK_BOOTTIME):
// a clock that all processes of a machine share and nobody sets. Only Linux has it;
// elsewhere it stands still.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Sec)*time.Second + time.Duration(ts.Nsec)
}
