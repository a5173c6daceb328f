package proc

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// CgroupRoot is where a container sees its own control groups.
const CgroupRoot = "/sys/fs/cgroup"

// OOMKills is how many processes of this container the kernel has killed for
// want of memory; ok is false where the kernel does not let us see it. root is
// CgroupRoot, or a test's.
func OOMKills(root string) (n uint64, ok bool) {
	own, _ := os.ReadFile("/proc/self/cgroup")
	paths := []string{
		// Version 2: our own group where the whole hierarchy is in sight, else the root of our namespace.
		filepath.Join(root, cgroupPath(string(own)), "memory.events"),
		filepath.Join(root, "memory.events"),
		filepath.Join(root, "memory", "memory.oom_control"), // version 1; Docker mounts our own group there
	}
	for _, path := range paths {
		if b, err := os.ReadFile(path); err == nil {
			if n, ok = parseOOMKills(string(b)); ok {
				return n, true
			}
		}
	}
	return 0, false
}

// parseOOMKills finds the line "oom_kill N", which memory.events (cgroup v2,
// Linux 4.13) and memory.oom_control (v1, Linux 4.13) share.
func parseOOMKills(text string) (uint64, bool) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			n, err := strconv.ParseUint(value, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// cgroupPath is the path of version 2 in /proc/self/cgroup, "/" without one:
//
//	0::/system.slice/docker-4f1c.scope
func cgroupPath(text string) string {
	for line := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return filepath.Clean("/" + path) // "/../x" of another namespace leads nowhere else
		}
	}
	return "/"
}
