package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hermesgw/hermes/internal/inbound"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/turn"
)

// maxTitle bounds how much of a conversation's beginning names it, in
// characters.
const maxTitle = 60

// Chat implements inbound.Store.
func (s *Store) Chat(ctx context.Context, key string) (c inbound.Chat, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT session, busy FROM chats WHERE chat = ?`, key).Scan(&c.Session, &c.Busy)
	if errors.Is(err, sql.ErrNoRows) {
		return c, nil
	}
	return c, err
}

// setChat keeps what is not empty.
func setChat(tx *writes, key, session, busy string) error {
	_, err := tx.exec(`INSERT INTO chats (chat, session, busy, updated_at) VALUES (?1, ?2, ?3, ?4)
		ON CONFLICT (chat) DO UPDATE SET updated_at = ?4,
			session = CASE WHEN ?2 = '' THEN session ELSE ?2 END, busy = CASE WHEN ?3 = '' THEN busy ELSE ?3 END`,
		key, session, busy, time.Now().UnixMicro())
	return err
}

// Command implements inbound.Store.
func (s *Store) Command(ctx context.Context, m turn.Message, c inbound.Change, reply []outbox.Part, after func()) error {
	ask, err := json.Marshal(m.Ask)
	if err != nil {
		return err
	}
	fresh := false
	return s.writer.submit(ctx, &job{
		need: synced,
		do: func(tx *writes) (err error) {
			fresh, err = command(tx, m, string(ask), c, reply)
			return err
		},
		after: func() {
			if fresh {
				after()
			}
		},
	})
}

func command(tx *writes, m turn.Message, ask string, c inbound.Change, reply []outbox.Part) (fresh bool, err error) {
	if m.Ask.Cursor != "" {
		if err := setCursor(tx, m.Account, m.Ask.Cursor); err != nil {
			return false, err
		}
	}
	r, err := tx.exec(`INSERT INTO inbox (message, account, external, chat, session, sender, ask, state, received_at, finished_at)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'answered', ?8, ?8) ON CONFLICT DO NOTHING`,
		m.ID, m.Account, m.External, m.Chat, m.Session, m.Sender, ask, micros(m.Received))
	if err != nil {
		return false, err
	}
	if n, err := r.RowsAffected(); err != nil || n == 0 {
		return false, err
	}
	session := c.Session
	if session == "" {
		session = m.Session
	}
	if err := setChat(tx, m.Chat, session, c.Busy); err != nil {
		return false, err
	}
	for _, p := range reply {
		if err := insertPart(tx, p); err != nil {
			return false, err
		}
	}
	_, err = tx.exec(`UPDATE tally SET received = received + 1, answered = answered + 1`)
	return true, err
}

// Last implements inbound.Store.
func (s *Store) Last(ctx context.Context, chatKey, session string) (turn.Message, int64, error) {
	m, err := scanMessage(s.read.QueryRowContext(ctx, selectMessage+` WHERE chat = ? AND session = ?
		AND json_array_length(ask, '$.messages') > 0 ORDER BY id DESC LIMIT 1`, chatKey, session).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return m, 0, turn.ErrUnknown
	}
	if err != nil || m.State != turn.Answered {
		return m, 0, err
	}
	// What it added to the session stands right behind the answer before.
	var from int64
	err = s.read.QueryRowContext(ctx, `SELECT coalesce(min(seq), 0) FROM messages WHERE session_id = ?1 AND seq > (
		SELECT coalesce(max(seq), 0) FROM messages WHERE session_id = ?1 AND role = 'assistant'
			AND seq < (SELECT reply_seq FROM inbox WHERE id = ?2))`, session, m.Seq).Scan(&from)
	return m, from, err
}

// TakeBack implements turn.Journal.
func (s *Store) TakeBack(ctx context.Context, session string, from int64) error {
	return s.writer.submit(ctx, &job{need: kept, do: func(tx *writes) error {
		_, err := tx.exec(`UPDATE messages SET hidden = 1 WHERE session_id = ? AND seq >= ?`, session, from)
		return err
	}})
}

// Usage implements inbound.Store.
func (s *Store) Usage(ctx context.Context, session string) (u inbound.Usage, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE model <> ''), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0)
		FROM inbox WHERE session = ? AND state = 'answered'`, session).Scan(&u.Messages, &u.TokensIn, &u.TokensOut)
	return u, err
}

// Sessions implements inbound.Store.
func (s *Store) Sessions(ctx context.Context, chatKey string, limit int) ([]inbound.Session, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT i.session, count(*), max(i.received_at), coalesce((
			SELECT substr(replace(content, char(10), ' '), 1, ?) FROM messages WHERE session_id = i.session ORDER BY seq LIMIT 1), '')
		FROM inbox i WHERE i.chat = ? AND json_array_length(i.ask, '$.messages') > 0
		GROUP BY i.session ORDER BY max(i.id) DESC LIMIT ?`, maxTitle, chatKey, limit)
	if err != nil {
		return nil, fmt.Errorf("cannot list conversations: %w", err)
	}
	return collect(rows, func(scan func(...any) error) (c inbound.Session, err error) {
		var last int64
		if err := scan(&c.ID, &c.Messages, &last, &c.Title); err != nil {
			return c, err
		}
		c.Last = timeOf(last)
		return c, nil
	})
}

// Paired implements inbound.Store.
func (s *Store) Paired(ctx context.Context, platform, sender string) (yes bool, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM paired WHERE platform = ? AND sender = ?)`, platform, sender).Scan(&yes)
	return yes, err
}

// Pair implements inbound.Store.
func (s *Store) Pair(ctx context.Context, p inbound.Pairing) (got inbound.Pairing, fresh bool, err error) {
	err = s.writer.submit(ctx, &job{need: synced, do: func(tx *writes) (err error) {
		got, fresh, err = pair(tx, p)
		return err
	}})
	return got, fresh, err
}

func pair(tx *writes, p inbound.Pairing) (inbound.Pairing, bool, error) {
	if _, err := tx.exec(`DELETE FROM pairings WHERE created_at < ?`, p.Created.Add(-inbound.PairingTime).UnixMicro()); err != nil {
		return p, false, err
	}
	var created int64
	got := inbound.Pairing{Platform: p.Platform, Sender: p.Sender}
	err := tx.row(`SELECT code, name, created_at FROM pairings WHERE platform = ? AND sender = ?`, []any{p.Platform, p.Sender},
		&got.Code, &got.Name, &created)
	if err == nil {
		got.Created = timeOf(created)
		return got, false, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return p, false, err
	}
	var open int
	if err := tx.row(`SELECT count(*) FROM pairings WHERE platform = ?`, []any{p.Platform}, &open); err != nil {
		return p, false, err
	}
	if open >= inbound.MaxPairings {
		return p, false, inbound.ErrTooMany
	}
	reply, err := json.Marshal(p.To)
	if err != nil {
		return p, false, err
	}
	_, err = tx.exec(`INSERT INTO pairings (code, platform, sender, name, reply, created_at) VALUES (?, ?, ?, ?, ?, ?)`,
		p.Code, p.Platform, p.Sender, p.Name, string(reply), micros(p.Created))
	return p, true, err
}

var _ inbound.Store = (*Store)(nil)
