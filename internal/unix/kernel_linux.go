package unix

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// What Linux alone has, under the names and with the meanings of x/sys/unix.
const (
	CLOCK_BOOTTIME         = unix.CLOCK_BOOTTIME
	POLLIN                 = unix.POLLIN
	O_PATH                 = unix.O_PATH
	PR_SET_CHILD_SUBREAPER = unix.PR_SET_CHILD_SUBREAPER
	RLIMIT_RTTIME          = unix.RLIMIT_RTTIME
	SIGPWR                 = unix.SIGPWR
	STATX_CTIME            = unix.STATX_CTIME
	STATX_INO              = unix.STATX_INO
	STATX_MTIME            = unix.STATX_MTIME
	STATX_SIZE             = unix.STATX_SIZE
	STATX_TYPE             = unix.STATX_TYPE
	TIOCINQ                = unix.TIOCINQ
	TIOCSPGRP              = unix.TIOCSPGRP
)

// The types of x/sys/unix.
type (
	PollFd  = unix.PollFd
	Rlimit  = unix.Rlimit
	Statx_t = unix.Statx_t

	StatxTimestamp = unix.StatxTimestamp
)

// Bits of capget(2).
const (
	capSetgid = 6
	capSetuid = 7
)

// CanSetIDs says whether this process may become any user: it has CAP_SETUID and
// CAP_SETGID.
func CanSetIDs() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // version 3 has two words
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false
	}
	has := func(bit uint) bool { return data[0].Effective&(1<<bit) != 0 }
	return has(capSetgid) && has(capSetuid)
}

// IsTerminal says whether fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// PeerUID is who is at the other end of a Unix socket: SO_PEERCRED of unix(7), the
// uid at the time of connect, in our user namespace.
func PeerUID(fd int) (int, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return -1, err
	}
	return int(cred.Uid), nil
}

// SetFSIDs has this thread use files as uid and gid; now is the uid as which it
// does so from here on, for the kernel reports no failure (setfsuid(2)).
func SetFSIDs(uid, gid int) (now int) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSGID, uintptr(gid), 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uid), 0, 0)
	r, _, _ := syscall.RawSyscall(syscall.SYS_SETFSUID, ^uintptr(0), 0, 0)
	return int(r)
}

// The calls.
func ClockGettime(clock int32, ts *Timespec) error  { return unix.ClockGettime(clock, ts) }
func Poll(fds []PollFd, millis int) (int, error)    { return unix.Poll(fds, millis) }
func PidfdSendSignal(pidfd int, sig Signal) error   { return unix.PidfdSendSignal(pidfd, sig, nil, 0) }
func Dup3(oldFD, newFD, flags int) error            { return unix.Dup3(oldFD, newFD, flags) }
func IoctlGetInt(fd int, request uint) (int, error) { return unix.IoctlGetInt(fd, request) }
func IoctlSetPointerInt(fd int, request uint, value int) error {
	return unix.IoctlSetPointerInt(fd, request, value)
}
func Mkfifoat(dir int, path string, mode uint32) error { return unix.Mkfifoat(dir, path, mode) }
func PidfdOpen(pid, flags int) (int, error)            { return unix.PidfdOpen(pid, flags) }
func Prctl(option int, arg2, arg3, arg4, arg5 uintptr) error {
	return unix.Prctl(option, arg2, arg3, arg4, arg5)
}

func Prlimit(pid, resource int, limit, old *Rlimit) error {
	return unix.Prlimit(pid, resource, limit, old)
}
func Setrlimit(resource int, limit *Rlimit) error { return unix.Setrlimit(resource, limit) }
func Statx(dir int, path string, flags, mask int, st *Statx_t) error {
	return unix.Statx(dir, path, flags, mask, st)
}
