package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
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

// Under a load that never pauses, with readers that come and go, the log stays
// bounded: what is written meanwhile is several times as much.
func TestLogIsBoundedUnderLoad(t *testing.T) {
	t.Parallel()
	const limit, written, writers = 32 << 20, 40 << 20, 4
	path := filepath.Join(t.TempDir(), store.FileName)
	s := open(t, path)
	long := strings.Repeat("x", 64<<10)
	ctx, stop := context.WithCancel(t.Context())
	var reading, writing sync.WaitGroup
	for i := range 2 {
		reading.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
				_, _ = s.Recent(ctx, fmt.Sprint("s", i), 1<<62, 1)
			}
		})
	}
	var most atomic.Int64
	for i := range writers {
		writing.Go(func() {
			for range written / writers / len(long) {
				if err := s.Append(t.Context(), fmt.Sprint("s", i), []chat.Message{{Role: chat.User, Text: long}}); err != nil {
					t.Error(err)
				}
				if log, err := os.Stat(path + "-wal"); err == nil {
					most.Store(max(most.Load(), log.Size()))
				}
			}
		})
	}
	writing.Wait()
	stop()
	reading.Wait()
	t.Logf("the log had %d MB at most, %d were written", most.Load()>>20, written>>20)
	if most.Load() > limit {
		t.Errorf("the log grew to %d MB, want at most %d", most.Load()>>20, limit>>20)
	}
}
