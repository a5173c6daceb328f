//go:build unix

package unix

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// What every Unix has, under the names and with the meanings of x/sys/unix.
const (
	AT_FDCWD            = unix.AT_FDCWD
	AT_SYMLINK_NOFOLLOW = unix.AT_SYMLINK_NOFOLLOW
	F_GETFL             = unix.F_GETFL
	F_GETLK             = unix.F_GETLK
	F_SETFD             = unix.F_SETFD
	F_UNLCK             = unix.F_UNLCK
	F_WRLCK             = unix.F_WRLCK
	LOCK_EX             = unix.LOCK_EX
	LOCK_NB             = unix.LOCK_NB
	O_ACCMODE           = unix.O_ACCMODE
	O_DIRECTORY         = unix.O_DIRECTORY
	O_NOFOLLOW          = unix.O_NOFOLLOW
	SIGCONT             = unix.SIGCONT
	SIGTTOU             = unix.SIGTTOU
	SIGUSR1             = unix.SIGUSR1
	SIGUSR2             = unix.SIGUSR2
	S_IFCHR             = unix.S_IFCHR
	S_IFIFO             = unix.S_IFIFO
	S_IFMT              = unix.S_IFMT
	S_IFREG             = unix.S_IFREG
	S_IFSOCK            = unix.S_IFSOCK
	W_OK                = unix.W_OK
	X_OK                = unix.X_OK
)

// The types of x/sys/unix.
type (
	Flock_t  = unix.Flock_t
	Stat_t   = unix.Stat_t
	Statfs_t = unix.Statfs_t
	Timespec = unix.Timespec
)

// WaitStatus is how a process ended, of package syscall as os.ProcessState has it.
type WaitStatus = syscall.WaitStatus

// FileStat is what fi.Sys() of a file holds; ok false: nothing is known.
func FileStat(fi os.FileInfo) (st *syscall.Stat_t, ok bool) {
	st, ok = fi.Sys().(*syscall.Stat_t)
	return st, ok
}

// OwnGroup starts a child as the leader of a process group of its own.
func OwnGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// The calls.
func CloseOnExec(fd int)                                    { unix.CloseOnExec(fd) }
func NsecToTimespec(nsec int64) Timespec                    { return unix.NsecToTimespec(nsec) }
func SignalName(sig Signal) string                          { return unix.SignalName(sig) }
func SignalNum(name string) Signal                          { return unix.SignalNum(name) }
func Access(path string, mode uint32) error                 { return unix.Access(path, mode) }
func Close(fd int) error                                    { return unix.Close(fd) }
func FcntlFlock(fd uintptr, cmd int, lock *Flock_t) error   { return unix.FcntlFlock(fd, cmd, lock) }
func FcntlInt(fd uintptr, cmd, arg int) (int, error)        { return unix.FcntlInt(fd, cmd, arg) }
func Fchmod(fd int, mode uint32) error                      { return unix.Fchmod(fd, mode) }
func Fchown(fd, uid, gid int) error                         { return unix.Fchown(fd, uid, gid) }
func Flock(fd, how int) error                               { return unix.Flock(fd, how) }
func Fstat(fd int, st *Stat_t) error                        { return unix.Fstat(fd, st) }
func Getsid(pid int) (int, error)                           { return unix.Getsid(pid) }
func Kill(pid int, sig Signal) error                        { return unix.Kill(pid, sig) }
func Lstat(path string, st *Stat_t) error                   { return unix.Lstat(path, st) }
func Mkfifo(path string, mode uint32) error                 { return unix.Mkfifo(path, mode) }
func Open(path string, flags int, mode uint32) (int, error) { return unix.Open(path, flags, mode) }
func Openat(dir int, path string, flags int, mode uint32) (int, error) {
	return unix.Openat(dir, path, flags, mode)
}
func Read(fd int, b []byte) (int, error) { return unix.Read(fd, b) }
func Renameat(oldDir int, oldPath string, newDir int, newPath string) error {
	return unix.Renameat(oldDir, oldPath, newDir, newPath)
}
func SetNonblock(fd int, nonblocking bool) error     { return unix.SetNonblock(fd, nonblocking) }
func Setgid(gid int) error                           { return syscall.Setgid(gid) }
func Setgroups(gids []int) error                     { return syscall.Setgroups(gids) }
func Setpgid(pid, pgid int) error                    { return syscall.Setpgid(pid, pgid) }
func Setuid(uid int) error                           { return syscall.Setuid(uid) }
func Stat(path string, st *Stat_t) error             { return unix.Stat(path, st) }
func Statfs(path string, fs *Statfs_t) error         { return unix.Statfs(path, fs) }
func Unlinkat(dir int, path string, flags int) error { return unix.Unlinkat(dir, path, flags) }
func UtimesNanoAt(dir int, path string, times []Timespec, flags int) error {
	return unix.UtimesNanoAt(dir, path, times, flags)
}
func Write(fd int, b []byte) (int, error) { return unix.Write(fd, b) }
