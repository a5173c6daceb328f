// Package store keeps the conversations of one profile in SQLite: one file, one
// process, one connection. Its schema grows by the migrations beside it, never
// backwards: a database that a newer hermes has written is left alone.
//
// It does not decide what is part of a conversation; the gateway does.
//
//	s, err := store.Open(ctx, filepath.Join(home, store.FileName))
//	err = s.Append(ctx, "sess_1", []chat.Message{{Role: chat.User, Text: "hello"}})
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	_ "modernc.org/sqlite" // the driver registers itself under "sqlite"

	"github.com/hermesgw/hermes/internal/chat"
)

// FileName is the database's name in the home of a profile.
const FileName = "hermes.db"

const (
	// busyTimeout is how long a statement waits for a stranger (a backup, an
	// operator's sqlite3) that holds the database, in milliseconds.
	busyTimeout = 5000
	// cacheSize bounds the page cache; negative means KiB (sqlite.org/pragma.html).
	cacheSize = -512
	// walLimit is what the write-ahead log is cut back to, in bytes.
	walLimit = 1 << 20
)

// Store is an open database. It is safe for concurrent use; calls queue for
// its one connection, which is all that one writer can use.
type Store struct{ db *sql.DB }

// Open opens the database at path, makes it (0600) where there is none, and
// brings its schema up to date. A database from a newer version, or a file that
// is no database, is an error of exit code 78 and stays as it is.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := create(path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, fmt.Errorf("cannot open %q: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	if err := prepare(ctx, db, path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Store{db: db}, nil
}

// create makes the file before SQLite does: SQLite's would follow the umask,
// and the log and the shared memory beside it take the mode of the file.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the database: %w; the data directory must be writable for this user", err)
	}
	return f.Close()
}

func dsn(path string) string {
	q := url.Values{"_txlock": {"immediate"}}
	for _, pragma := range []string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout),
		fmt.Sprintf("cache_size(%d)", cacheSize),
		fmt.Sprintf("journal_size_limit(%d)", walLimit),
		"foreign_keys(1)",
		"synchronous(FULL)", // an answered turn survives a power cut
		"temp_store(MEMORY)",
	} {
		q.Add("_pragma", pragma)
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// Close writes the log back into the database and closes it; it is idempotent.
func (s *Store) Close() error { return s.db.Close() }

// History returns what was said in session, oldest first; an unknown session
// has said nothing.
func (s *Store) History(ctx context.Context, session string) ([]chat.Message, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT role, content FROM messages WHERE session_id = ? ORDER BY seq`, session)
	if err != nil {
		return nil, fmt.Errorf("cannot read session %q: %w", session, err)
	}
	defer rows.Close()
	var list []chat.Message
	for rows.Next() {
		var m chat.Message
		if err := rows.Scan(&m.Role, &m.Text); err != nil {
			return nil, fmt.Errorf("cannot read session %q: %w", session, err)
		}
		list = append(list, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("cannot read session %q: %w", session, err)
	}
	return list, nil
}

// Append adds messages to the end of session, all or none, and makes the
// session if it is new. When it returns nil they are on disk.
func (s *Store) Append(ctx context.Context, session string, messages []chat.Message) error {
	if err := s.append(ctx, session, messages); err != nil {
		return fmt.Errorf("cannot store a turn of session %q: %w", session, err)
	}
	return nil
}

func (s *Store) append(ctx context.Context, session string, messages []chat.Message) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // no effect once committed
	now := time.Now().UnixMilli()
	if _, err := tx.ExecContext(ctx, `INSERT INTO sessions (id, created_at, updated_at) VALUES (?1, ?2, ?2)
		ON CONFLICT (id) DO UPDATE SET updated_at = ?2`, session, now); err != nil {
		return err
	}
	for _, m := range messages {
		if _, err := tx.ExecContext(ctx, `INSERT INTO messages (session_id, seq, role, content, created_at)
			SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4 FROM messages WHERE session_id = ?1`,
			session, string(m.Role), m.Text, now); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Writable writes one row and says whether that reached the disk.
func (s *Store) Writable(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, `INSERT INTO probe (id, at) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET at = ?1`,
		time.Now().UnixMilli())
	if err != nil {
		return fmt.Errorf("cannot write the database: %w", err)
	}
	return nil
}
