package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Load is what a process has had of the machine so far, and what it waits for.
type Load struct {
	CPU     time.Duration // used by its living threads
	Waited  time.Duration // they were ready to run and others had the CPU
	Blocked bool          // a thread waits for a disk (state D) now
}

// ReadLoad sums over the threads of pid (/proc/PID/task/*/schedstat: nanoseconds
// used, nanoseconds waited; proc(5)). Where the kernel does not count, both
// times are 0; a process that is gone gives an error.
func ReadLoad(pid int) (Load, error) {
	tasks, err := os.ReadDir(path(pid, "task"))
	if err != nil {
		return Load{}, fmt.Errorf("cannot read the load of process %d: %w", pid, err)
	}
	var l Load
	for _, task := range tasks {
		dir := filepath.Join(path(pid, "task"), task.Name())
		if b, err := os.ReadFile(filepath.Join(dir, "schedstat")); err == nil {
			used, waited := parseSchedstat(string(b))
			l.CPU, l.Waited = l.CPU+used, l.Waited+waited
		}
		if b, err := os.ReadFile(filepath.Join(dir, "stat")); err == nil {
			p, err := parseStat(pid, b)
			l.Blocked = l.Blocked || err == nil && p.State == 'D'
		}
	}
	return l, nil
}

func parseSchedstat(text string) (used, waited time.Duration) {
	f := strings.Fields(text)
	if len(f) < 2 {
		return 0, 0
	}
	a, err1 := strconv.ParseInt(f[0], 10, 64)
	b, err2 := strconv.ParseInt(f[1], 10, 64)
	if err1 != nil || err2 != nil {
		return 0, 0
	}
	return time.Duration(a), time.Duration(b)
}
