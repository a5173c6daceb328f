// Package proc reads Linux's /proc and signals processes without the race of a
// reused pid: a process is a pid together with its start time. It knows
// nothing of slots or gateways; callers say which processes they mean.
//
//	left := proc.Match(func(p proc.Process) bool { return p.HasEnv("MARK=1") })
//	err := proc.End(ctx, …)
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/hermesgw/hermes/internal/smallfile"
	"github.com/hermesgw/hermes/internal/unix"
)

// Process identifies one process of this pid namespace.
type Process struct {
	PID     int
	PPID    int
	Session int
	Comm    string // at most 15 bytes, settable by the process itself
	State   byte   // R, S, D, Z, T, …
	Start   uint64 // clock ticks after boot: with PID it names the process for good

	Resident int64 // resident set size, bytes
}

// fields of /proc/PID/stat after the parenthesised name, counted from 0 (proc(5)).
const (
	fieldState   = 0
	fieldPPID    = 1
	fieldSession = 3
	fieldStart   = 19
	fieldRSS     = 21 // pages
)

// procfs is where all of it is read.
var procfs = smallfile.In("/proc")

// maxStat is more than the fifty-two numbers of /proc/PID/stat can take.
const maxStat = 2 << 10

// Read describes pid. A process that is gone gives an error that wraps
// os.ErrNotExist.
func Read(pid int) (Process, error) {
	if err := unix.NeedLinux(); err != nil { // a missing /proc would say that the process is gone
		return Process{}, fmt.Errorf("cannot read process %d: %w", pid, err)
	}
	b, err := procfs.Read(path(pid, "stat"), maxStat)
	if err != nil {
		if errors.Is(err, unix.ESRCH) { // it ended between open and read
			err = os.ErrNotExist
		}
		return Process{}, fmt.Errorf("cannot read process %d: %w", pid, err)
	}
	return parseStat(pid, b)
}

// parseStat decodes /proc/PID/stat. The name stands in parentheses and may
// itself hold spaces and parentheses, so fields count from the last ')'.
func parseStat(pid int, b []byte) (Process, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return Process{}, fmt.Errorf("cannot decode /proc/%d/stat: no process name in it", pid)
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) <= fieldRSS || len(f[fieldState]) != 1 {
		return Process{}, fmt.Errorf("cannot decode /proc/%d/stat: %d fields after the name", pid, len(f))
	}
	p := Process{PID: pid, Comm: string(b[open+1 : end]), State: f[fieldState][0]}
	var errs [4]error
	p.PPID, errs[0] = strconv.Atoi(f[fieldPPID])
	p.Session, errs[1] = strconv.Atoi(f[fieldSession])
	p.Start, errs[2] = strconv.ParseUint(f[fieldStart], 10, 64)
	p.Resident, errs[3] = strconv.ParseInt(f[fieldRSS], 10, 64)
	p.Resident *= int64(os.Getpagesize())
	if err := errors.Join(errs[:]...); err != nil {
		return Process{}, fmt.Errorf("cannot decode /proc/%d/stat: %w", pid, err)
	}
	return p, nil
}

// Match lists the living processes for which keep is true, this one and zombies
// left out. keep is asked about every process there is, so all that it is told
// is the pid, and its questions had better be cheap: InSession and Tag cost one
// system call, HasEnv three, Read more than both.
func Match(keep func(Process) bool) []Process {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what was read before an error is still true
	self := os.Getpid()
	var list []Process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == self || !keep(Process{PID: pid}) {
			continue
		}
		// Asked again: the pid may have become another's before it was read.
		if p, err := Read(pid); err == nil && p.State != 'Z' && keep(p) {
			list = append(list, p)
		}
	}
	return list
}

// InSession says whether p belongs to a session, which has the pid of its
// leader for a name (getsid(2)).
func (p Process) InSession(session int) bool {
	id, err := unix.Getsid(p.PID)
	return err == nil && id == session
}

// usualEnviron is what the environment of most processes fits into, in bytes.
const usualEnviron = 4096

// HasEnv says whether p was started with exactly this NAME=VALUE in its
// environment. False also when /proc does not let us look: who is not ours is
// not marked.
func (p Process) HasEnv(entry string) bool {
	var buffer [usualEnviron]byte
	b := readShort(path(p.PID, "environ"), buffer[:])
	if len(b) == len(buffer) { // it is longer
		b, _ = os.ReadFile(path(p.PID, "environ")) // nothing when it ended meanwhile
	}
	for line := range bytes.SplitSeq(b, []byte{0}) {
		if string(line) == entry {
			return true
		}
	}
	return false
}

// readShort reads a file of /proc with one read into b, and returns what it
// got: all there is, unless b is full. os.ReadFile takes three times as long,
// which counts where every process is looked at.
func readShort(path string, b []byte) []byte {
	fd, err := procfs.Open(path, unix.O_RDONLY)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		return b[:max(n, 0)]
	}
}

// Args returns the argument vector of p, nil when it cannot be read.
func (p Process) Args() []string {
	b, err := os.ReadFile(path(p.PID, "cmdline"))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// Runs says that p could go on when it was read: it was neither dead nor stopped
// by a signal or a tracer.
func (p Process) Runs() bool { return !strings.ContainsRune("ZXxTt", rune(p.State)) }

// Alive says whether this very process still runs (a zombie does not).
func (p Process) Alive() bool {
	now, err := Read(p.PID)
	return err == nil && now.Start == p.Start && now.State != 'Z'
}

func path(pid int, file string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + file
}
