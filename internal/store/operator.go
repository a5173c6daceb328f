package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/admin"
	"github.com/hermesgw/hermes/internal/inbound"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/turn"
)

// Find implements admin.Store.
func (s *Store) Find(ctx context.Context, id string) (turn.Message, error) {
	m, err := s.Message(ctx, id)
	if !errors.Is(err, turn.ErrUnknown) {
		return m, err
	}
	if strings.HasPrefix(id, "dlv_") { // a delivery stands for what it answers
		list, err := s.messages(ctx, ` WHERE message = (SELECT message FROM outbox WHERE delivery = ?)`, id)
		if err != nil || len(list) == 0 {
			return turn.Message{}, errors.Join(err, turn.ErrUnknown)
		}
		return list[0], nil
	}
	// An Idempotency-Key is kept with what it was for before it.
	list, err := s.messages(ctx, ` WHERE external IN (?1, 'chat:' || ?1, 'run:' || ?1) LIMIT 2`, id)
	if err != nil || len(list) != 1 {
		return turn.Message{}, errors.Join(err, turn.ErrUnknown)
	}
	return list[0], nil
}

func (s *Store) messages(ctx context.Context, where string, args ...any) ([]turn.Message, error) {
	rows, err := s.read.QueryContext(ctx, selectMessage+where, args...)
	if err != nil {
		return nil, fmt.Errorf("cannot read messages: %w", err)
	}
	return collect(rows, func(scan func(...any) error) (turn.Message, error) { return scanMessage(scan) })
}

// Steps implements admin.Store.
func (s *Store) Steps(ctx context.Context, seq int64) ([]admin.Step, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT attempt, kind, model, error, tokens_in, tokens_out, tries, started_at, ended_at
		FROM steps WHERE inbox_id = ? ORDER BY seq`, seq)
	if err != nil {
		return nil, fmt.Errorf("cannot read the steps of a turn: %w", err)
	}
	return collect(rows, func(scan func(...any) error) (st admin.Step, err error) {
		var tries string
		var started, ended int64
		if err := scan(&st.Attempt, &st.Kind, &st.Model, &st.Error, &st.Usage.Input, &st.Usage.Output, &tries, &started, &ended); err != nil {
			return st, err
		}
		st.Started, st.Ended = timeOf(started), timeOf(ended)
		return st, json.Unmarshal([]byte(tries), &st.Tries)
	})
}

// Delivery implements admin.Store.
func (s *Store) Delivery(ctx context.Context, id string) (outbox.Part, error) {
	list, err := s.parts(ctx, ` WHERE delivery = ?`, id)
	if err == nil && len(list) == 0 {
		err = admin.ErrNone
	}
	if err != nil {
		return outbox.Part{}, err
	}
	return list[0], nil
}

// DeadMessages implements admin.Store.
func (s *Store) DeadMessages(ctx context.Context, limit int) ([]turn.Message, error) {
	return s.messages(ctx, ` WHERE `+deadMessage+` ORDER BY id LIMIT ?`, limit)
}

// DeadAnswers implements admin.Store.
func (s *Store) DeadAnswers(ctx context.Context, limit int) ([][]outbox.Part, error) {
	parts, err := s.parts(ctx, ` WHERE `+deadPart+` AND (`+sameAnswer+`) IN
		(SELECT `+sameAnswer+` FROM outbox WHERE `+deadPart+` GROUP BY `+sameAnswer+` ORDER BY min(id) LIMIT ?) ORDER BY id`, limit)
	if err != nil {
		return nil, err
	}
	var answers [][]outbox.Part
	for _, p := range parts {
		i := slices.IndexFunc(answers, func(a []outbox.Part) bool { return a[0].SameAnswer(p) })
		if i < 0 {
			answers = append(answers, []outbox.Part{p})
			continue
		}
		answers[i] = append(answers[i], p)
	}
	return answers, nil
}

// DeadAnswer implements admin.Store.
func (s *Store) DeadAnswer(ctx context.Context, id string) ([]outbox.Part, error) {
	parts, err := s.parts(ctx, ` WHERE `+deadPart+` AND (`+sameAnswer+`) = (SELECT `+sameAnswer+` FROM outbox WHERE `+deadPart+` AND delivery = ?) ORDER BY id`, id)
	if err == nil && len(parts) == 0 {
		err = admin.ErrNone
	}
	return parts, err
}

// What makes a dead letter, as the partial indexes have it.
const (
	deadMessage = `state = 'failed' AND settled = '' AND reason <> 'cancelled'`
	deadPart    = `state = 'dead' AND settled = ''`
)

// sameAnswer is what the parts of one answer have in common, as
// outbox.Part.SameAnswer has it.
const sameAnswer = `message, account, chat, thread, created_at`

// Dead implements admin.Store.
func (s *Store) Dead(ctx context.Context) (d admin.Dead, err error) {
	var oldest int64
	err = s.read.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM inbox WHERE `+deadMessage+`), (SELECT count(*) FROM (SELECT 1 FROM outbox WHERE `+deadPart+` GROUP BY `+sameAnswer+`)),
		coalesce((SELECT min(at) FROM (SELECT min(finished_at) AS at FROM inbox WHERE `+deadMessage+`
			UNION ALL SELECT min(finished_at) FROM outbox WHERE `+deadPart+`)), 0)`).Scan(&d.Messages, &d.Deliveries, &oldest)
	d.Oldest = timeOf(oldest)
	return d, err
}

// change runs one statement that has to change a row.
func (s *Store) change(ctx context.Context, query string, args ...any) error {
	return s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error { return changeOne(tx, query, args...) }})
}

func changeOne(tx *writes, query string, args ...any) error {
	r, err := tx.exec(query, args...)
	if err != nil {
		return err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, admin.ErrNone)
	}
	return nil
}

// SettleMessage implements admin.Store.
func (s *Store) SettleMessage(ctx context.Context, id, how string) error {
	return s.change(ctx, `UPDATE inbox SET settled = ? WHERE message = ? AND state = 'failed' AND settled = ''`, how, id)
}

// SettleParts implements admin.Store.
func (s *Store) SettleParts(ctx context.Context, parts []outbox.Part, how string) error {
	return s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error { return settle(tx, parts, how) }})
}

func settle(tx *writes, parts []outbox.Part, how string) error {
	for _, p := range parts {
		if err := changeOne(tx, `UPDATE outbox SET settled = ? WHERE delivery = ? AND `+deadPart, how, p.Delivery); err != nil {
			return err
		}
	}
	return nil
}

// ReplayParts implements admin.Store.
func (s *Store) ReplayParts(ctx context.Context, dead, again []outbox.Part) error {
	return s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error {
		if err := settle(tx, dead, "replayed"); err != nil {
			return err
		}
		for _, p := range again {
			if err := insertPart(tx, p); err != nil {
				return err
			}
			if err := changeOne(tx, `UPDATE outbox SET unsure = ? WHERE delivery = ?`, p.Unsure, p.Delivery); err != nil {
				return err
			}
		}
		return nil
	}})
}

// Pairings implements admin.Store.
func (s *Store) Pairings(ctx context.Context) ([]inbound.Pairing, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT code, platform, sender, name, reply, created_at FROM pairings ORDER BY created_at`)
	if err != nil {
		return nil, fmt.Errorf("cannot read the pairing codes: %w", err)
	}
	return collect(rows, scanPairing)
}

func scanPairing(scan func(...any) error) (p inbound.Pairing, err error) {
	var reply string
	var created int64
	if err := scan(&p.Code, &p.Platform, &p.Sender, &p.Name, &reply, &created); err != nil {
		return p, err
	}
	p.Created = timeOf(created)
	return p, json.Unmarshal([]byte(reply), &p.To)
}

// PairedList implements admin.Store.
func (s *Store) PairedList(ctx context.Context) ([]admin.Paired, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT platform, sender, name, by, created_at FROM paired ORDER BY platform, sender`)
	if err != nil {
		return nil, fmt.Errorf("cannot read who is paired: %w", err)
	}
	return collect(rows, func(scan func(...any) error) (p admin.Paired, err error) {
		var at int64
		err = scan(&p.Platform, &p.Sender, &p.Name, &p.By, &at)
		p.At = timeOf(at)
		return p, err
	})
}

// Approve implements admin.Store.
func (s *Store) Approve(ctx context.Context, code, by string, at time.Time, tell func(inbound.Pairing) []outbox.Part) (p inbound.Pairing, err error) {
	err = s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) (err error) {
		p, err = approve(tx, code, by, at, tell)
		return err
	}})
	return p, err
}

func approve(tx *writes, code, by string, at time.Time, tell func(inbound.Pairing) []outbox.Part) (inbound.Pairing, error) {
	p, err := scanPairing(func(dest ...any) error {
		return tx.row(`SELECT code, platform, sender, name, reply, created_at FROM pairings WHERE code = ?`, []any{code}, dest...)
	})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return p, admin.ErrNone
	case err != nil:
		return p, err
	case at.Sub(p.Created) > inbound.PairingTime:
		return p, admin.ErrExpired
	}
	if _, err := tx.exec(`DELETE FROM pairings WHERE code = ?`, code); err != nil {
		return p, err
	}
	if _, err := tx.exec(`INSERT INTO paired (platform, sender, name, by, created_at) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO NOTHING`, p.Platform, p.Sender, p.Name, by, micros(at)); err != nil {
		return p, err
	}
	for _, part := range tell(p) {
		if err := insertPart(tx, part); err != nil {
			return p, err
		}
	}
	return p, nil
}

// Revoke implements admin.Store.
func (s *Store) Revoke(ctx context.Context, platform, sender string) error {
	return s.change(ctx, `DELETE FROM paired WHERE platform = ? AND sender = ?`, platform, sender)
}

// AllSessions implements admin.Store.
func (s *Store) AllSessions(ctx context.Context, after string, limit int) ([]admin.Session, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT s.id, s.updated_at,
			coalesce((SELECT chat FROM inbox WHERE session = s.id ORDER BY id DESC LIMIT 1), ''),
			(SELECT count(*) FROM messages WHERE session_id = s.id AND hidden = 0),
			coalesce((SELECT substr(replace(content, char(10), ' '), 1, ?1) FROM messages WHERE session_id = s.id ORDER BY seq LIMIT 1), '')
		FROM sessions s WHERE ?2 = '' OR (s.updated_at, s.id) < (SELECT updated_at, id FROM sessions WHERE id = ?2)
		ORDER BY s.updated_at DESC, s.id DESC LIMIT ?3`, maxTitle, after, limit)
	if err != nil {
		return nil, fmt.Errorf("cannot list conversations: %w", err)
	}
	return collect(rows, func(scan func(...any) error) (c admin.Session, err error) {
		var updated int64
		err = scan(&c.ID, &updated, &c.Chat, &c.Messages, &c.Title)
		c.Last = time.UnixMilli(updated).UTC()
		return c, err
	})
}

// RemoveSession implements admin.Store.
func (s *Store) RemoveSession(ctx context.Context, id string) error {
	return s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error {
		var open bool
		if err := tx.row(`SELECT EXISTS (SELECT 1 FROM inbox WHERE session = ? AND state IN ('queued', 'running'))`, []any{id}, &open); err != nil {
			return err
		}
		if open {
			return admin.ErrBusy
		}
		if err := changeOne(tx, `DELETE FROM sessions WHERE id = ?`, id); err != nil {
			return err
		}
		return removeMessages(tx, `session = ?`, id)
	}})
}

// removeMessages removes inbox rows with all that belongs to them; where must
// leave open ones out, or have made sure that there are none.
func removeMessages(tx *writes, where string, args ...any) error {
	if _, err := tx.exec(`DELETE FROM outbox WHERE state IN ('sent', 'dead') AND message IN (SELECT message FROM inbox WHERE `+where+`)`, args...); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM inbox WHERE `+where, args...) // steps go with it
	return err
}

var _ admin.Store = (*Store)(nil)
