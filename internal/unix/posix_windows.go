package unix

import (
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// Names that only the calls below take, and those refuse.
const (
	AT_FDCWD            = -100
	AT_SYMLINK_NOFOLLOW = 256
	F_GETFL             = 3
	F_GETLK             = 5
	F_SETFD             = 2
	F_UNLCK             = 2
	F_WRLCK             = 1
	LOCK_EX             = 2
	LOCK_NB             = 4
	O_ACCMODE           = 3
	S_IFCHR             = 0o020000
	S_IFIFO             = 0o010000
	S_IFMT              = 0o170000
	S_IFREG             = 0o100000
	S_IFSOCK            = 0o140000
	W_OK                = 2
	X_OK                = 1
)

// Flags of open(2) that os.OpenFile of Windows does not know: it opens as
// without them.
const (
	O_DIRECTORY = 0
	O_NOFOLLOW  = 0
)

// Signals that never come on Windows.
const (
	SIGCONT = Signal(18)
	SIGTTOU = Signal(22)
	SIGUSR1 = Signal(10)
	SIGUSR2 = Signal(12)
)

// The types of x/sys/unix as far as hermes looks at them. No call fills them.
type (
	Flock_t struct {
		Type int16
		Pid  int32
	}
	Stat_t struct {
		Mode, Uid, Gid uint32
		Ino, Nlink     uint64
		Size           int64
		Mtim           Timespec
	}
	Statfs_t struct {
		Bavail uint64
		Bsize  int64
	}
	Timespec struct{ Sec, Nsec int64 }
)

// Unix is t as seconds and nanoseconds.
func (t Timespec) Unix() (sec, nsec int64) { return t.Sec, t.Nsec }

// WaitStatus is how a process ended, as Linux encodes it.
type WaitStatus uint32

func (w WaitStatus) Exited() bool    { return w&0x7f == 0 }
func (w WaitStatus) Signaled() bool  { return w&0x7f != 0 && w&0x7f != 0x7f }
func (w WaitStatus) Signal() Signal  { return Signal(w & 0x7f) }
func (w WaitStatus) ExitStatus() int { return int(w>>8) & 0xff }

// FileInfo is what a file would say of its owner elsewhere.
type FileInfo struct {
	Dev, Ino, Nlink uint64
	Uid, Gid        uint32
}

// FileStat knows nothing of a file's owner.
func FileStat(os.FileInfo) (st *FileInfo, ok bool) { return nil, false }

// OwnGroup is nothing that a child could be started with.
func OwnGroup() *syscall.SysProcAttr { return nil }

// IsTerminal says whether fd is a console.
func IsTerminal(fd int) bool {
	var mode uint32
	return windows.GetConsoleMode(windows.Handle(fd), &mode) == nil
}

// PeerUID does not know: who asks lets nobody in.
func PeerUID(int) (int, error) { return -1, ErrWindows }

// The calls. A child of Windows inherits no handle that it was not given.
func CloseOnExec(int)                                 {}
func NsecToTimespec(nsec int64) Timespec              { return Timespec{nsec / 1e9, nsec % 1e9} }
func SignalName(Signal) string                        { return "" }
func SignalNum(string) Signal                         { return 0 }
func Access(string, uint32) error                     { return ErrWindows }
func Close(int) error                                 { return ErrWindows }
func FcntlFlock(uintptr, int, *Flock_t) error         { return ErrWindows }
func FcntlInt(uintptr, int, int) (int, error)         { return -1, ErrWindows }
func Fchmod(int, uint32) error                        { return ErrWindows }
func Fchown(int, int, int) error                      { return ErrWindows }
func Flock(int, int) error                            { return ErrWindows }
func Fstat(int, *Stat_t) error                        { return ErrWindows }
func Getsid(int) (int, error)                         { return -1, ErrWindows }
func Kill(int, Signal) error                          { return ErrWindows }
func Lstat(string, *Stat_t) error                     { return ErrWindows }
func Mkfifo(string, uint32) error                     { return ErrWindows }
func Open(string, int, uint32) (int, error)           { return -1, ErrWindows }
func Openat(int, string, int, uint32) (int, error)    { return -1, ErrWindows }
func Read(int, []byte) (int, error)                   { return -1, ErrWindows }
func Renameat(int, string, int, string) error         { return ErrWindows }
func SetNonblock(int, bool) error                     { return ErrWindows }
func Setgid(int) error                                { return ErrWindows }
func Setgroups([]int) error                           { return ErrWindows }
func Setpgid(int, int) error                          { return ErrWindows }
func Setuid(int) error                                { return ErrWindows }
func Stat(string, *Stat_t) error                      { return ErrWindows }
func Statfs(string, *Statfs_t) error                  { return ErrWindows }
func Unlinkat(int, string, int) error                 { return ErrWindows }
func UtimesNanoAt(int, string, []Timespec, int) error { return ErrWindows }
func Write(int, []byte) (int, error)                  { return -1, ErrWindows }
