package dbosproof

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"modernc.org/sqlite"
)

// message is the N-th message of a chat, counted from 1.
type message struct {
	Chat string
	N    int
	Text string
}

func (m message) id() string { return fmt.Sprintf("%s-%06d", m.Chat, m.N) }

// hooks are the world around an engine: the model, and the user who is answered
// once the reply is committed.
type hooks struct {
	model func(context.Context, message) (string, error)
	reply func(message)
}

// counts say where the accepted messages are; one whose reply is not yet recorded
// as sent is pending.
type counts struct{ Pending, Answered, Failed int }

// engine is the way of a message from accepted to answered.
type engine interface {
	// accept returns when m is on disk. A chat's messages come one after the other.
	accept(ctx context.Context, m message) error
	counts(ctx context.Context) (counts, error)
	close() error
}

// The ways that are compared.
const (
	own    = "own"         // an inbox table and a dispatcher
	direct = "dbos-direct" // a workflow started at once, its turn in the chat kept by us
	naive  = "dbos-naive"  // the same, but what a crash left is not queued first
	queued = "dbos-queue"  // inbox and DBOS queue in one transaction, a partition for each chat
	none   = "none"        // an open database: the baseline of memory and CPU
)

// tries is how often a turn may take the process down with it.
const tries = 3

// setup describes an engine; poll is the pause of DBOS's own queue.
type setup struct {
	Kind  string
	Path  string
	Conns int
	Poll  time.Duration
}

func open(s setup, h hooks) (engine, error) {
	db, err := openSQLite(s.Path, "WAL", s.Conns)
	if err != nil {
		return nil, err
	}
	var e engine
	switch s.Kind {
	case own:
		e, err = openOwn(db, h)
	case none:
		e = idle{db}
	default:
		e, err = openDBOS(s, db, h)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return e, nil
}

// idle is the engine that does nothing.
type idle struct{ *sql.DB }

func (idle) accept(context.Context, message) error  { return errors.New("cannot accept: no engine") }
func (idle) counts(context.Context) (counts, error) { return counts{}, nil }
func (e idle) close() error                         { return e.Close() }

// dsn is what the store of the product uses, with the journal as a parameter.
func dsn(path, journal string) string {
	q := url.Values{"_txlock": {"immediate"}}
	for _, pragma := range []string{"busy_timeout(5000)", "foreign_keys(1)", "journal_mode(" + journal + ")", "synchronous(FULL)", "cache_size(-512)", "journal_size_limit(1048576)"} {
		q.Add("_pragma", pragma)
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

// openSQLite opens path with conns connections; 0 leaves the number to the driver.
func openSQLite(path, journal string, conns int) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn(path, journal))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(max(conns, 2))
	return db, db.Ping()
}

// countCommits counts the write transactions of every connection opened from now
// on. With the write-ahead log and synchronous=FULL each one that changed
// something is one fsync; those of the checkpoints come on top.
func countCommits() *atomic.Int64 {
	var n atomic.Int64
	sqlite.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, _ string) error {
		hooker, ok := conn.(sqlite.HookRegisterer)
		if !ok {
			return errors.New("the driver has no commit hook")
		}
		hooker.RegisterCommitHook(func() int32 { n.Add(1); return 0 })
		return nil
	})
	return &n
}

func database(t *testing.T) string { return filepath.Join(t.TempDir(), "proof.db") }

func echo(_ context.Context, m message) (string, error) { return strings.ToUpper(m.Text), nil }
