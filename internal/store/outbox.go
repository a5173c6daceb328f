package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hermesgw/hermes/internal/outbox"
)

func insertPart(tx *writes, p outbox.Part) error {
	_, err := tx.exec(`INSERT INTO outbox (delivery, message, account, chat, thread, reply_to, part, parts, text, edits, state, created_at, not_before)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?)`,
		p.Delivery, p.Message, p.Account, p.Chat, p.Thread, p.ReplyTo, p.Part, p.Parts, p.Text, p.Edits, micros(p.Created), micros(p.NotBefore))
	return err
}

// Enqueue commits parts that belong to no turn.
func (s *Store) Enqueue(ctx context.Context, parts []outbox.Part) error {
	err := s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error {
		for _, p := range parts {
			if err := insertPart(tx, p); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return fmt.Errorf("cannot store what is to be sent: %w", err)
	}
	return nil
}

const selectPart = `SELECT id, delivery, message, account, chat, thread, reply_to, part, parts, text, edits, state, unsure, attempts, tries,
	receipt, error, created_at, not_before, finished_at FROM outbox`

func scanPart(scan func(dest ...any) error) (p outbox.Part, err error) {
	var tries string
	var created, notBefore, finished int64
	err = scan(&p.Seq, &p.Delivery, &p.Message, &p.Account, &p.Chat, &p.Thread, &p.ReplyTo, &p.Part, &p.Parts, &p.Text, &p.Edits, &p.State,
		&p.Unsure, &p.Attempts, &tries, &p.Receipt, &p.Error, &created, &notBefore, &finished)
	if err != nil {
		return p, err
	}
	p.Created, p.NotBefore, p.Finished = timeOf(created), timeOf(notBefore), timeOf(finished)
	if err := json.Unmarshal([]byte(tries), &p.Tries); err != nil {
		return p, fmt.Errorf("cannot read delivery %q: %w", p.Delivery, err)
	}
	return p, nil
}

func (s *Store) parts(ctx context.Context, where string, args ...any) ([]outbox.Part, error) {
	rows, err := s.read.QueryContext(ctx, selectPart+where, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read the outbox: %w", err)
	}
	return collect(rows, func(scan func(...any) error) (outbox.Part, error) { return scanPart(scan) })
}

// OpenParts implements outbox.Store.
func (s *Store) OpenParts(ctx context.Context, account string, after int64) ([]outbox.Part, error) {
	return s.parts(ctx, ` WHERE state IN ('pending', 'sending') AND account = ? AND id > ? ORDER BY id`, account, after)
}

// Deliveries returns the parts of the answer to a message, in order.
func (s *Store) Deliveries(ctx context.Context, message string) ([]outbox.Part, error) {
	return s.parts(ctx, ` WHERE message = ? ORDER BY id`, message)
}

// Trying implements outbox.Store.
func (s *Store) Trying(ctx context.Context, seq int64) error {
	return s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error {
		r, err := tx.exec(`UPDATE outbox SET state = 'sending' WHERE id = ? AND state IN ('pending', 'sending')`, seq)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, outbox.ErrDropped)
		}
		return nil
	}})
}

// Drop takes the answers to messages of a chat that wait to be sent off: they are
// no dead letters. What ends a preview stays: without it that would look as if
// there were more to come. It returns how many those are, and the number of the last.
func (s *Store) Drop(ctx context.Context, to outbox.Address, at time.Time) (n int, upto int64, err error) {
	err = s.writer.submit(ctx, &job{need: kept, do: func(tx *writes) error {
		// The first condition is that of the index of open parts.
		const where = ` WHERE state IN ('pending', 'sending') AND state = 'pending' AND message <> '' AND edits = '' AND account = ? AND chat = ? AND thread = ?`
		if err := tx.row(`SELECT count(*), coalesce(max(id), 0) FROM outbox`+where, []any{to.Account, to.Chat, to.Thread}, &n, &upto); err != nil {
			return err
		}
		_, err := tx.exec(`UPDATE outbox SET state = 'dead', settled = 'dropped', error = 'stopped in the chat', finished_at = ?`+where,
			micros(at), to.Account, to.Chat, to.Thread)
		return err
	}})
	return n, upto, err
}

// Tried implements outbox.Store. It need not survive a power cut: then the part
// is still being sent, and labelled when it is sent again.
func (s *Store) Tried(ctx context.Context, p outbox.Part, repeat bool) error {
	return s.writer.submit(ctx, &job{need: kept, do: func(tx *writes) error { return tried(tx, p, repeat) }})
}

func tried(tx *writes, p outbox.Part, repeat bool) error {
	tries, err := json.Marshal(p.Tries)
	if err != nil {
		return err
	}
	_, err = tx.exec(`UPDATE outbox SET state = ?, edits = ?, unsure = ?, attempts = ?, tries = ?, receipt = ?, error = ?, not_before = ?, finished_at = ?
		WHERE id = ?`, string(p.State), p.Edits, p.Unsure, p.Attempts, string(tries), p.Receipt, p.Error, micros(p.NotBefore), micros(p.Finished), p.Seq)
	if err == nil && repeat {
		_, err = tx.exec(`UPDATE tally SET duplicates = duplicates + 1`)
	}
	return err
}

// GiveUp implements outbox.Store. A power cut is no worse than for Tried.
func (s *Store) GiveUp(ctx context.Context, p outbox.Part, repeat bool) (rest int, err error) {
	err = s.writer.submit(ctx, &job{need: kept, do: func(tx *writes) error {
		if err := tried(tx, p, repeat); err != nil {
			return err
		}
		// The first condition is that of the index of open parts.
		r, err := tx.exec(`UPDATE outbox SET state = 'dead', error = ?, not_before = 0, finished_at = ?
			WHERE state IN ('pending', 'sending') AND id > ? AND message = ? AND account = ? AND chat = ? AND thread = ? AND created_at = ?`,
			fmt.Sprintf("not tried after part %d of %d, %s: %s", p.Part, p.Parts, p.Delivery, p.Error), micros(p.Finished),
			p.Seq, p.Message, p.Account, p.Chat, p.Thread, micros(p.Created))
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		rest = int(n)
		return err
	}})
	return rest, err
}

var _ outbox.Store = (*Store)(nil)
