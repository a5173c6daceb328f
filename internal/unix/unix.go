// Package unix is the part of golang.org/x/sys/unix that hermes uses, under the
// same names, on every system that hermes is built for. On Linux each call is
// the one of x/sys/unix. Elsewhere hermes is at least one program that compiles:
// what the system has not, answers ErrNeedsLinux or ErrWindows, and does nothing.
//
// It is the only package of the product, but for files that are for Linux alone,
// that imports x/sys/unix; so a call that is missing somewhere is added here, and
// nothing above knows about systems.
//
//	if err := unix.NeedLinux(); err != nil {
//		return fmt.Errorf("cannot boot: %w", err)
//	}
package unix

import (
	"errors"
	"runtime"
	"syscall"
)

// ErrNeedsLinux is what a system call answers that only Linux has.
var ErrNeedsLinux = errors.New("that needs Linux, and this is " + runtime.GOOS)

// ErrWindows is what a system call answers that every Unix has.
var ErrWindows = errors.New("gateways do not run on Windows: use the image, in Docker, or Linux, macOS or FreeBSD")

// NeedLinux is nil on Linux and ErrNeedsLinux elsewhere. What is for Linux alone
// asks first, before it changes anything.
func NeedLinux() error {
	if runtime.GOOS == "linux" {
		return nil
	}
	return ErrNeedsLinux
}

// Signal and Errno are the ones of the standard library.
type (
	Signal = syscall.Signal
	Errno  = syscall.Errno
)

// Error numbers, flags of open(2) and signals that package syscall has everywhere;
// Windows reports none of the errors.
const (
	EACCES  = syscall.EACCES
	EAGAIN  = syscall.EAGAIN
	EDQUOT  = syscall.EDQUOT
	EINTR   = syscall.EINTR
	EINVAL  = syscall.EINVAL
	ELOOP   = syscall.ELOOP
	EMFILE  = syscall.EMFILE
	ENFILE  = syscall.ENFILE
	ENOBUFS = syscall.ENOBUFS
	ENOMEM  = syscall.ENOMEM
	ENOSPC  = syscall.ENOSPC
	ENOSYS  = syscall.ENOSYS
	ENOTDIR = syscall.ENOTDIR
	ENXIO   = syscall.ENXIO
	EPERM   = syscall.EPERM
	EPIPE   = syscall.EPIPE
	EROFS   = syscall.EROFS
	ESRCH   = syscall.ESRCH

	O_CLOEXEC  = syscall.O_CLOEXEC
	O_NONBLOCK = syscall.O_NONBLOCK
	O_RDONLY   = syscall.O_RDONLY
	O_RDWR     = syscall.O_RDWR
	O_WRONLY   = syscall.O_WRONLY

	SIGHUP  = syscall.SIGHUP
	SIGINT  = syscall.SIGINT
	SIGKILL = syscall.SIGKILL
	SIGQUIT = syscall.SIGQUIT
	SIGTERM = syscall.SIGTERM
)
