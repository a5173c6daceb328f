package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"
)

// The time a check may take. Beside the write-ahead log a reader disturbs
// nobody; with the other journal a turn waits for it, and must not for long.
const (
	checkLimit     = 10 * time.Second
	checkLimitHeld = time.Second
)

// maxProblems is how many are worth naming: the first page tells the story.
const maxProblems = 5

// ErrNewer means that the database is not for this version.
var ErrNewer = errors.New("a newer hermes has written it")

// ErrCheckTooLong says that a check was given up at the end of its time.
var ErrCheckTooLong = errors.New("the check was given up: it took too long")

// Check looks at the structure of the database (PRAGMA quick_check) and returns
// what is wrong in words; nothing for a sound one; ErrNewer for one that it does
// not know. It reads only. It blocks for the size of the database, at most some
// seconds.
//
// Call it in the process that has the database open, or under the lease of the
// profile: alone says which.
func Check(ctx context.Context, path string, alone bool) ([]string, error) {
	limit := checkLimit
	if !alone && journalMode(path) == rollback {
		limit = checkLimitHeld
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	problems, err := examine(limited, path, path, alone)
	if limited.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("cannot check %q: %w", path, ErrCheckTooLong)
	}
	return problems, err
}

// examine is Check for as long as it takes, of a database that errors call name.
func examine(ctx context.Context, path, name string, alone bool) ([]string, error) {
	db, err := sql.Open("sqlite", readOnly(path, alone))
	if err != nil {
		return nil, fmt.Errorf("cannot open %q: %w", name, err)
	}
	defer db.Close()
	if _, err := known(ctx, db, name); err != nil {
		return nil, err
	}
	return quickCheck(ctx, db, name)
}

// known returns the version of a schema that this binary knows, 0 for a database
// without one; else ErrNewer.
func known(ctx context.Context, db *sql.DB, name string) (int64, error) {
	have, err := version(ctx, db)
	if err != nil {
		return 0, explain(name, err)
	}
	want, err := latest()
	if err == nil && have > want {
		err = fmt.Errorf("%w (schema %d, this one knows %d)", ErrNewer, have, want)
	}
	return have, err
}

func quickCheck(ctx context.Context, db *sql.DB, path string) ([]string, error) {
	rows, err := db.QueryContext(ctx, fmt.Sprintf(`PRAGMA quick_check(%d)`, maxProblems))
	if err != nil {
		return nil, explain(path, err)
	}
	defer rows.Close()
	var problems []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, explain(path, err)
		}
		if text != "ok" {
			problems = append(problems, text)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, explain(path, err)
	}
	return problems, nil
}

// readOnly opens without writing. A database that nobody has open and that was
// closed in good order is read as if it could not change: else SQLite would
// make a log beside it.
func readOnly(path string, alone bool) string {
	q := url.Values{"mode": {"ro"}}
	if wal, err := os.Stat(path + "-wal"); alone && (err != nil || wal.Size() == 0) {
		q.Set("immutable", "1")
	}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", checkLimitHeld.Milliseconds()))
	q.Add("_pragma", "query_only(1)")
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}
