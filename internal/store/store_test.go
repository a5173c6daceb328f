package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/store"
)

func open(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func path(t *testing.T) string { return filepath.Join(t.TempDir(), store.FileName) }

func exchange(i int) []chat.Message {
	return []chat.Message{{Role: chat.User, Text: fmt.Sprintf("ask %d", i)}, {Role: chat.Assistant, Text: fmt.Sprintf("say %d", i)}}
}

func history(t *testing.T, s *store.Store, session string) []chat.Message {
	t.Helper()
	list, err := s.History(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestConversationSurvivesARestart(t *testing.T) {
	p := path(t)
	s := open(t, p)
	var want []chat.Message
	for i := range 3 {
		if err := s.Append(t.Context(), "a", exchange(i)); err != nil {
			t.Fatal(err)
		}
		want = append(want, exchange(i)...)
	}
	if err := s.Append(t.Context(), "b", []chat.Message{{Role: chat.User, Text: "\x00 🙂 '; DROP TABLE messages"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, p)
	if got := history(t, s, "a"); !slices.Equal(got, want) {
		t.Errorf("history %v, want %v", got, want)
	}
	if got := history(t, s, "b"); len(got) != 1 || got[0].Text != "\x00 🙂 '; DROP TABLE messages" {
		t.Errorf("history %q", got)
	}
	if got := history(t, s, "none"); got != nil {
		t.Errorf("an unknown session said %v", got)
	}
}

func TestTurnIsStoredWholeOrNotAtAll(t *testing.T) {
	s := open(t, path(t))
	err := s.Append(t.Context(), "a", []chat.Message{{Role: chat.User, Text: "x"}, {Role: "robot", Text: "y"}})
	if err == nil || len(history(t, s, "a")) != 0 {
		t.Errorf("got %v, history %v", err, history(t, s, "a"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Append(ctx, "a", exchange(1)); err == nil || len(history(t, s, "a")) != 0 {
		t.Errorf("cancelled: %v, history %v", err, history(t, s, "a"))
	}
}

func TestManyWritersLoseNothing(t *testing.T) {
	s := open(t, path(t))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 10 {
				if err := s.Append(t.Context(), "shared", exchange(w*100+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := history(t, s, "shared")
	if len(got) != 160 {
		t.Fatalf("%d messages", len(got))
	}
	for i := 0; i < len(got); i += 2 { // a turn's two messages stand together
		if strings.TrimPrefix(got[i].Text, "ask") != strings.TrimPrefix(got[i+1].Text, "say") {
			t.Fatalf("turn torn apart: %v %v", got[i], got[i+1])
		}
	}
}

func TestFileIsPrivate(t *testing.T) {
	p := path(t)
	s := open(t, p)
	if err := s.Writable(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if fi, err := os.Stat(p + suffix); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", suffix, fi, err)
		}
	}
}

func TestClosedStoreIsNotWritable(t *testing.T) {
	s := open(t, path(t))
	s.Close()
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	if err := s.Writable(t.Context()); err == nil {
		t.Error("a closed store is writable")
	}
}

func TestNewerDatabaseIsLeftAlone(t *testing.T) {
	p := path(t)
	open(t, p).Close()
	db, err := sql.Open("sqlite", p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`); err != nil {
		t.Fatal(err)
	}
	db.Close()
	before, _ := os.ReadFile(p)
	_, err = store.Open(t.Context(), p)
	if exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), "newer hermes") {
		t.Errorf("got %v", err)
	}
	if after, _ := os.ReadFile(p); !slices.Equal(before, after) {
		t.Error("the file was changed")
	}
}

// So is one whose process was killed: a part of it is still in the log.
func TestNewerDatabaseWithALogIsLeftAlone(t *testing.T) {
	running, killed := path(t), path(t)
	open(t, running).Close()
	db, err := sql.Open("sqlite", running+"?_pragma=wal_autocheckpoint(0)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"": nil, "-wal": nil}
	for end := range files {
		if files[end], err = os.ReadFile(running + end); err != nil || len(files[end]) == 0 {
			t.Fatalf("%s: %d bytes, %v", end, len(files[end]), err)
		}
		if err := os.WriteFile(killed+end, files[end], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		_, err = store.Open(t.Context(), killed)
		if exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), "newer hermes") {
			t.Errorf("got %v", err)
		}
	}
	for end, before := range files {
		if after, err := os.ReadFile(killed + end); err != nil || !slices.Equal(before, after) {
			t.Errorf("hermes.db%s was changed: %v", end, err)
		}
	}
}

// A database that the version before previews wrote goes on as it is.
func TestDatabaseWithoutPreviewsIsTakenOver(t *testing.T) {
	p := path(t)
	s := open(t, p)
	answer(t, s, "msg_1", "s", "hello", part("msg_1"))
	s.Close()
	db, err := sql.Open("sqlite", p)
	if err != nil {
		t.Fatal(err)
	}
	migration, err := os.ReadFile("migrations/0003_previews.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, down, _ := strings.Cut(string(migration), "-- +goose Down")
	if _, err := db.Exec(down + `; DELETE FROM goose_db_version WHERE version_id = 3`); err != nil {
		t.Fatal(err)
	}
	db.Close()
	s = open(t, p)
	m, err := s.Message(t.Context(), "msg_1")
	if err != nil || m.Reply.Text != "re: hello" || m.Preview != "" {
		t.Errorf("%+v, %v", m, err)
	}
	if open, err := s.OpenParts(t.Context(), "a", 0); err != nil || len(open) != 1 || open[0].Edits != "" {
		t.Errorf("%+v, %v", open, err)
	}
	answer(t, s, "msg_2", "s", "again", part("msg_2"))
}

func TestForeignFileIsLeftAlone(t *testing.T) {
	p := path(t)
	text := []byte(strings.Repeat("not a database\n", 1000))
	if err := os.WriteFile(p, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), p)
	if exitcode.Of(err) != exitcode.Config || !strings.Contains(err.Error(), "restore a backup") {
		t.Errorf("got %v", err)
	}
	if after, _ := os.ReadFile(p); !slices.Equal(after, text) {
		t.Error("the file was changed")
	}
}

func TestPathsWithSpecialCharacters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c#d%20")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s := open(t, filepath.Join(dir, store.FileName))
	if err := s.Append(t.Context(), "a", exchange(1)); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(filepath.Join(dir, store.FileName)); err != nil || fi.Size() == 0 {
		t.Errorf("stored elsewhere: %v %v", fi, err)
	}
}

func TestMissingDirectory(t *testing.T) {
	_, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "none", store.FileName))
	if err == nil || !strings.Contains(err.Error(), "must be writable") {
		t.Errorf("got %v", err)
	}
}

// Who gives up waiting must not share what the writer still writes to: the race
// detector sees it.
func TestCallersThatGiveUp(t *testing.T) {
	s := open(t, path(t))
	answer(t, s, "msg_1", "s", "x")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 30 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
				if n, err := s.Begin(ctx, 1, time.Now()); err == nil && n < 1 {
					t.Errorf("attempt %d", n)
				}
				_ = s.Writable(ctx) // its deadline may be over
				cancel()
			}
		})
	}
	wg.Wait()
}
