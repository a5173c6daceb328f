package smallfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/smallfile"
)

// anywhere resolves paths as they are.
var anywhere *smallfile.Dir

func TestReadUpToItsLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, size := range []int{0, 1, 511, 512, 513, 1024, 5000} {
		want := bytes.Repeat([]byte{'x'}, size)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int{size, size + 1, 1 << 20} {
			if got, err := smallfile.Read(path, limit); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, at most %d: got %d, %v", size, limit, len(got), err)
			}
		}
		if _, err := smallfile.Read(path, size-1); size > 0 && !errors.Is(err, smallfile.ErrTooLong) {
			t.Errorf("%d bytes, one too many: %v", size, err)
		}
	}
	got, err := smallfile.Read("/proc/self/stat", 2<<10)
	want, _ := os.ReadFile("/proc/self/stat")
	if err != nil || !bytes.HasPrefix(got, want[:bytes.IndexByte(want, '(')]) || !bytes.HasSuffix(got, []byte("\n")) {
		t.Errorf("of /proc: %q, %v", got, err)
	}
}

func TestReadWithTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000, 123_000_000)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
	if b, got, err := anywhere.ReadWithTime(path, 10); err != nil || string(b) != "text" || !got.Equal(at) {
		t.Errorf("%q at %s, %v", b, got, err)
	}
}

// What a service may put in a file's place leads nowhere and holds nobody up.
func TestNothingElseIsRead(t *testing.T) {
	dir := t.TempDir()
	target, link, fifo := filepath.Join(dir, "target"), filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(target, []byte("secret"), 0o600), os.Symlink(target, link), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, fifo, dir, filepath.Join(dir, "none")} {
		if b, _, err := anywhere.ReadWithTime(path, 100); err == nil {
			t.Errorf("%s: %q", path, b)
		}
	}
	if b, err := smallfile.Read(link, 100); err == nil {
		t.Errorf("a link was followed to %q", b)
	}
	if b, err := smallfile.Read(fifo, 100); err != nil || len(b) > 0 {
		t.Errorf("a FIFO that nobody writes: %q, %v", b, err)
	}
	if _, err := smallfile.Read(filepath.Join(dir, "none"), 100); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
