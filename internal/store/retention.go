package store

import (
	"context"
	"fmt"
	"time"
)

const (
	// pruneBatch is how many conversations go in one transaction: turns that want
	// to commit wait for it.
	pruneBatch = 50
	// looseBatch is the same for rows that belong to no conversation; they are
	// small.
	looseBatch = 500
)

// prunable chooses conversations that nobody waits for: without open messages or
// deliveries, and without dead letters, which stay until somebody sees to them.
const prunable = `FROM sessions s WHERE updated_at < ?
	AND NOT EXISTS (SELECT 1 FROM inbox WHERE session = s.id AND (state IN ('queued', 'running') OR ` + deadMessage + `))
	AND NOT EXISTS (SELECT 1 FROM inbox i JOIN outbox o ON o.message = i.message
		WHERE i.session = s.id AND (o.state IN ('pending', 'sending') OR o.state = 'dead' AND o.settled = ''))`

// What belongs to no conversation: commands, messages whose conversation never
// began or was removed; what was sent to strangers and by operators.
const (
	looseMessages = `FROM inbox WHERE finished_at < ?1 AND state IN ('answered', 'failed') AND NOT (` + deadMessage + `)
		AND NOT EXISTS (SELECT 1 FROM sessions WHERE id = inbox.session)
		AND NOT EXISTS (SELECT 1 FROM outbox WHERE message = inbox.message AND (state IN ('pending', 'sending') OR ` + deadPart + `))`
	looseParts = `FROM outbox WHERE finished_at < ?1 AND state IN ('sent', 'dead') AND NOT (` + deadPart + `)
		AND NOT EXISTS (SELECT 1 FROM inbox WHERE message = outbox.message)`
)

// Size returns what the database takes, in bytes, without what can be used again.
func (s *Store) Size(ctx context.Context) (n int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT (page_count - freelist_count) * page_size
		FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&n)
	return n, err
}

// Prunable implements admin.Store.
func (s *Store) Prunable(ctx context.Context) (is bool, err error) {
	now := time.Now()
	err = s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 `+prunable+`)`, now.UnixMilli()).Scan(&is)
	if err != nil || is {
		return is, err
	}
	err = s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 `+looseMessages+`) OR EXISTS (SELECT 1 `+looseParts+`)`, micros(now)).Scan(&is)
	return is, err
}

// Prune removes conversations that were last used before before (zero: none for
// their age), then the ones that were not used for longest while the database
// takes more than maxBytes (0: whatever it takes); with them goes what belongs to
// no conversation. What is open or a dead letter stays with its conversation, the
// counts too. It returns how many conversations it removed. Removed pages are
// used again; the file does not shrink.
func (s *Store) Prune(ctx context.Context, before time.Time, maxBytes int64) (removed int64, err error) {
	for more := !before.IsZero(); more && err == nil; {
		var n int64
		n, more, err = s.pruneOldest(ctx, before)
		removed += n
	}
	for more := maxBytes > 0; more && err == nil; {
		var n, size int64
		if size, err = s.Size(ctx); err != nil || size <= maxBytes {
			break
		}
		n, more, err = s.pruneOldest(ctx, time.Now())
		removed += n
	}
	if err != nil {
		err = fmt.Errorf("cannot remove old conversations: %w", err)
	}
	return removed, err
}

// pruneOldest removes up to pruneBatch conversations and looseBatch rows of none,
// oldest first; more is false when there was nothing.
func (s *Store) pruneOldest(ctx context.Context, before time.Time) (n int64, more bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	err = s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error {
		n = 0
		for range pruneBatch {
			var id string
			err := tx.row(`SELECT coalesce((SELECT id `+prunable+` ORDER BY updated_at LIMIT 1), '')`, []any{before.UnixMilli()}, &id)
			if err != nil || id == "" {
				return err
			}
			if _, err := tx.exec(`DELETE FROM sessions WHERE id = ?`, id); err != nil {
				return err
			}
			if err := removeMessages(tx, `session = ?`, id); err != nil {
				return err
			}
			n++
		}
		return nil
	}})
	if err != nil {
		return 0, false, err
	}
	loose, err := s.pruneLoose(ctx, before)
	return n, n > 0 || loose > 0, err
}

// pruneLoose looks beside the writer, since that is a walk through all rows, and
// removes what still is so.
func (s *Store) pruneLoose(ctx context.Context, before time.Time) (n int64, err error) {
	for _, what := range []struct{ table, where string }{{"inbox", looseMessages}, {"outbox", looseParts}} {
		var from, to int64
		err := s.read.QueryRowContext(ctx, `SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM (SELECT id `+what.where+` ORDER BY id LIMIT ?2)`,
			micros(before), looseBatch).Scan(&from, &to)
		if err != nil {
			return n, err
		}
		if to == 0 {
			continue
		}
		err = s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error {
			r, err := tx.exec(`DELETE `+what.where+` AND id BETWEEN ?2 AND ?3`, micros(before), from, to)
			if err != nil {
				return err
			}
			gone, err := r.RowsAffected()
			n += gone
			return err
		}})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
