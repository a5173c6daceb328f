package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// process is one process of a container, with the container's own pids.
type process struct {
	pid, ppid int
	state     string // R, S, Z …
	name      string // at most 15 bytes
	argv      []string
}

func (p process) String() string {
	return fmt.Sprintf("%d (parent %d, %s) %q", p.pid, p.ppid, p.state, p.argv)
}

// processes lists what descends from PID 1: not what docker exec started.
func (c *container) processes() []process {
	c.t.Helper()
	byPID := c.everything()
	var list []process
	for pid, p := range byPID {
		if ours(byPID, pid) {
			list = append(list, *p)
		}
	}
	slices.SortFunc(list, func(a, b process) int { return a.pid - b.pid })
	return list
}

// everything is every process of the container by its pid, also those that
// docker exec started.
func (c *container) everything() map[int]*process {
	c.t.Helper()
	// One program, so that looking adds a single process; -a because arguments
	// end in NULs. Processes that ended meanwhile are no error.
	out := c.exec("sh", "-c", `exec grep -aH "" /proc/[0-9]*/stat /proc/[0-9]*/cmdline`).stdout
	byPID := map[int]*process{}
	for line := range strings.Lines(out) {
		rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "/proc/")
		dir, rest, found := strings.Cut(rest, "/")
		pid, err := strconv.Atoi(dir)
		if !ok || !found || err != nil {
			continue
		}
		if byPID[pid] == nil {
			byPID[pid] = &process{pid: pid}
		}
		if text, ok := strings.CutPrefix(rest, "stat:"); ok {
			byPID[pid].readStat(text)
		} else if text, ok := strings.CutPrefix(rest, "cmdline:"); ok && byPID[pid].argv == nil {
			byPID[pid].argv = strings.Split(strings.TrimSuffix(text, "\x00"), "\x00")
		}
	}
	return byPID
}

// readStat takes name, state and parent from a line of /proc/PID/stat (proc(5)).
func (p *process) readStat(line string) {
	open, last := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || last < open {
		return
	}
	p.name = line[open+1 : last]
	if fields := strings.Fields(line[last+1:]); len(fields) > 1 {
		p.state = fields[0]
		p.ppid, _ = strconv.Atoi(fields[1]) // a number, by proc(5)
	}
}

// ours says whether pid is PID 1 or descends from it; docker exec's parent is 0.
func ours(byPID map[int]*process, pid int) bool {
	for range len(byPID) + 1 { // no longer than the longest chain
		if pid == 1 {
			return true
		}
		p := byPID[pid]
		if p == nil || p.ppid == 0 {
			return false
		}
		pid = p.ppid
	}
	return false
}

// find returns the processes whose argument vector begins with words.
func (c *container) find(words ...string) []process {
	c.t.Helper()
	var found []process
	for _, p := range c.processes() {
		if len(p.argv) >= len(words) && slices.Equal(p.argv[:len(words)], words) {
			found = append(found, p)
		}
	}
	return found
}

// only returns the one process that begins with words.
func (c *container) only(words ...string) process {
	c.t.Helper()
	found := c.find(words...)
	if len(found) != 1 {
		c.t.Fatalf("%d processes %q, want one; all of them:\n%s", len(found), words, c.table())
	}
	return found[0]
}

// gateways are the processes that run a gateway, supervised or not.
func (c *container) gateways() []process {
	c.t.Helper()
	return slices.DeleteFunc(c.processes(), func(p process) bool {
		return p.name != "hermes" || !strings.Contains(strings.Join(p.argv, " "), "gateway run") || slices.Contains(p.argv, "boot")
	})
}

// table is the process list for a failure message.
func (c *container) table() string {
	var b strings.Builder
	for _, p := range c.processes() {
		fmt.Fprintln(&b, " ", p)
	}
	return b.String()
}

// kill sends a signal to a process inside.
func (c *container) kill(signal string, pid int) {
	c.t.Helper()
	c.mustExec("sh", "-c", fmt.Sprintf("kill -%s %d", signal, pid))
}
