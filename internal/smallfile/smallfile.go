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
	"time"

	"github.com/hermesgw/hermes/internal/unix"
)

// ErrTooLong is a file with more in it than its reader allows.
var ErrTooLong = errors.New("the file is too long")

// firstRead is how much is read at first; most files are shorter.
const firstRead = 512

// Read returns what is in the file at path, at most limit bytes.
func Read(path string, limit int) ([]byte, error) {
	fd, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	b, err := readAll(fd, limit)
	return b, wrap("read", path, err)
}

// ReadWithTime is Read for a regular file alone, and returns also when it was
// written.
func ReadWithTime(path string, limit int) ([]byte, time.Time, error) {
	fd, err := Open(path)
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

// Open opens a file to read, by the system call alone: package os would ask the
// poller first, which costs more than the reading.
func Open(path string) (fd int, err error) {
	for {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, wrap("open", path, err)
		}
	}
}

func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
