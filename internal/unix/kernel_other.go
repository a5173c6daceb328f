//go:build !linux

package unix

import "os"

// Names that only the calls below take, and those refuse; SIGPWR never comes.
const (
	CLOCK_BOOTTIME         = 7
	POLLIN                 = 1
	O_PATH                 = 0
	PR_SET_CHILD_SUBREAPER = 0
	RLIMIT_RTTIME          = 0
	SIGPWR                 = Signal(30)
	STATX_CTIME            = 0
	STATX_INO              = 0
	STATX_MTIME            = 0
	STATX_SIZE             = 0
	STATX_TYPE             = 0
	TIOCINQ                = 0
	TIOCSPGRP              = 0
)

// PollFd is the type of Linux. No call fills it.
type PollFd struct {
	Fd              int32
	Events, Revents int16
}

// Rlimit is the type of Linux. No call fills it.
type Rlimit struct{ Cur, Max uint64 }

// Statx_t has the fields of Linux that are used here. No call fills it.
type Statx_t struct {
	Mode                 uint16
	Ino, Size            uint64
	Dev_major, Dev_minor uint32
	Mtime, Ctime         StatxTimestamp
}

// StatxTimestamp is the type of Linux.
type StatxTimestamp struct {
	Sec  int64
	Nsec uint32
}

// CanSetIDs says whether this process may become any user: it is root.
func CanSetIDs() bool { return os.Geteuid() == 0 }

// SetFSIDs does nothing: no thread has a user of its own.
func SetFSIDs(int, int) (now int) { return -1 }

// The calls.
func ClockGettime(int32, *Timespec) error                 { return ErrNeedsLinux }
func Poll([]PollFd, int) (int, error)                     { return -1, ErrNeedsLinux }
func PidfdSendSignal(int, Signal) error                   { return ErrNeedsLinux }
func Dup3(int, int, int) error                            { return ErrNeedsLinux }
func IoctlGetInt(int, uint) (int, error)                  { return -1, ErrNeedsLinux }
func IoctlSetPointerInt(int, uint, int) error             { return ErrNeedsLinux }
func Mkfifoat(int, string, uint32) error                  { return ErrNeedsLinux }
func PidfdOpen(int, int) (int, error)                     { return -1, ErrNeedsLinux }
func Prctl(int, uintptr, uintptr, uintptr, uintptr) error { return ErrNeedsLinux }
func Prlimit(int, int, *Rlimit, *Rlimit) error            { return ErrNeedsLinux }
func Setrlimit(int, *Rlimit) error                        { return ErrNeedsLinux }
func Statx(int, string, int, int, *Statx_t) error         { return ErrNeedsLinux }
