package boot

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

// bootLogBytes is when boot.log becomes boot.log.1: some ten thousand lines.
const bootLogBytes = 1_000_000

// logBoot adds the line of one slot to logs/boot.log. A log that cannot be
// written never keeps a slot from starting.
func (b *booter) logBoot(name string, down bool) {
	want := supervise.WantUp
	if down {
		want = supervise.WantDown
	}
	if os.MkdirAll(filepath.Join(b.home, "logs"), 0o750) != nil {
		return
	}
	path := filepath.Join(b.home, "logs", "boot.log")
	if fi, err := os.Lstat(path); err == nil && fi.Mode().IsRegular() && fi.Size() >= bootLogBytes {
		_ = os.Rename(path, path+".1") // replaces the one before; if it cannot, the log grows on
	}
	// A link is not followed, a FIFO not waited for.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s boot=%s slot=%s want=%s\n", b.mark.Started.Format(time.RFC3339), b.mark.BootID, name, want)
}
