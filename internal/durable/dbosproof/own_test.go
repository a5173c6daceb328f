package dbosproof

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

const ownSchema = `
CREATE TABLE IF NOT EXISTS inbox(
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, chat TEXT NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'queued', attempts INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS inbox_open ON inbox(chat, seq) WHERE state = 'queued';
CREATE TABLE IF NOT EXISTS step(turn INTEGER NOT NULL, n INTEGER NOT NULL, result TEXT NOT NULL, PRIMARY KEY(turn, n)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox(turn INTEGER PRIMARY KEY, chat TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'due');
CREATE INDEX IF NOT EXISTS outbox_due ON outbox(turn) WHERE state = 'due';
CREATE TABLE IF NOT EXISTS clean(stop INTEGER NOT NULL);`

// write is a change that asked to be committed; after runs once it is, in the
// order of the commits.
type write struct {
	do    func(*sql.Tx) error
	after func()
	done  chan error
}

// turn is an accepted message and its place in the order of all.
type turn struct {
	message
	seq int64
}

// ownEngine is an inbox table, one goroutine that commits whatever has come
// together since its last fsync, and one goroutine for each chat with work.
type ownEngine struct {
	db     *sql.DB
	hooks  hooks
	writes chan write
	ctx    context.Context
	cancel context.CancelFunc
	turns  sync.WaitGroup
	writer sync.WaitGroup

	mu    sync.Mutex
	chats map[string][]turn // a chat is in the map while its goroutine lives
}

func openOwn(db *sql.DB, h hooks) (*ownEngine, error) {
	ctx, cancel := context.WithCancel(context.Background())
	e := &ownEngine{db: db, hooks: h, ctx: ctx, cancel: cancel, writes: make(chan write, 256), chats: map[string][]turn{}}
	due, left, err := e.recover()
	if err != nil {
		cancel()
		return nil, err
	}
	e.writer.Go(e.commitAll)
	for _, t := range due {
		e.deliver(t)
	}
	for _, t := range left {
		e.push(t)
	}
	return e, nil
}

// recover counts a try against the turns that may have been running when the
// process died, which are the heads of the chats, and lists what is left to be
// delivered and to be run.
func (e *ownEngine) recover() (due, left []turn, err error) {
	if _, err := e.db.Exec(ownSchema); err != nil {
		return nil, nil, err
	}
	tx, err := e.db.Begin()
	if err != nil {
		return nil, nil, err
	}
	defer tx.Rollback()
	for _, change := range []string{
		`UPDATE inbox SET attempts = attempts + 1 WHERE NOT EXISTS (SELECT 1 FROM clean)
		   AND seq IN (SELECT min(seq) FROM inbox WHERE state = 'queued' GROUP BY chat)`,
		`UPDATE inbox SET state = 'failed' WHERE state = 'queued' AND attempts >= 3`,
		`DELETE FROM clean`,
	} {
		if _, err := tx.Exec(change); err != nil {
			return nil, nil, err
		}
	}
	due, err = turns(tx, `SELECT seq, chat, n, body FROM inbox WHERE seq IN (SELECT turn FROM outbox WHERE state = 'due') ORDER BY seq`)
	if err != nil {
		return nil, nil, err
	}
	left, err = turns(tx, `SELECT seq, chat, n, body FROM inbox WHERE state = 'queued' ORDER BY seq`)
	if err != nil {
		return nil, nil, err
	}
	return due, left, tx.Commit()
}

func turns(tx *sql.Tx, query string) ([]turn, error) {
	rows, err := tx.Query(query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []turn
	for rows.Next() {
		var t turn
		if err := rows.Scan(&t.seq, &t.Chat, &t.N, &t.Text); err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, rows.Err()
}

func (e *ownEngine) commit(do func(*sql.Tx) error, after func()) error {
	w := write{do, after, make(chan error, 1)}
	e.writes <- w
	return <-w.done
}

func (e *ownEngine) commitAll() {
	for first := range e.writes {
		batch := []write{first}
		for range len(e.writes) { // this goroutine alone takes from it
			batch = append(batch, <-e.writes)
		}
		err := e.commitBatch(batch)
		for _, w := range batch {
			if err != nil && len(batch) > 1 { // one of them is to blame: each for itself
				w.finish(e.commitBatch([]write{w}))
			} else {
				w.finish(err)
			}
		}
	}
}

func (w write) finish(err error) {
	if err == nil && w.after != nil {
		w.after()
	}
	w.done <- err
}

func (e *ownEngine) commitBatch(batch []write) error {
	tx, err := e.db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, w := range batch {
		if err := w.do(tx); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (e *ownEngine) accept(_ context.Context, m message) error {
	t := turn{message: m}
	return e.commit(func(tx *sql.Tx) error {
		t.seq = 0
		err := tx.QueryRow(`INSERT INTO inbox(id, chat, n, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING seq`,
			m.id(), m.Chat, m.N, m.Text).Scan(&t.seq)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	}, func() {
		if t.seq != 0 { // a message that is known is accepted, and has its turn already
			e.push(t)
		}
	})
}

func (e *ownEngine) push(t turn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	queue, running := e.chats[t.Chat]
	e.chats[t.Chat] = append(queue, t)
	if !running {
		e.turns.Go(func() { e.serve(t.Chat) })
	}
}

func (e *ownEngine) serve(chat string) {
	for e.ctx.Err() == nil {
		e.mu.Lock()
		queue := e.chats[chat]
		if len(queue) == 0 {
			delete(e.chats, chat)
			e.mu.Unlock()
			return
		}
		e.chats[chat] = queue[1:]
		e.mu.Unlock()
		e.run(queue[0])
	}
}

func (e *ownEngine) run(t turn) {
	answer, err := e.hooks.model(e.ctx, t.message)
	if err != nil {
		return // only a stop cancels it here: the turn stays queued
	}
	err = e.commit(func(tx *sql.Tx) error {
		if _, err := tx.Exec(`INSERT INTO step(turn, n, result) VALUES (?, 0, ?)`, t.seq, answer); err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO outbox(turn, chat, body) VALUES (?, ?, ?)`, t.seq, t.Chat, answer); err != nil {
			return err
		}
		_, err := tx.Exec(`UPDATE inbox SET state = 'answered' WHERE seq = ?`, t.seq)
		return err
	}, nil)
	if err == nil {
		e.deliver(t)
	}
}

// deliver does not wait for the record of the delivery: a crash before it makes
// the delivery come again, as one before it was written would.
func (e *ownEngine) deliver(t turn) {
	e.hooks.reply(t.message)
	e.writes <- write{do: func(tx *sql.Tx) error {
		_, err := tx.Exec(`UPDATE outbox SET state = 'sent' WHERE turn = ?`, t.seq)
		return err
	}, done: make(chan error, 1)}
}

func (e *ownEngine) counts(ctx context.Context) (c counts, err error) {
	err = e.db.QueryRowContext(ctx, `SELECT count(*) FILTER (WHERE state = 'queued') + (SELECT count(*) FROM outbox WHERE state = 'due'),
		count(*) FILTER (WHERE state = 'answered'), count(*) FILTER (WHERE state = 'failed') FROM inbox`).Scan(&c.Pending, &c.Answered, &c.Failed)
	return c, err
}

// close stops in good order: no try is counted against what was running.
func (e *ownEngine) close() error {
	e.cancel()
	e.turns.Wait()
	err := e.commit(func(tx *sql.Tx) error {
		_, err := tx.Exec(`INSERT INTO clean VALUES (1)`)
		return err
	}, nil)
	close(e.writes)
	e.writer.Wait()
	return errors.Join(err, e.db.Close())
}
