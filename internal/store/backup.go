package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/atomicfile"
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
	problems, err := examine(ctx, name, name, true)
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

// besides are what SQLite may keep beside a database (sqlite.org/tempfiles.html):
// the first two hold what has not reached it yet, the last is made anew.
var besides = [...]string{"-wal", "-journal", "-shm"}

// Restore puts a copy of the backup at from in place of the database at path,
// which must not be open. What was there is kept beside it; its name is returned,
// empty if there was nothing. A backup from a newer version is refused with exit
// code 78, a damaged one too; then nothing has changed. It takes no more memory
// for a large backup than for a small one, and blocks for its size.
//
// Whenever the process or the machine stops, path is the old database or the
// whole new one. (With a damaged old one that has a log beside it, the log may be
// found with the kept one alone.)
//
// Deliveries that were under way when the backup was made may have arrived since:
// they are marked, and labelled when they are sent again.
func Restore(ctx context.Context, from, path string, now time.Time) (kept string, err error) {
	part := path + ".restoring"
	discard(part) // of a restore that was killed: SQLite would take its log for ours
	defer discard(part)
	if err := bring(ctx, from, part); err != nil {
		return "", err
	}
	if err := doubt(ctx, part); err != nil {
		return "", fmt.Errorf("cannot prepare the backup: %w", err)
	}
	if kept, err = setAside(ctx, path, part, now); err != nil {
		return "", fmt.Errorf("cannot set the old database aside: %w", err)
	}
	if err := os.Rename(part, path); err != nil {
		return kept, fmt.Errorf("cannot put the backup in place: %w; the old database is %q", err, kept)
	}
	atomicfile.SyncDir(filepath.Dir(path))
	return kept, nil
}

func discard(part string) {
	os.Remove(part)
	os.Remove(part + keeping)
	for _, suffix := range besides {
		os.Remove(part + suffix)
	}
}

// bring copies the backup to part and checks the copy: that is what will be used.
// What is no backup at all is found before.
func bring(ctx context.Context, from, part string) error {
	if err := recognise(ctx, from); err != nil {
		return err
	}
	if err := copyFile(ctx, from, part); err != nil {
		return fmt.Errorf("cannot copy the backup: %w", err)
	}
	for _, suffix := range besides[:2] { // of a copy that was not made by Backup
		if fi, err := os.Stat(from + suffix); err != nil || fi.Size() == 0 {
			continue
		}
		if err := copyFile(ctx, from+suffix, part+suffix); err != nil {
			return fmt.Errorf("cannot copy the backup: %w", err)
		}
	}
	problems, err := examine(ctx, part, from, true)
	if err == nil && len(problems) > 0 {
		err = exitcode.With(exitcode.Config, fmt.Errorf("cannot use the backup %q: %s", from, problems[0]))
	}
	return err
}

// recognise looks whether the file at path is a database of ours, and not of a
// newer version.
func recognise(ctx context.Context, path string) error {
	if fi, err := os.Stat(path); err != nil {
		return fmt.Errorf("cannot use the backup: %w", err)
	} else if !fi.Mode().IsRegular() {
		return fmt.Errorf("cannot use the backup %q: it is no file", path)
	}
	db, err := sql.Open("sqlite", readOnly(path, true))
	if err != nil {
		return fmt.Errorf("cannot open %q: %w", path, err)
	}
	defer db.Close()
	have, err := known(ctx, db, path)
	switch {
	case errors.Is(err, ErrNewer):
		return exitcode.With(exitcode.Config, fmt.Errorf("cannot use the backup %q: %w", path, err))
	case err == nil && have == 0:
		return exitcode.With(exitcode.Config, fmt.Errorf("cannot use %q: it is no backup of hermes; restore a file that hermes backup wrote", path))
	}
	return err
}

// keeping ends the name of a copy of the old database that is being made, where
// the filesystem has no second names.
const keeping = "-keeping"

// setAside gives the database at path a second name, and takes away what stands
// beside it, so that a rename can replace it. It returns that name, empty where
// there is nothing.
func setAside(ctx context.Context, path, part string, now time.Time) (kept string, err error) {
	forget(path)
	kept = freeName(path + beforeRestore + now.UTC().Format("20060102T150405Z"))
	found := false
	also := func(suffix string) {
		if fi, e := os.Lstat(path + suffix); err == nil && e == nil && (fi.Size() > 0 || suffix == "") {
			found, err = true, keep(ctx, path+suffix, kept+suffix, part+keeping)
		}
	}
	also("-wal")
	also("-journal")
	if err == nil && exists(path) && fold(ctx, path) == nil {
		os.Remove(kept + "-wal")
		os.Remove(kept + "-journal")
	}
	also("") // the last: it says that the kept one is whole
	if err != nil {
		forget(path)
		return "", err
	}
	atomicfile.SyncDir(filepath.Dir(path))
	for _, suffix := range besides {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	if !found {
		return "", nil
	}
	return kept, nil
}

// beforeRestore stands in the name of a database that was replaced.
const beforeRestore = ".before-restore-"

// forget takes the second names away that a restore gave which did not come to
// its end.
func forget(path string) {
	for _, suffix := range []string{"-wal", "-journal", ""} {
		is, err := os.Stat(path + suffix)
		if err != nil {
			continue
		}
		names, _ := filepath.Glob(globQuote(path) + beforeRestore + "*" + suffix)
		for _, name := range names {
			if fi, err := os.Lstat(name); err == nil && os.SameFile(is, fi) && !exists(name+"-wal") && !exists(name+"-journal") {
				os.Remove(name)
			}
		}
	}
}

func globQuote(path string) string {
	return strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`).Replace(path)
}

// fold writes the log of the old database back into it: one file is replaced in
// one step, two are not. It fails for a damaged one.
func fold(ctx context.Context, path string) error {
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	var tables int // the first read takes a log, or a journal, into account
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master`).Scan(&tables)
	return errors.Join(err, db.Close()) // the last to close writes the log back, and removes it
}

func freeName(name string) string {
	free := name
	for n := 2; exists(free); n++ {
		free = fmt.Sprintf("%s-%d", name, n)
	}
	return free
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// keep gives a file a second name, or copies it where there are none.
func keep(ctx context.Context, from, to, temporary string) error {
	err := os.Link(from, to)
	if !errors.Is(err, errors.ErrUnsupported) && !os.IsPermission(err) {
		return err
	}
	if err := copyFile(ctx, from, temporary); err != nil {
		return err
	}
	return os.Rename(temporary, to)
}

// copyPiece is how much is copied, in bytes, between two looks whether to stop.
const copyPiece = 16 << 20

// copyFile copies piece by piece, whatever the size, and makes the copy last.
func copyFile(ctx context.Context, from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, copyPiece); errors.Is(err, io.EOF) {
			return out.Sync()
		} else if err != nil {
			return err
		}
	}
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
