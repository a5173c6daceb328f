//go:build unix

package atomicfile_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/testenv"
)

// writerVar makes the test binary a process that replaces the file named by it
// for ever, with contents of one repeated byte.
const writerVar = "ATOMICFILE_TEST_WRITER"

const contentSize = 200_000 // many pages, so that a write can be cut short

func TestMain(m *testing.M) {
	if path := os.Getenv(writerVar); path != "" {
		fmt.Fprintln(os.Stderr, "cannot write:", writeForever(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func writeForever(path string) error {
	for n := 0; ; n++ {
		write := atomicfile.Write
		if n%2 == 0 {
			write = atomicfile.WriteVolatile
		}
		if err := write(path, bytes.Repeat([]byte{'a' + byte(n%26)}, contentSize), 0o640); err != nil {
			return err
		}
		fmt.Println("wrote")
	}
}

// TestKilledWriterLeavesAWholeFile kills a writing process with -9 again and
// again, at other moments each time: the file is the old or the new one.
func TestKilledWriterLeavesAWholeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	const rounds = 25
	for round := range rounds {
		killWriter(t, path, round)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if len(b) != contentSize || bytes.Count(b, b[:1]) != contentSize {
			t.Fatalf("round %d: %d bytes, not the whole of one write", round, len(b))
		}
	}
}

// killWriter lets a writer write round+1 times and kills it somewhere in the next.
func killWriter(t *testing.T, path string, round int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerVar+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range round%5 + 1 {
		if !lines.Scan() {
			t.Fatalf("the writer ended by itself: %s", said.String())
		}
	}
	time.Sleep(time.Duration(round*37) * time.Microsecond) // where the kill falls, no proof of anything
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// A reader beside a writer never sees half of anything.
func TestReaderSeesWholeFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	contents := [][]byte{bytes.Repeat([]byte("a"), 60_000), bytes.Repeat([]byte("b"), 90_000)}
	if err := atomicfile.Write(path, contents[0], 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for n := range 100 {
			if err := atomicfile.WriteVolatile(path, contents[n%2], 0o600); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(b, contents[0]) && !bytes.Equal(b, contents[1]) {
			t.Errorf("read %d bytes: %v", len(b), err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}

func TestModeIsExact(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	path := filepath.Join(t.TempDir(), "file")
	for _, mode := range []os.FileMode{0o600, 0o644, 0o666, 0o400, 0o640} {
		if err := atomicfile.Write(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil || fi.Mode() != mode {
			t.Errorf("mode %v, want %v: %v", fi.Mode(), mode, err)
		}
	}
}

// What root writes belongs to the owner of the file that it replaces or, if
// there is none, of the directory.
func TestRootWritesForTheOwner(t *testing.T) {
	testenv.Need(t, "root")
	dir := t.TempDir()
	if err := os.Chown(dir, 10000, 10001); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	for _, want := range []uint32{10000, 20000} {
		if err := atomicfile.Write(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st := fi.Sys().(*syscall.Stat_t); st.Uid != want || st.Gid != want+1 {
			t.Errorf("root's file belongs to %d:%d, want %d:%d", st.Uid, st.Gid, want, want+1)
		}
		if err := os.Chown(path, 20000, 20001); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFailureKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"a directory in its place": taken, "no directory": filepath.Join(dir, "none", "file")} {
		if err := atomicfile.Write(path, []byte("x"), 0o600); err == nil || !strings.HasPrefix(err.Error(), "cannot write ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("left-overs: %v", entries)
	}
}

// A link in the file's place is replaced; what it points to is not written.
func TestLinkIsReplacedNotFollowed(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(link, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(target); string(b) != "old" {
		t.Errorf("the link's target holds %q", b)
	}
	if b, _ := os.ReadFile(link); string(b) != "new" {
		t.Errorf("the path holds %q", b)
	}
}
