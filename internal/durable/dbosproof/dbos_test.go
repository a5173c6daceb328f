package dbosproof

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	_ "github.com/dbos-inc/dbos-transact-golang/dbos/driver/sqlite" // DBOS reads the driver's error codes
)

const queueName = "turns"

func config(db *sql.DB, version string) dbos.Config {
	return dbos.Config{
		AppName: "proof", SQLiteSystemDB: db, ApplicationVersion: version, ExecutorID: "one",
		Logger: slog.New(slog.DiscardHandler),
	}
}

// dbosEngine is the way of a message on DBOS. Started directly a turn is a
// workflow of three commits (insert, step, outcome) and the gate keeps the order;
// through the queue it is what the drawing has: inbox row and workflow in one
// transaction, the outbox row in a transaction that is a step.
type dbosEngine struct {
	setup
	hooks hooks
	db    *sql.DB
	ctx   dbos.Context
	gate  *gate
	known map[string]bool // what the database had at the start
	queue dbos.Queue
	ds    *dbos.DataSource
}

func openDBOS(s setup, db *sql.DB, h hooks) (*dbosEngine, error) {
	ctx, err := dbos.NewContext(context.Background(), config(db, "1"))
	if err != nil {
		return nil, err
	}
	e := &dbosEngine{setup: s, hooks: h, db: db, ctx: ctx, gate: newGate(), known: map[string]bool{}}
	turn := e.turn
	if s.Kind == queued {
		turn = e.queuedTurn
	}
	dbos.RegisterWorkflow(ctx, turn, dbos.WithWorkflowName("turn"), dbos.WithMaxRecoveryAttempts(tries-1))
	if err := errors.Join(e.prepareQueue(), e.loadKnown()); err != nil {
		return nil, err
	}
	return e, dbos.Launch(ctx)
}

func (e *dbosEngine) prepareQueue() (err error) {
	if e.Kind != queued {
		return nil
	}
	if _, err := e.db.Exec(`CREATE TABLE IF NOT EXISTS inbox(seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, chat TEXT NOT NULL, body TEXT NOT NULL);
		CREATE TABLE IF NOT EXISTS outbox(id TEXT PRIMARY KEY, chat TEXT NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'due')`); err != nil {
		return err
	}
	if e.ds, err = dbos.NewDataSource(e.ctx, e.db); err != nil {
		return err
	}
	e.queue, err = dbos.RegisterQueue(e.ctx, queueName, dbos.WithPartitionConcurrency(1), dbos.WithQueueBasePollingInterval(e.Poll))
	return err
}

// loadKnown puts what a crash left before anything new: DBOS does not.
func (e *dbosEngine) loadKnown() error {
	list, err := dbos.ListWorkflows(e.ctx, dbos.WithFilterLoadInput(false), dbos.WithFilterLoadOutput(false))
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b dbos.WorkflowStatus) int { return strings.Compare(a.ID, b.ID) })
	for _, w := range list {
		e.known[w.ID] = true
		// Nobody tells when a turn is set aside instead of run: leave it out here.
		if open := w.Status == dbos.WorkflowStatusPending || w.Status == dbos.WorkflowStatusEnqueued; open && w.Attempts < tries && e.Kind == direct {
			e.gate.join(chatOf(w.ID), w.ID)
		}
	}
	return nil
}

func chatOf(id string) string { return id[:strings.LastIndexByte(id, '-')] }

func (e *dbosEngine) accept(ctx context.Context, m message) error {
	if e.known[m.id()] {
		return nil
	}
	if e.Kind == queued {
		return e.enqueue(ctx, m)
	}
	e.gate.join(m.Chat, m.id())
	_, err := dbos.RunWorkflow(e.ctx, e.turn, m, dbos.WithWorkflowID(m.id()))
	return err
}

func (e *dbosEngine) enqueue(ctx context.Context, m message) error {
	tx, err := e.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `INSERT INTO inbox(id, chat, body) VALUES (?, ?, ?)`, m.id(), m.Chat, m.Text); err != nil {
		return err
	}
	if _, err := dbos.Enqueue[string](e.ctx, queueName, "turn", m, dbos.WithEnqueueWorkflowID(m.id()),
		dbos.WithEnqueueQueuePartitionKey(m.Chat), dbos.WithEnqueueTransaction(tx)); err != nil {
		return err
	}
	return tx.Commit()
}

func (e *dbosEngine) turn(ctx dbos.Context, m message) (string, error) {
	if err := e.gate.wait(ctx, m.Chat, m.id()); err != nil {
		return "", err
	}
	answer, err := dbos.RunAsStep(ctx, func(ctx context.Context) (string, error) { return e.hooks.model(ctx, m) }, dbos.WithStepName("model"))
	if err != nil {
		return "", err
	}
	e.hooks.reply(m)
	e.gate.leave(m.Chat)
	return answer, nil
}

func (e *dbosEngine) queuedTurn(ctx dbos.Context, m message) (string, error) {
	answer, err := dbos.RunAsStep(ctx, func(ctx context.Context) (string, error) { return e.hooks.model(ctx, m) }, dbos.WithStepName("model"))
	if err != nil {
		return "", err
	}
	_, err = dbos.RunAsTransaction(ctx, e.ds, func(ctx context.Context, tx dbos.Tx) (string, error) {
		_, err := tx.Exec(ctx, `INSERT INTO outbox(id, chat, body) VALUES ($1, $2, $3)`, m.id(), m.Chat, answer)
		return "", err
	}, dbos.WithStepName("outbox"))
	if err != nil {
		return "", err
	}
	e.hooks.reply(m)
	return answer, nil
}

func (e *dbosEngine) counts(context.Context) (counts, error) {
	list, err := dbos.ListWorkflows(e.ctx, dbos.WithFilterLoadInput(false), dbos.WithFilterLoadOutput(false))
	var c counts
	for _, w := range list {
		switch w.Status {
		case dbos.WorkflowStatusPending, dbos.WorkflowStatusEnqueued:
			c.Pending++
		case dbos.WorkflowStatusSuccess:
			c.Answered++
		default:
			c.Failed++
		}
	}
	return c, err
}

func (e *dbosEngine) close() error {
	return errors.Join(dbos.Shutdown(e.ctx, 5*time.Second), e.db.Close())
}

// gate lets the turns of a chat pass one at a time, in the order in which they
// joined. A turn that never joined (nobody queued it) joins at the end.
type gate struct {
	mu    sync.Mutex
	chats map[string][]*place
}

type place struct {
	id   string
	turn chan struct{} // closed when it is first
}

func newGate() *gate { return &gate{chats: map[string][]*place{}} }

func (g *gate) join(chat, id string) *place {
	g.mu.Lock()
	defer g.mu.Unlock()
	line := g.chats[chat]
	for _, p := range line {
		if p.id == id {
			return p
		}
	}
	p := &place{id, make(chan struct{})}
	if len(line) == 0 {
		close(p.turn)
	}
	g.chats[chat] = append(line, p)
	return p
}

func (g *gate) wait(ctx context.Context, chat, id string) error {
	select {
	case <-g.join(chat, id).turn:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot wait for the turn of %q: %w", id, context.Cause(ctx))
	}
}

func (g *gate) leave(chat string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.chats[chat] = g.chats[chat][1:]
	if line := g.chats[chat]; len(line) > 0 {
		close(line[0].turn)
	} else {
		delete(g.chats, chat)
	}
}
