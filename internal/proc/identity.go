package proc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// CAP_SETGID and CAP_SETUID of capability.h.
const (
	capSetgid = 6
	capSetuid = 7
)

// CanBecome says whether the kernel lets this process change its user: root
// in a container with dropped capabilities may not.
func CanBecome() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // version 3 has two words
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	has := func(bit uint) bool { return data[0].Effective&(1<<bit) != 0 }
	return has(capSetgid) && has(capSetuid)
}

// Become changes groups, gid and uid of the whole process, for good.
func Become(uid, gid int, groups []int) error {
	if err := errors.Join(syscall.Setgroups(groups), syscall.Setgid(gid), syscall.Setuid(uid)); err != nil {
		return fmt.Errorf("cannot become uid %d gid %d: %w", uid, gid, err)
	}
	return nil
}

// Identity is who a process is.
type Identity struct {
	UID, GID int // effective
	Groups   []int
}

// IdentityOf asks the kernel who pid is (/proc/PID/status, proc(5)); nothing
// that a process writes somewhere can lie about that.
func IdentityOf(pid int) (Identity, error) {
	b, err := os.ReadFile(path(pid, "status"))
	if err != nil {
		return Identity{}, fmt.Errorf("cannot read who process %d is: %w", pid, err)
	}
	lines := map[string][]int{}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "Uid" && name != "Gid" && name != "Groups" {
			continue
		}
		for _, field := range strings.Fields(rest) {
			id, err := strconv.Atoi(field)
			if err != nil {
				return Identity{}, fmt.Errorf("cannot decode /proc/%d/status: %w", pid, err)
			}
			lines[name] = append(lines[name], id)
		}
	}
	if len(lines["Uid"]) != 4 || len(lines["Gid"]) != 4 { // real, effective, saved, filesystem
		return Identity{}, fmt.Errorf("cannot decode /proc/%d/status: no ids in it", pid)
	}
	return Identity{UID: lines["Uid"][1], GID: lines["Gid"][1], Groups: lines["Groups"]}, nil
}

// WithFilesOf runs f with the file rights of another user, for a root that has
// to stay root otherwise: what f opens, makes or follows, that user could have.
// f must stay on its goroutine. The process's other threads are not touched.
func WithFilesOf(uid, gid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, and so does its user.
		runtime.LockOSThread()
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSGID, uintptr(gid), 0, 0) // reports no failure (setfsuid(2))
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uid), 0, 0)
		if now, _, _ := syscall.RawSyscall(syscall.SYS_SETFSUID, ^uintptr(0), 0, 0); int(now) != uid {
			done <- fmt.Errorf("cannot use files as uid %d", uid)
			return
		}
		done <- f()
	}()
	return <-done
}

// Owner is who a file belongs to.
func Owner(fi os.FileInfo) (uid, gid int) {
	st := fi.Sys().(*syscall.Stat_t) // what every FileInfo of this system's files holds
	return int(st.Uid), int(st.Gid)
}

// FileID is what names a file as long as it is there: its device and inode.
func FileID(fi os.FileInfo) (dev, ino uint64) {
	st := fi.Sys().(*syscall.Stat_t) // as above
	return uint64(st.Dev), st.Ino
}
