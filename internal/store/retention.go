package store

import (
	"context"
	"fmt"
	"time"
)

// pruneBatch is how many conversations or messages go in one transaction: turns
// that want to commit wait for it.
const pruneBatch = 50

// Size returns what the database takes, in bytes, without what can be used again.
func (s *Store) Size(ctx context.Context) (n int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT (page_count - freelist_count) * page_size
		FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&n)
	return n, err
}

// Prune removes conversations that were last used before before (zero: none for
// their age), then the ones that were not used for longest while the database
// takes more than maxBytes (0: whatever it takes). Conversations with open
// messages or deliveries stay, the counts too. It returns how many it removed.
// Removed pages are used again; the file does not shrink.
func (s *Store) Prune(ctx context.Context, before time.Time, maxBytes int64) (removed int64, err error) {
	for !before.IsZero() {
		n, err := s.pruneOldest(ctx, before)
		removed += n
		if err != nil || n == 0 {
			break
		}
	}
	for maxBytes > 0 && err == nil {
		size, err := s.Size(ctx)
		if err != nil || size <= maxBytes {
			return removed, err
		}
		n, err := s.pruneOldest(ctx, time.Now())
		removed += n
		if err != nil || n == 0 {
			return removed, err
		}
	}
	return removed, err
}

// pruneOldest removes up to pruneBatch conversations, oldest first.
func (s *Store) pruneOldest(ctx context.Context, before time.Time) (n int64, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	err = s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error {
		n = 0
		for range pruneBatch {
			var id string
			err := tx.row(`SELECT coalesce((SELECT id FROM sessions s WHERE updated_at < ?
				AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.session = s.id AND i.state IN ('queued', 'running'))
				AND NOT EXISTS (SELECT 1 FROM inbox i JOIN outbox o ON o.message = i.message
					WHERE i.session = s.id AND o.state IN ('pending', 'sending'))
				ORDER BY updated_at LIMIT 1), '')`, []any{before.UnixMilli()}, &id)
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
		return 0, fmt.Errorf("cannot remove old conversations: %w", err)
	}
	return n, nil
}
