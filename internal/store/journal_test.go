package store_test

import (
	"path/filepath"
	"testing"

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
