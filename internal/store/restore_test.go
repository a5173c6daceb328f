package store_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/store"
)

// said makes a closed database at path in which somebody said text, so often.
func said(t *testing.T, path, text string, times int) {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for range times {
		if err := s.Append(t.Context(), "s", []chat.Message{{Role: chat.User, Text: text}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// logged makes a database at path in which somebody said text, as a process leaves
// it that is killed: what was said is in its log alone.
func logged(t *testing.T, path, text string) {
	t.Helper()
	running := filepath.Join(t.TempDir(), store.FileName)
	s := open(t, running)
	if err := s.Append(t.Context(), "s", []chat.Message{{Role: chat.User, Text: text}}); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(running + suffix)
		if err == nil {
			err = os.WriteFile(path+suffix, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func restore(t *testing.T, from, path string) (kept string) {
	t.Helper()
	kept, err := store.Restore(t.Context(), from, path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// holds says which text is in the database at path, alone.
func holds(t *testing.T, path, text string) {
	t.Helper()
	if h := history(t, open(t, path), "s"); len(h) == 0 || h[len(h)-1].Text != text {
		t.Errorf("%s holds %d messages, not %q", filepath.Base(path), len(h), text)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestMemoryOfARestoreDoesNotGrowWithTheFile(t *testing.T) {
	dir := t.TempDir()
	backup, path := filepath.Join(dir, "backup.db"), filepath.Join(dir, store.FileName)
	said(t, backup, strings.Repeat("x", 1<<20), 48)
	said(t, path, "old", 1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	restore(t, backup, path)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Errorf("%d MB were allocated for a backup of 48 MB", took>>20)
	}
}

// SQLite would take a log that a killed restore left for the copy's own, and the
// old database's too.
func TestRestoreTakesNoForeignLog(t *testing.T) {
	dir := t.TempDir()
	backup, path := filepath.Join(dir, "backup.db"), filepath.Join(dir, store.FileName)
	said(t, backup, "backup", 1)
	logged(t, path, "old")
	logged(t, path+".restoring", "interrupted")
	kept := restore(t, backup, path)
	if got := listing(t, dir); got != "backup.db "+store.FileName+" "+filepath.Base(kept) {
		t.Errorf("there is %s", got)
	}
	holds(t, path, "backup")
	holds(t, kept, "old")
}

// A database that was moved away has left its log behind.
func TestRestoreWhereALogAloneIsLeft(t *testing.T) {
	dir := t.TempDir()
	backup, path := filepath.Join(dir, "backup.db"), filepath.Join(dir, store.FileName)
	said(t, backup, "backup", 1)
	logged(t, path, "old")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	restore(t, backup, path)
	holds(t, path, "backup")
}

// A copy that somebody made by hand, of a gateway that was killed.
func TestRestoreTakesTheLogOfTheBackup(t *testing.T) {
	dir := t.TempDir()
	backup, path := filepath.Join(dir, "copy.db"), filepath.Join(dir, store.FileName)
	logged(t, backup, "in the log")
	restore(t, backup, path)
	holds(t, path, "in the log")
}

func TestRestoreSetsADamagedDatabaseAsideWhole(t *testing.T) {
	dir := t.TempDir()
	backup, path := filepath.Join(dir, "backup.db"), filepath.Join(dir, store.FileName)
	said(t, backup, "backup", 1)
	for suffix, text := range map[string]string{"": "no database", "-wal": "no log"} {
		if err := os.WriteFile(path+suffix, []byte(strings.Repeat(text, 500)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kept := restore(t, backup, path)
	holds(t, path, "backup")
	for suffix, text := range map[string]string{"": "no database", "-wal": "no log"} {
		if data, err := os.ReadFile(kept + suffix); err != nil || !strings.HasPrefix(string(data), text) {
			t.Errorf("%s: %.20q %v", suffix, data, err)
		}
	}
}

func TestEveryRestoreKeepsWhatItReplaced(t *testing.T) {
	dir := t.TempDir()
	path, now := filepath.Join(dir, store.FileName), time.Now()
	said(t, path, "0", 1)
	var kept []string
	for _, text := range []string{"1", "2", "3"} {
		backup := filepath.Join(t.TempDir(), text)
		said(t, backup, text, 1)
		name, err := store.Restore(t.Context(), backup, path, now) // in one second
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, name)
	}
	for i, text := range []string{"0", "1", "2"} {
		holds(t, kept[i], text)
	}
	holds(t, path, "3")
}

// A restore that was killed behind its first step has given the old database a
// second name.
func TestRestoreForgetsASecondName(t *testing.T) {
	dir := t.TempDir()
	backup, path := filepath.Join(dir, "backup.db"), filepath.Join(dir, store.FileName)
	said(t, backup, "backup", 1)
	said(t, path, "old", 1)
	if err := os.Link(path, path+".before-restore-20260101T000000Z"); err != nil {
		t.Fatal(err)
	}
	kept := restore(t, backup, path)
	if got := listing(t, dir); got != "backup.db "+store.FileName+" "+filepath.Base(kept) {
		t.Errorf("there is %s", got)
	}
}

func TestRestoreRefusesWhatHermesDidNotWrite(t *testing.T) {
	dir := t.TempDir()
	path, empty := filepath.Join(dir, store.FileName), filepath.Join(dir, "empty.db")
	said(t, path, "old", 1)
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Restore(t.Context(), empty, path, time.Now()); exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), "no backup of hermes") {
		t.Errorf("%v", err)
	}
	holds(t, path, "old")
}
