package lease

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hermesgw/hermes/internal/exitcode"
)

// The fakes are what filesystems without working locks answer.
func TestFilesystemsWithoutLocksAreRefused(t *testing.T) {
	for name, fake := range map[string]func(*os.File) error{
		"ENOLCK":     func(*os.File) error { return syscall.ENOLCK },
		"ENOSYS":     func(*os.File) error { return syscall.ENOSYS },
		"EOPNOTSUPP": func(*os.File) error { return syscall.EOPNOTSUPP },
		"always yes": func(*os.File) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			err := explain(f, claim(f, fake))
			if !errors.Is(err, ErrNoLocks) || exitcode.Of(err) != exitcode.Config {
				t.Fatalf("got %v with exit code %d, want ErrNoLocks and 78", err, exitcode.Of(err))
			}
			for _, word := range []string{f.Name(), "two gateways could run at once", "put the data directory on"} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not say %q", err, word)
				}
			}
		})
	}
}

func TestLocksOfThisFilesystemHold(t *testing.T) {
	if err := claim(open(t), lock); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	if err := Probe(dir, Try); err != nil {
		t.Error(err)
	}
	if err := Probe(dir, func(string) (bool, error) { return true, nil }); !errors.Is(err, ErrNoLocks) {
		t.Errorf("another process has the lock too: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the probe left %v (%v)", left, err)
	}
	if err := Probe(filepath.Join(dir, "missing"), nil); err == nil || errors.Is(err, ErrNoLocks) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// Who swaps the file between the lock and the look would have two holders.
func TestAReplacedFileIsNotLocked(t *testing.T) {
	f := open(t)
	err := claim(f, func(*os.File) error {
		if err := os.Rename(f.Name(), f.Name()+".old"); err != nil {
			t.Fatal(err)
		}
		return os.WriteFile(f.Name(), nil, 0o600)
	})
	if err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("got %v", err)
	}
}

func open(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), FileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
