package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/hermesgw/hermes/internal/exitcode"
)

//go:embed migrations/*.sql
var migrations embed.FS

// The journals that are used: the write-ahead log lets a reader of the file (a
// backup) and our writer go on side by side; the other one works everywhere.
const (
	writeAhead = "WAL"
	rollback   = "TRUNCATE"
)

// prepare checks the version before anything is changed, and leaves goose out
// of a start that has nothing to migrate: that is nearly every start.
func prepare(ctx context.Context, db *sql.DB, path string) error {
	have, err := version(ctx, db)
	if err != nil {
		return explain(path, err)
	}
	want, err := latest()
	if err != nil {
		return err
	}
	if err := refuseNewer(path, have, want); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, `PRAGMA journal_mode = `+journalMode(path)); err != nil {
		return explain(path, err)
	}
	if have == want {
		return nil
	}
	return migrate(ctx, db, path)
}

func refuseNewer(path string, have, want int64) error {
	if have <= want {
		return nil
	}
	return exitcode.With(exitcode.Config, fmt.Errorf(
		"cannot use %q: a newer hermes has written it (schema %d, this one knows %d); run that version, or restore a backup",
		path, have, want))
}

// leaveNewerLog refuses a newer database of which a part is still in the log, since
// its process was killed: who opens such a one to write puts the log back into it
// at the end. What cannot be read like this is prepare's to judge.
func leaveNewerLog(ctx context.Context, path string) error {
	if log, err := os.Stat(path + "-wal"); err != nil || log.Size() == 0 {
		return nil
	}
	db, err := sql.Open("sqlite", readOnly(path, true))
	if err != nil {
		return nil
	}
	defer db.Close()
	have, err := version(ctx, db)
	if err != nil {
		return nil
	}
	want, err := latest()
	if err != nil {
		return err
	}
	return refuseNewer(path, have, want)
}

// version returns the schema version of a database, 0 for a new one, without
// writing to it.
func version(ctx context.Context, db *sql.DB) (int64, error) {
	var tables int
	err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master WHERE name = ?`, goose.DefaultTablename).Scan(&tables)
	if err != nil || tables == 0 {
		return 0, err
	}
	var v sql.NullInt64
	err = db.QueryRowContext(ctx, `SELECT max(version_id) FROM `+goose.DefaultTablename+` WHERE is_applied`).Scan(&v)
	return v.Int64, err
}

// latest is the number of the last migration of this binary.
func latest() (int64, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(names) == 0 {
		return 0, fmt.Errorf("cannot list the migrations of this binary: %w", err)
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(names[len(names)-1], "migrations/"), "_")
	return strconv.ParseInt(number, 10, 64)
}

func migrate(ctx context.Context, db *sql.DB, path string) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("cannot prepare the migration of %q: %w", path, err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("cannot migrate %q: %w", path, err)
	}
	return nil
}

// explain separates what an operator must repair from what may pass.
func explain(path string, err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff { // the primary result code, sqlite.org/rescode.html
		case lib.SQLITE_NOTADB, lib.SQLITE_CORRUPT:
			return exitcode.With(exitcode.Config, fmt.Errorf(
				"cannot use %q: it is damaged or no database (%w); restore a backup, or move it away to start anew", path, err))
		}
	}
	return fmt.Errorf("cannot open %q: %w", path, err)
}
