package store_test

import (
	"encoding/binary"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/store"
)

// The kernel tells of every name that goes: that of the database never does, so
// a restore that is killed leaves one, whenever that is.
func TestADatabaseIsThereAllThroughARestore(t *testing.T) {
	dir := t.TempDir()
	backup, path := filepath.Join(dir, "backup.db"), filepath.Join(dir, store.FileName)
	said(t, backup, "backup", 1)
	logged(t, path, "old")
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err == nil {
		defer unix.Close(fd)
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_FROM|unix.IN_MOVED_TO|unix.IN_DELETE)
	}
	if err != nil {
		t.Fatal(err)
	}
	restore(t, backup, path)
	mask := told(t, fd)[store.FileName]
	if mask&(unix.IN_MOVED_FROM|unix.IN_DELETE) != 0 {
		t.Error("there was no database for a moment")
	}
	if mask&unix.IN_MOVED_TO == 0 {
		t.Error("the kernel told of no restore")
	}
}

// told is what inotify tells of each name (man 7 inotify): all masks in one.
func told(t *testing.T, fd int) map[string]uint32 {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, err := unix.Read(fd, buf)
	if err != nil {
		t.Fatal(err)
	}
	events := map[string]uint32{}
	for buf = buf[:n]; len(buf) >= unix.SizeofInotifyEvent; {
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		name := strings.TrimRight(string(buf[unix.SizeofInotifyEvent:end]), "\x00")
		events[name] |= binary.NativeEndian.Uint32(buf[4:])
		buf = buf[end:]
	}
	return events
}
