package audit_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/audit"
)

func read(t *testing.T, home, suffix string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(home, audit.FileName+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAppend(t *testing.T) {
	home := t.TempDir()
	at := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	audit.Append(home, at, "slot", "gateway-default", "ask", "stop", "by", "cli", "why", "new token")
	audit.Append(home, at, "slot", "gateway-default", "signal", "", "why", "two\nlines \"x\" by=root")
	audit.Append(home, at, "why", strings.Repeat("é", 900), "odd")
	want := "2026-01-02T15:04:05Z slot=gateway-default ask=stop by=cli why=\"new token\"\n" +
		"2026-01-02T15:04:05Z slot=gateway-default why=\"two\\nlines \\\"x\\\" by=root\"\n"
	got := read(t, home, "")
	if !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 3 || len(got) > len(want)+1100 {
		t.Errorf("the log holds %q", got)
	}
	if fi, err := os.Stat(filepath.Join(home, audit.FileName)); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", fi, err)
	}
}

// The log stays bounded, and no line of those that write together is torn.
func TestRotation(t *testing.T) {
	home := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1200 {
				audit.Append(home, time.Now(), "slot", "gateway-default", "why", strings.Repeat("x", 990))
			}
		})
	}
	wg.Wait()
	entries, err := os.ReadDir(filepath.Join(home, "logs"))
	if err != nil || len(entries) != 3 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, suffix := range []string{"", ".1", ".2"} {
		text := read(t, home, suffix)
		if len(text) > 2<<20 {
			t.Errorf("audit.log%s has %d bytes", suffix, len(text))
		}
		for line := range strings.Lines(text) {
			if !strings.HasSuffix(line, "x\n") || strings.Count(line, "slot=") != 1 {
				t.Fatalf("torn: %q", line)
			}
		}
	}
}

// What stands in its place neither blocks nor leads elsewhere.
func TestWhatIsNoLog(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"FIFO":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink(path+".target", path) },
	} {
		home := t.TempDir()
		path := filepath.Join(home, audit.FileName)
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		audit.Append(home, time.Now(), "slot", "x")
		if _, err := os.Lstat(path + ".target"); err == nil {
			t.Errorf("%s was followed", name)
		}
	}
	audit.Append("/dev/null", time.Now(), "slot", "x") // cannot be written: nothing happens
}
