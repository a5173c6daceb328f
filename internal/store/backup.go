package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
)

// Backup implements admin.Store: VACUUM INTO reads one moment of the database,
// beside the writer where the write-ahead log is used, and writes a copy without
// waste (sqlite.org/lang_vacuum.html). The copy (0600) is checked before it gets
// its name; path must not exist.
func (s *Store) Backup(ctx context.Context, path string) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("cannot write the backup: %q exists already; choose another name", path)
	}
	if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot write the backup: there is no directory %q; make it first, for the user of the gateway", filepath.Dir(path))
	}
	part, err := os.CreateTemp(filepath.Dir(path), ".hermes-backup-*")
	if err != nil {
		return fmt.Errorf("cannot write the backup: %w", err)
	}
	name := part.Name()
	part.Close()
	defer os.Remove(name) // no effect once it was renamed
	if err := s.copyTo(ctx, name); err != nil {
		return fmt.Errorf("cannot write the backup: %w", err)
	}
	problems, err := Check(ctx, name, true)
	if err != nil {
		return fmt.Errorf("cannot check the backup: %w", err)
	}
	if len(problems) > 0 {
		return fmt.Errorf("the database is damaged, and so is its copy: %s; hermes doctor says more", problems[0])
	}
	return publish(name, path)
}

func (s *Store) copyTo(ctx context.Context, path string) error {
	// A connection of its own: a long read must not keep one from the turns.
	db, err := sql.Open("sqlite", dsn(s.path))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, path) // an empty file is taken as none
	return err
}

// publish makes a finished file last, and gives it its name.
func publish(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close())
	if err == nil {
		err = os.Link(from, to) // unlike a rename it replaces nothing
		if errors.Is(err, errors.ErrUnsupported) || os.IsPermission(err) {
			err = os.Rename(from, to)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot write %q: %w", to, err)
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Restore puts a copy of the backup at from in place of the database at path,
// which must not be open. What was there is kept beside it; its name is returned,
// empty if there was nothing. A backup from a newer version is refused with exit
// code 78, a damaged one too; then nothing has changed.
//
// Deliveries that were under way when the backup was made may have arrived since:
// they are marked, and labelled when they are sent again.
func Restore(ctx context.Context, from, path string, now time.Time) (kept string, err error) {
	problems, err := Check(ctx, from, true)
	switch {
	case errors.Is(err, ErrNewer):
		return "", exitcode.With(exitcode.Config, fmt.Errorf("cannot use the backup %q: %w", from, err))
	case err != nil:
		return "", err
	case len(problems) > 0:
		return "", exitcode.With(exitcode.Config, fmt.Errorf("cannot use the backup %q: %s", from, problems[0]))
	}
	part := path + ".restoring"
	defer func() {
		for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
			os.Remove(part + suffix)
		}
	}()
	if err := copyFile(from, part); err != nil {
		return "", fmt.Errorf("cannot copy the backup: %w", err)
	}
	if err := doubt(ctx, part); err != nil {
		return "", fmt.Errorf("cannot prepare the backup: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		kept = path + ".before-restore-" + now.UTC().Format("20060102T150405Z")
		for _, suffix := range []string{"-wal", "-shm", "-journal", ""} { // the database last: it says that it is whole
			if err := os.Rename(path+suffix, kept+suffix); err != nil && !os.IsNotExist(err) {
				return "", fmt.Errorf("cannot set the old database aside: %w", err)
			}
		}
	}
	if err := os.Rename(part, path); err != nil {
		return kept, fmt.Errorf("cannot put the backup in place: %w; the old database is %q", err, kept)
	}
	return kept, nil
}

func copyFile(from, to string) (err error) {
	in, err := os.ReadFile(from) // a gateway's database, bounded by retention.max_bytes
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(in)
	return errors.Join(err, out.Sync(), out.Close())
}

// doubt marks what was to be sent: it may have been, after the backup.
func doubt(ctx context.Context, path string) error {
	s, err := Open(ctx, path)
	if err != nil {
		return err
	}
	err = s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error {
		_, err := tx.exec(`UPDATE outbox SET unsure = 1 WHERE state IN ('pending', 'sending')`)
		return err
	}})
	return errors.Join(err, s.Close())
}
