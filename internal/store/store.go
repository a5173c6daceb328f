// Package store keeps what one profile must not lose in SQLite: messages from
// their acceptance to their answer, conversations, deliveries. One file, one
// process; one connection writes, in the order of the calls and many calls to a
// commit, and two others read. Its schema grows by the migrations beside it, never
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

// readers is how many read at once: more would be more memory and, on two
// processors, no faster.
const readers = 2

// Store is an open database. It is safe for concurrent use.
type Store struct {
	path   string
	db     *sql.DB // of the writer
	read   *sql.DB
	writer *writer
	back   *checkpointer
}

// Open opens the database at path, makes it (0600) where there is none, and
// brings its schema up to date. A database from a newer version, or a file that
// is no database, is an error of exit code 78 and stays as it is.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := create(path); err != nil {
		return nil, err
	}
	if err := leaveNewerLog(ctx, path); err != nil {
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
	read, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, errors.Join(explain(path, err), db.Close())
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	back := newCheckpointer(read)
	w, err := newWriter(ctx, db, path, back)
	if err != nil {
		return nil, errors.Join(explain(path, err), back.close(), read.Close(), db.Close())
	}
	return &Store{path: path, db: db, read: read, writer: w, back: back}, nil
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
		"wal_autocheckpoint(0)", // the checkpointer does it, beside the writer
		"synchronous(FULL)",     // an answered turn survives a power cut
		"temp_store(MEMORY)",
	} {
		q.Add("_pragma", pragma)
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// Close ends what is being written, writes the log back into the database and
// closes it; it is idempotent.
func (s *Store) Close() error {
	return errors.Join(s.writer.close(), s.back.close(), s.read.Close(), s.db.Close())
}

// Writable writes one row and says whether that reached the disk.
func (s *Store) Writable(ctx context.Context) error {
	err := s.writer.submitOrLeave(ctx, &job{need: synced, do: func(tx *writes) error {
		_, err := tx.exec(`INSERT INTO probe (id, at) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET at = ?1`, time.Now().UnixMilli())
		return err
	}})
	if err != nil {
		return fmt.Errorf("cannot write the database: %w", err)
	}
	return nil
}
