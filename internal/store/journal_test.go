package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/turn/journaltest"
)

func TestJournalConformance(t *testing.T) {
	journaltest.Run(t, func(t *testing.T, dir string) journaltest.Journal {
		s, err := store.Open(t.Context(), filepath.Join(dir, store.FileName))
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// The log is written back while many write, so it does not grow for ever.
func TestLogIsWrittenBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), store.FileName)
	s := open(t, path)
	for i := range 1200 {
		answer(t, s, fmt.Sprint("msg_", i), fmt.Sprint("s", i%10), strings.Repeat("x", 500))
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		log, err := os.Stat(path + "-wal")
		if os.IsNotExist(err) { // a filesystem that carries no such log
			return
		}
		db, derr := os.Stat(path)
		if err == nil && derr == nil && db.Size() > 500<<10 && log.Size() < 20<<20 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the database %v, the log %v (%v, %v)", db, log, err, derr)
		}
		if err := s.Writable(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
