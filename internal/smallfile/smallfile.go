// Package smallfile reads files of a few hundred bytes that somebody else
// writes, with no more system calls than it takes: open, read, close. It neither
// follows a link nor waits on a FIFO put in the file's place, and reads no more
// than it was allowed to.
//
// It is for files that are replaced by a rename, and for those of /proc: what a
// single read returns is taken for the whole.
//
//	b, err := smallfile.Read("/proc/self/stat", 2<<10)
package smallfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/unix"
)

// ErrTooLong is a file with more in it than its reader allows.
var ErrTooLong = errors.New("the file is too long")

// firstRead is how much is read at first; most files are shorter.
const firstRead = 512

// Dir is a directory from which the paths below it are resolved. A path that begins
// at the root has its rights checked from there on; for who is not root and looks at
// hundreds of files that can cost more than the reading, as a message to a storage
// driver in user space for each directory of root's on the way.
//
// A nil Dir resolves every path as it is.
type Dir struct {
	path string
	fd   func() int // opened at the first use and for good
}

// In returns the Dir at path, an absolute one.
func In(path string) *Dir {
	path = filepath.Clean(path)
	return &Dir{path, sync.OnceValue(func() int {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return unix.AT_FDCWD // and its reader hears why
		}
		return fd
	})}
}

// at returns path for a system call of the kind openat.
func (d *Dir) at(path string) (fd int, relative string) {
	if d == nil {
		return unix.AT_FDCWD, path
	}
	below, ok := strings.CutPrefix(path, d.path+"/")
	if fd = d.fd(); !ok || fd == unix.AT_FDCWD {
		return unix.AT_FDCWD, path
	}
	return fd, below
}

// Open opens a file by the system call alone: package os would ask the poller
// first, which costs more than the reading. flags are those of open(2); added are
// O_CLOEXEC, O_NOFOLLOW and O_NONBLOCK.
func (d *Dir) Open(path string, flags int) (fd int, err error) {
	dir, relative := d.at(path)
	for {
		fd, err = unix.Openat(dir, relative, flags|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, wrap("open", path, err)
		}
	}
}

// Read returns what is in the file at path, at most limit bytes.
func Read(path string, limit int) ([]byte, error) { return (*Dir)(nil).Read(path, limit) }

// Read is the function Read.
func (d *Dir) Read(path string, limit int) ([]byte, error) {
	fd, err := d.Open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b, err := readAll(fd, limit)
	return b, wrap("read", path, err)
}

// ReadWithTime is Read for a regular file alone, and returns also when it was
// written.
func (d *Dir) ReadWithTime(path string, limit int) ([]byte, time.Time, error) {
	fd, err := d.Open(path, unix.O_RDONLY)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, time.Time{}, wrap("stat", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, time.Time{}, wrap("read", path, unix.EINVAL)
	}
	b, err := readAll(fd, limit)
	return b, time.Unix(st.Mtim.Unix()), wrap("read", path, err)
}

// readAll reads until a read returns less than was asked for: that is the end.
func readAll(fd, limit int) ([]byte, error) {
	b := make([]byte, min(limit+1, firstRead))
	for n := 0; ; {
		got, err := read(fd, b[n:])
		if err != nil {
			return nil, err
		}
		n += got
		switch {
		case n < len(b):
			return b[:n], nil
		case n > limit:
			return nil, ErrTooLong
		}
		b = append(b, make([]byte, min(len(b), limit+1-len(b)))...)
	}
}

func read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
