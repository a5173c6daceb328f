package boot

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// boot.log has a line for every slot of every boot, and does not grow for ever.
func TestBootLogIsBounded(t *testing.T) {
	b, _ := newBooter(t)
	b.mark.BootID, b.mark.Started = "0123456789abcdef", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	path := filepath.Join(b.home, "logs", "boot.log")
	const line = "2026-01-02T03:04:05Z boot=0123456789abcdef slot=gateway-work want=down\n"
	b.logBoot("gateway-work", true)
	if got, err := os.ReadFile(path); string(got) != line {
		t.Fatalf("%q, %v", got, err)
	}
	for range 2 { // the second time replaces what was kept
		old := strings.Repeat("x", bootLogBytes)
		write(t, path, old, 0o640)
		b.logBoot("gateway-work", true)
		b.logBoot("gateway-work", true)
		if got, err := os.ReadFile(path); string(got) != line+line {
			t.Fatalf("%q, %v", got, err)
		}
		if kept, err := os.ReadFile(path + ".1"); string(kept) != old {
			t.Fatalf("%d bytes kept, %v", len(kept), err)
		}
	}
}

// What somebody put in its place neither leads out nor holds the boot up.
func TestBootLogIsNotFollowed(t *testing.T) {
	b, _ := newBooter(t)
	path, other := filepath.Join(b.home, "logs", "boot.log"), filepath.Join(b.home, "other")
	write(t, other, "", 0o640)
	if err := os.Mkdir(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, put := range []func() error{
		func() error { return os.Symlink(other, path) },
		func() error { return syscall.Mkfifo(path, 0o640) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		b.logBoot("gateway-default", false)
		if got, err := os.ReadFile(other); len(got) > 0 || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
