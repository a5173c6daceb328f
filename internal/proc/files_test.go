package proc_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/testenv"
)

func TestIdentityOfThisProcess(t *testing.T) {
	id, err := proc.IdentityOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(groups)
	slices.Sort(id.Groups)
	if id.UID != os.Geteuid() || id.GID != os.Getegid() || !slices.Equal(id.Groups, groups) {
		t.Errorf("the kernel says %+v, want %d:%d %v", id, os.Geteuid(), os.Getegid(), groups)
	}
	if _, err := proc.IdentityOf(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that cannot be: %v", err)
	}
}

// Root's rights are gone inside and back outside, on every thread.
func TestWithFilesOf(t *testing.T) {
	testenv.Need(t, "root")
	if !proc.CanBecome() {
		t.Skip("needs the capabilities to become another user")
	}
	dir, err := os.MkdirTemp("", "proc") // the parents of t.TempDir keep other users out
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o711), os.Mkdir(filepath.Join(dir, "theirs"), 0o700), os.Chown(filepath.Join(dir, "theirs"), 10000, 10001)); err != nil {
		t.Fatal(err)
	}
	write := func(name string) error { return os.WriteFile(filepath.Join(dir, name), nil, 0o644) }
	err = proc.WithFilesOf(10000, 10001, func() error {
		if err := write("roots"); !errors.Is(err, os.ErrPermission) {
			t.Errorf("root's directory as uid 10000: %v", err)
		}
		return write("theirs/file")
	})
	if err != nil {
		t.Errorf("their own directory: %v", err)
	}
	if fi, err := os.Stat(filepath.Join(dir, "theirs", "file")); err != nil || fi.Mode().Perm() != 0o644 {
		t.Errorf("the file is %v, %v", fi, err)
	}
	for range 100 { // whatever thread comes next
		if err := write("roots"); err != nil {
			t.Fatalf("afterwards root's own directory: %v", err)
		}
	}
	if err := proc.WithFilesOf(10000, 10001, func() error { return os.ErrClosed }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("its error is lost: %v", err)
	}
}
