package store_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/store"
)

// filled is a closed database with many pages.
func filled(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), store.FileName)
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := s.Append(t.Context(), "s", []chat.Message{{Role: chat.User, Text: strings.Repeat("x", 8<<10)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheckOfASoundDatabaseChangesNothing(t *testing.T) {
	path := filled(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := store.Check(t.Context(), path, true); err != nil || len(problems) != 0 {
		t.Errorf("it is sound: %q %v", problems, err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the check changed the file (%v)", err)
	}
	if beside, _ := filepath.Glob(path + "-*"); len(beside) != 0 { // the pattern is valid
		t.Errorf("the check left %q", beside)
	}
}

func TestCheckBesideTheOpenDatabase(t *testing.T) {
	path := filled(t)
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3 {
		if problems, err := store.Check(t.Context(), path, false); err != nil || len(problems) != 0 {
			t.Errorf("it is sound: %q %v", problems, err)
		}
		if err := s.Writable(t.Context()); err != nil {
			t.Errorf("after the check: %v", err)
		}
	}
}

func TestCheckFindsDamage(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"no database": func([]byte) []byte { return bytes.Repeat([]byte("not a database\n"), 1000) },
		"torn":        func(b []byte) []byte { return b[:len(b)/2] },
		"overwritten": func(b []byte) []byte {
			for i := 4096 * 2; i < len(b); i += 4096 {
				copy(b[i:i+512], bytes.Repeat([]byte{0xa5}, 512))
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filled(t)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, spoil(data), 0o600); err != nil {
				t.Fatal(err)
			}
			if problems, err := store.Check(t.Context(), path, true); err == nil && len(problems) == 0 {
				t.Error("the check found nothing")
			}
		})
	}
}

// Messages of a crash are still in the log beside the database.
func TestCheckReadsTheLogOfACrash(t *testing.T) {
	path := filled(t)
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Append(t.Context(), "s", []chat.Message{{Role: chat.User, Text: "last words"}}); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), store.FileName)
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if problems, err := store.Check(t.Context(), copied, true); err != nil || len(problems) != 0 {
		t.Errorf("%q %v", problems, err)
	}
	again, err := store.Open(t.Context(), copied)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if history, err := again.History(t.Context(), "s"); err != nil || history[len(history)-1].Text != "last words" {
		t.Errorf("the check lost the log: %v", err)
	}
}
