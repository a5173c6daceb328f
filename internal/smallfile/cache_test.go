package smallfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/smallfile"
)

// place is a directory for one file, and a kept cache of it.
func place(t testing.TB) (dir, file, kept string) {
	t.Helper()
	dir = t.TempDir()
	return dir, filepath.Join(dir, "f"), filepath.Join(dir, "kept")
}

func put(t testing.TB, file, text string) {
	t.Helper()
	if err := atomicfile.WriteVolatile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// opened is the kept cache, as a process has it that begins an hour from now.
func opened(dir, kept string) *smallfile.Cache {
	return smallfile.Later(smallfile.KeptIn(kept, smallfile.In(dir)))
}

// remembered is a file of which it is kept that it holds "first".
func remembered(t testing.TB) (dir, file, kept string, c *smallfile.Cache) {
	t.Helper()
	dir, file, kept = place(t)
	put(t, file, "first")
	c = opened(dir, kept)
	wantRead(t, "first", c, file, "first")
	c.Save()
	return dir, file, kept, c
}

// overwrite changes what a kept cache says of a file: who shows that has not read the
// file itself.
func overwrite(t testing.TB, kept, old, changed string) {
	t.Helper()
	b, err := os.ReadFile(kept)
	if err == nil && !bytes.Contains(b, []byte(old)) {
		t.Fatalf("%q is not kept: %q", old, b)
	}
	if err = errors.Join(err, os.WriteFile(kept, bytes.ReplaceAll(b, []byte(old), []byte(changed)), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func wantRead(t testing.TB, what string, c *smallfile.Cache, file, want string) {
	t.Helper()
	b, err := c.Read(file, 100)
	again, at, err2 := c.ReadWithTime(file, 100)
	fi, err3 := os.Stat(file)
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if string(b) != want || string(again) != want || !at.Equal(fi.ModTime()) {
		t.Errorf("%s: %q and %q of %s, want %q of %s", what, b, again, at, want, fi.ModTime())
	}
}

// What is remembered is shown by the next process too, which does not read the
// file: it shows what somebody wrote into the kept cache instead.
func TestCacheSparesTheReading(t *testing.T) {
	t.Parallel()
	dir, file, kept, c := remembered(t)
	overwrite(t, kept, "first", "FIRST")
	wantRead(t, "in memory", c, file, "first")
	c = opened(dir, kept)
	wantRead(t, "kept", c, file, "FIRST")
	if _, err := c.Read(file, 4); !errors.Is(err, smallfile.ErrTooLong) {
		t.Errorf("longer than allowed: %v", err)
	}
	wantRead(t, "elsewhere", opened("/nowhere", kept), file, "FIRST")
}

// stampLater sets when a file was modified, in a later tick of the filesystem's clock
// than its last change.
func stampLater(file string, at time.Time) error {
	var before, after unix.Stat_t
	err := unix.Lstat(file, &before)
	after = before
	for deadline := time.Now().Add(10 * time.Second); err == nil && after.Ctim == before.Ctim; {
		if time.Now().After(deadline) {
			return errors.New("the clock of the filesystem stands still")
		}
		err = errors.Join(os.Chtimes(file, at, at), unix.Lstat(file, &after))
	}
	return err
}

// However a file becomes another one, a Cache is not behind it.
func TestCacheIsNeverBehind(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	for name, change := range map[string]func(file string) error{
		"replaced":         func(f string) error { return atomicfile.WriteVolatile(f, []byte("other"), 0o600) },
		"written in place": func(f string) error { return os.WriteFile(f, []byte("other"), 0o600) },
		"with the old stamp": func(f string) error {
			return errors.Join(os.WriteFile(f, []byte("other"), 0o600), stampLater(f, at))
		},
	} {
		dir, file, kept := place(t)
		put(t, file, "first")
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
		c := opened(dir, kept)
		wantRead(t, name, c, file, "first")
		c.Save()
		if err := change(file); err != nil {
			t.Fatal(err)
		}
		wantRead(t, name, c, file, "other")
		wantRead(t, name+", kept", opened(dir, kept), file, "other")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if b, err := c.Read(file, 100); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s, then removed: %q, %v", name, b, err)
		}
	}
}

// A change that is young may be followed by one with the same stamps.
func TestCacheDoesNotRememberYoungChanges(t *testing.T) {
	t.Parallel()
	dir, file, kept := place(t)
	c := smallfile.KeptIn(kept, smallfile.In(dir))
	for range 200 {
		put(t, file, "young")
		wantRead(t, "young", c, file, "young")
	}
	c.Save()
	if b, err := os.ReadFile(kept); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("kept: %q, %v", b, err)
	}
}

// What a service may put in a file's place leads nowhere through a Cache either.
func TestCacheReadsNothingElse(t *testing.T) {
	t.Parallel()
	dir, file, kept := place(t)
	put(t, file, "secret")
	link, fifo := filepath.Join(dir, "link"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.Symlink(file, link), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	c := opened(dir, kept)
	for _, path := range []string{link, fifo, dir} {
		if b, _, err := c.ReadWithTime(path, 100); err == nil {
			t.Errorf("%s: %q", path, b)
		}
	}
}

// A kept cache that is damaged, a link, or of another version costs time alone.
func TestDamagedCacheIsAnEmptyOne(t *testing.T) {
	t.Parallel()
	dir, file, kept, _ := remembered(t)
	whole, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		put(t, kept, string(whole[:n]))
		wantRead(t, "cut short", opened(dir, kept), file, "first")
	}
	put(t, kept, "another version\n"+string(whole))
	wantRead(t, "another version", opened(dir, kept), file, "first")
	forged := bytes.ReplaceAll(whole, []byte("first"), []byte("FIRST"))
	put(t, kept+"2", string(forged))
	if err := errors.Join(os.Remove(kept), os.Symlink(kept+"2", kept)); err != nil {
		t.Fatal(err)
	}
	wantRead(t, "a link", opened(dir, kept), file, "first")
	if os.Geteuid() == 0 {
		put(t, kept, string(forged))
		if err := os.Chown(kept, 10000, 10000); err != nil {
			t.Fatal(err)
		}
		wantRead(t, "of another user", opened(dir, kept), file, "first")
	}
}

// What nobody reads any more takes no memory, and what is read stays, however many
// save meanwhile.
func TestCacheForgets(t *testing.T) {
	t.Parallel()
	dir, file, kept := place(t)
	put(t, file, "first")
	gone := filepath.Join(dir, "gone")
	put(t, gone, "second")
	c := opened(dir, kept)
	wantRead(t, "gone", c, gone, "second")
	for range 3 {
		wantRead(t, "first", c, file, "first")
		c.Save()
		c.Save()
	}
	put(t, gone, "again, so that it is worth a write")
	wantRead(t, "anew", c, gone, "again, so that it is worth a write")
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	c.Save()
	if b, err := os.ReadFile(kept); err != nil || !bytes.Contains(b, []byte("first")) || bytes.Contains(b, []byte("second")) {
		t.Errorf("kept: %q, %v", b, err)
	}
	for range 6 {
		wantRead(t, "first", c, file, "first")
		c.Save()
	}
	young := filepath.Join(dir, "new")
	put(t, young, "third")
	wantRead(t, "third", c, young, "third")
	c.Save()
	if b, err := os.ReadFile(kept); err != nil || !bytes.Contains(b, []byte("third")) || bytes.Contains(b, []byte("again")) {
		t.Errorf("kept later: %q, %v", b, err)
	}
}
