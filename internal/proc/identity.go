package proc

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/hermesgw/hermes/internal/unix"
)

// CanBecome says whether the kernel lets this process change its user: root
// in a container with dropped capabilities may not.
func CanBecome() bool { return unix.CanSetIDs() }

// Become changes groups, gid and uid of the whole process, for good.
func Become(uid, gid int, groups []int) error {
	if err := errors.Join(unix.Setgroups(groups), unix.Setgid(gid), unix.Setuid(uid)); err != nil {
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
	if err := unix.NeedLinux(); err != nil {
		return fmt.Errorf("cannot use files as uid %d: %w; run this command as that user", uid, err)
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, and so does its user.
		runtime.LockOSThread()
		if unix.SetFSIDs(uid, gid) != uid {
			done <- fmt.Errorf("cannot use files as uid %d", uid)
			return
		}
		done <- f()
	}()
	return <-done
}

// Owner is who a file belongs to, -1 where files have no such owner (Windows).
func Owner(fi os.FileInfo) (uid, gid int) {
	st, ok := unix.FileStat(fi)
	if !ok {
		return -1, -1
	}
	return int(st.Uid), int(st.Gid)
}

// FileID is what names a file as long as it is there: its device and inode; 0
// where they are unknown (Windows).
func FileID(fi os.FileInfo) (dev, ino uint64) {
	st, ok := unix.FileStat(fi)
	if !ok {
		return 0, 0
	}
	return uint64(st.Dev), st.Ino
}
