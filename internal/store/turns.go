package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/turn"
)

// Accept implements turn.Journal.
func (s *Store) Accept(ctx context.Context, m turn.Message, after func(turn.Message)) (kept turn.Message, fresh bool, err error) {
	ask, err := json.Marshal(m.Ask)
	if err != nil {
		return turn.Message{}, false, fmt.Errorf("cannot store a message: %w", err)
	}
	err = s.writer.submit(ctx, &job{
		need: synced,
		do:   func(tx *writes) (err error) { kept, fresh, err = accept(tx, m, string(ask)); return err },
		after: func() {
			if fresh {
				after(kept)
			}
		},
	})
	if err != nil {
		return turn.Message{}, false, fmt.Errorf("cannot store a message: %w", err)
	}
	return kept, fresh, nil
}

func accept(tx *writes, m turn.Message, ask string) (turn.Message, bool, error) {
	if m.Ask.Cursor != "" {
		if err := setCursor(tx, m.Account, m.Ask.Cursor); err != nil {
			return m, false, err
		}
	}
	known, err := scanMessage(func(dest ...any) error {
		return tx.row(selectMessage+` WHERE account = ? AND external = ?`, []any{m.Account, m.External}, dest...)
	})
	if err == nil {
		return known, false, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return m, false, err
	}
	if m.Ask.SetChat {
		if err := setChat(tx, m.Chat, m.Session, ""); err != nil {
			return m, false, err
		}
	}
	r, err := tx.exec(`INSERT INTO inbox (message, account, external, digest, chat, session, sender, ask, state, behind, replay_of, received_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?)`,
		m.ID, m.Account, m.External, m.Digest, m.Chat, m.Session, m.Sender, ask, m.Behind, m.ReplayOf, micros(m.Received))
	if err != nil {
		return m, false, err
	}
	if m.Seq, err = r.LastInsertId(); err != nil {
		return m, false, err
	}
	if m.ReplayOf != "" {
		if _, err := tx.exec(`UPDATE inbox SET settled = 'replayed' WHERE message = ?`, m.ReplayOf); err != nil {
			return m, false, err
		}
	}
	_, err = tx.exec(`UPDATE tally SET received = received + 1`)
	return m, true, err
}

func setCursor(tx *writes, account, cursor string) error {
	_, err := tx.exec(`INSERT INTO cursors (account, cursor) VALUES (?1, ?2) ON CONFLICT (account) DO UPDATE SET cursor = ?2`, account, cursor)
	return err
}

// Cursor returns how far the stream of account was read, or nothing.
func (s *Store) Cursor(ctx context.Context, account string) (cursor string, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT cursor FROM cursors WHERE account = ?`, account).Scan(&cursor)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return cursor, err
}

// Begin implements turn.Journal.
func (s *Store) Begin(ctx context.Context, seq int64, at time.Time) (attempts int, err error) {
	err = s.writer.submit(ctx, &job{need: kept, do: func(tx *writes) error {
		return tx.row(`UPDATE inbox SET state = 'running', attempts = attempts + 1, started_at = ? WHERE id = ? RETURNING attempts`,
			[]any{micros(at), seq}, &attempts)
	}})
	if err != nil {
		return 0, fmt.Errorf("cannot note the beginning of a turn: %w", err)
	}
	return attempts, nil
}

// Previewed implements turn.Journal.
func (s *Store) Previewed(ctx context.Context, seq int64, receipt string) error {
	return s.writer.submit(ctx, &job{need: kept, do: func(tx *writes) error {
		_, err := tx.exec(`UPDATE inbox SET preview = ? WHERE id = ?`, receipt, seq)
		return err
	}})
}

// Release implements turn.Journal.
func (s *Store) Release(ctx context.Context, seq int64) error {
	return s.writer.submit(ctx, &job{need: kept, do: func(tx *writes) error {
		_, err := tx.exec(`UPDATE inbox SET state = 'queued', released = released + 1 WHERE id = ? AND state = 'running'`, seq)
		return err
	}})
}

// Finish implements turn.Journal.
func (s *Store) Finish(ctx context.Context, o turn.Outcome, after func()) error {
	err := s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) error { return finish(tx, o) }, after: after})
	if err != nil {
		return fmt.Errorf("cannot store the end of a turn: %w", err)
	}
	return nil
}

func finish(tx *writes, o turn.Outcome) error {
	last, err := appendMessages(tx, o.Session, o.News, o.At)
	if err != nil {
		return err
	}
	if o.State == turn.Failed {
		last = 0 // what the session gained is no answer
	}
	var id string
	if err := tx.row(`UPDATE inbox SET state = ?, reason = ?, error = ?, model = ?, finish = ?, tokens_in = ?, tokens_out = ?,
		reply_seq = ?, restarts = ?, finished_at = ? WHERE id = ? AND state IN ('queued', 'running') RETURNING message`,
		[]any{
			string(o.State), o.Reason, o.Error, o.Reply.Model, string(o.Reply.Finish), o.Reply.Usage.Input, o.Reply.Usage.Output,
			last, o.Restarts, micros(o.At), o.Seq,
		}, &id); err != nil {
		return err
	}
	for _, seq := range o.Joined {
		if _, err := tx.exec(`UPDATE inbox SET state = ?, reason = ?, error = ?, joined = ?, session = ?, reply_seq = ?, finished_at = ? WHERE id = ?`,
			string(o.State), o.Reason, o.Error, id, o.Session, last, micros(o.At), seq); err != nil {
			return err
		}
	}
	for _, step := range o.Steps {
		if err := keepStep(tx, o.Seq, o.Attempt, step); err != nil {
			return err
		}
	}
	for _, p := range o.Parts {
		if err := insertPart(tx, p); err != nil {
			return err
		}
	}
	column := `UPDATE tally SET answered = answered + ?`
	if o.State == turn.Failed {
		column = `UPDATE tally SET failed = failed + ?`
	}
	_, err = tx.exec(column, 1+len(o.Joined))
	return err
}

func keepStep(tx *writes, seq int64, attempt int, step agent.Step) error {
	tries, err := json.Marshal(step.Tries)
	if err != nil {
		return err
	}
	_, err = tx.exec(`INSERT INTO steps (inbox_id, seq, attempt, kind, model, error, tokens_in, tokens_out, tries, started_at, ended_at)
		SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10 FROM steps WHERE inbox_id = ?1`,
		seq, attempt, step.Kind, step.Model, step.Error, step.Usage.Input, step.Usage.Output, string(tries),
		micros(step.Started), micros(step.Ended))
	return err
}

// selectMessage is read by scanMessage. The answer is the message of the session
// that reply_seq names.
const selectMessage = `SELECT id, message, account, external, digest, chat, session, sender, ask, state, reason, error, attempts, released, restarts, behind,
	joined, replay_of, settled, preview, model, finish, tokens_in, tokens_out, received_at, started_at, finished_at,
	CASE WHEN reply_seq > 0 THEN coalesce((SELECT content FROM messages WHERE session_id = inbox.session AND seq = inbox.reply_seq), '') ELSE '' END
	FROM inbox`

func scanMessage(scan func(dest ...any) error) (m turn.Message, err error) {
	var ask string
	var received, started, finished int64
	err = scan(&m.Seq, &m.ID, &m.Account, &m.External, &m.Digest, &m.Chat, &m.Session, &m.Sender, &ask, &m.State, &m.Reason,
		&m.Error, &m.Attempts, &m.Released, &m.Restarts, &m.Behind, &m.Joined, &m.ReplayOf, &m.Settled, &m.Preview, &m.Reply.Model, &m.Reply.Finish,
		&m.Reply.Usage.Input, &m.Reply.Usage.Output, &received, &started, &finished, &m.Reply.Text)
	if err != nil {
		return m, err
	}
	m.Received, m.Started, m.Finished = timeOf(received), timeOf(started), timeOf(finished)
	if err := json.Unmarshal([]byte(ask), &m.Ask); err != nil {
		return m, fmt.Errorf("cannot read message %q: %w", m.ID, err)
	}
	return m, nil
}

// Message implements turn.Journal.
func (s *Store) Message(ctx context.Context, id string) (turn.Message, error) {
	m, err := scanMessage(s.read.QueryRowContext(ctx, selectMessage+` WHERE message = ?`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return m, turn.ErrUnknown
	}
	return m, err
}

// Runs returns the messages whose public id begins with run_, newest first.
func (s *Store) Runs(ctx context.Context, f turn.Filter) ([]turn.Message, error) {
	query, args := selectMessage+` WHERE message GLOB 'run_*'`, []any{}
	and := func(clause string, values ...any) { query, args = query+` AND `+clause, append(args, values...) }
	if f.Session != "" {
		and(`session = ?`, f.Session)
	}
	if len(f.States) > 0 {
		marks := strings.TrimSuffix(strings.Repeat("?,", len(f.States)), ",")
		states := make([]any, len(f.States))
		for i, st := range f.States {
			states[i] = string(st)
		}
		and(`state IN (`+marks+`)`, states...)
	}
	if reason, not := strings.CutPrefix(f.Reason, "!"); not {
		and(`reason <> ?`, reason)
	} else if reason != "" {
		and(`reason = ?`, reason)
	}
	if f.Before > 0 {
		and(`id < ?`, f.Before)
	}
	rows, err := s.read.QueryContext(ctx, query+` ORDER BY id DESC LIMIT ?`, append(args, f.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("cannot list runs: %w", err)
	}
	return collect(rows, func(scan func(...any) error) (turn.Message, error) { return scanMessage(scan) })
}

// Open implements turn.Journal.
func (s *Store) Open(ctx context.Context) ([]turn.Message, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT id, message, account, chat, session, sender, state, attempts, released, preview, received_at,
		coalesce(json_extract(ask, '$.to'), '{}') FROM inbox WHERE state IN ('queued', 'running') ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("cannot read what is open: %w", err)
	}
	return collect(rows, func(scan func(...any) error) (m turn.Message, err error) {
		var received int64
		var to string
		if err := scan(&m.Seq, &m.ID, &m.Account, &m.Chat, &m.Session, &m.Sender, &m.State, &m.Attempts, &m.Released, &m.Preview, &received, &to); err != nil {
			return m, err
		}
		m.Received = timeOf(received)
		return m, json.Unmarshal([]byte(to), &m.Ask.To)
	})
}

// collect reads all rows and closes them.
func collect[T any](rows *sql.Rows, scan func(func(...any) error) (T, error)) ([]T, error) {
	defer rows.Close()
	var list []T
	for rows.Next() {
		v, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// Tally implements turn.Journal.
func (s *Store) Tally(ctx context.Context) (t turn.Tally, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT received, answered, failed, duplicates,
		(SELECT count(*) FROM inbox WHERE state = 'queued'), (SELECT count(*) FROM inbox WHERE state = 'running') FROM tally`).
		Scan(&t.Received, &t.Answered, &t.Failed, &t.Duplicates, &t.Queued, &t.Running)
	return t, err
}

// micros is how a time is stored: Unix microseconds, 0 for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

var _ turn.Journal = (*Store)(nil)

// appendMessages adds messages to the end of session, which is made if it is
// new, and returns the number of the last.
func appendMessages(tx *writes, session string, messages []chat.Message, at time.Time) (last int64, err error) {
	if len(messages) == 0 {
		return 0, nil
	}
	now := at.UnixMilli()
	if _, err := tx.exec(`INSERT INTO sessions (id, created_at, updated_at) VALUES (?1, ?2, ?2)
		ON CONFLICT (id) DO UPDATE SET updated_at = ?2`, session, now); err != nil {
		return 0, err
	}
	for _, m := range messages {
		if err := tx.row(`INSERT INTO messages (session_id, seq, role, content, created_at)
			SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4 FROM messages WHERE session_id = ?1 RETURNING seq`,
			[]any{session, string(m.Role), m.Text, now}, &last); err != nil {
			return 0, err
		}
	}
	return last, nil
}
