package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
)

// History returns what was said in session, oldest first; an unknown session
// has said nothing.
func (s *Store) History(ctx context.Context, session string) ([]chat.Message, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT role, content FROM messages WHERE session_id = ? AND hidden = 0 ORDER BY seq`, session)
	if err != nil {
		return nil, fmt.Errorf("cannot read session %q: %w", session, err)
	}
	list, err := collect(rows, func(scan func(...any) error) (m chat.Message, err error) {
		return m, scan(&m.Role, &m.Text)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read session %q: %w", session, err)
	}
	return list, nil
}

// Continued implements turn.Journal.
func (s *Store) Continued(ctx context.Context, session string) (there bool, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM messages WHERE session_id = ? AND hidden = 0)`, session).Scan(&there)
	return there, err
}

// Recent implements agent.History.
func (s *Store) Recent(ctx context.Context, session string, before int64, limit int) ([]agent.Stored, error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	rows, err := s.read.QueryContext(ctx, `SELECT seq, role, content FROM messages
		WHERE session_id = ? AND seq < ? AND hidden = 0 ORDER BY seq DESC LIMIT ?`, session, before, limit)
	if err != nil {
		return nil, fmt.Errorf("cannot read session %q: %w", session, err)
	}
	list, err := collect(rows, scanStored)
	if err != nil {
		return nil, fmt.Errorf("cannot read session %q: %w", session, err)
	}
	return list, nil
}

// Since implements agent.History.
func (s *Store) Since(ctx context.Context, session string, after int64, limit int) ([]agent.Stored, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT seq, role, content FROM messages
		WHERE session_id = ? AND seq > ? AND hidden = 0 ORDER BY seq LIMIT ?`, session, after, limit)
	if err != nil {
		return nil, fmt.Errorf("cannot read session %q: %w", session, err)
	}
	list, err := collect(rows, scanStored)
	if err != nil {
		return nil, fmt.Errorf("cannot read session %q: %w", session, err)
	}
	return list, nil
}

func scanStored(scan func(...any) error) (m agent.Stored, err error) {
	return m, scan(&m.Seq, &m.Role, &m.Text)
}

// Summary implements agent.History.
func (s *Store) Summary(ctx context.Context, session string) (sum agent.Summary, ok bool, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT upto, text FROM summaries WHERE session_id = ? ORDER BY upto DESC LIMIT 1`, session).
		Scan(&sum.Upto, &sum.Text)
	if errors.Is(err, sql.ErrNoRows) {
		return sum, false, nil
	}
	return sum, err == nil, err
}

// KeepSummary implements agent.History.
func (s *Store) KeepSummary(ctx context.Context, session string, sum agent.Summary) error {
	err := s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error {
		_, err := tx.exec(`INSERT INTO summaries (session_id, upto, text, created_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (session_id, upto) DO UPDATE SET text = excluded.text`, session, sum.Upto, sum.Text, time.Now().UnixMilli())
		return err
	}})
	if err != nil {
		return fmt.Errorf("cannot store a summary of session %q: %w", session, err)
	}
	return nil
}

// Append adds messages to the end of session, all or none, and makes the
// session if it is new. When it returns nil they are on disk.
func (s *Store) Append(ctx context.Context, session string, messages []chat.Message) error {
	err := s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error {
		_, err := appendMessages(tx, session, messages, time.Now())
		return err
	}})
	if err != nil {
		return fmt.Errorf("cannot store a turn of session %q: %w", session, err)
	}
	return nil
}
