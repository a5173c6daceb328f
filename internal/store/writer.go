package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
)

// maxBatch bounds the jobs of one commit, so that the first does not wait for
// ever longer ones to be put beside it.
const maxBatch = 128

// checkpointEvery is after how many commits the write-ahead log is written back
// into the database: some hundred KB at a time.
const checkpointEvery = 200

// logLimit is the size of the write-ahead log, in bytes, at which the writer
// begins it anew. Where nobody pauses, the checkpointer beside it never reaches
// the end, and a log begins anew only from there: it would grow as long as the
// load lasts, and the shared memory that is its index with it.
const logLimit = 16 << 20

// restartPatience is how long beginning the log anew waits for readers, in
// milliseconds. Ours are done in a few; a backup may read for minutes.
const restartPatience = 200

// errClosed is what a job gets that comes after Close.
var errClosed = errors.New("the database is closed")

// durability says what a job needs of the commit that carries it.
type durability int

const (
	// kept survives the end of the process, however it came, but perhaps not that
	// of the machine: the write reached the kernel.
	kept durability = iota
	// synced survives a power cut: the write reached the disk.
	synced
)

// job is one unit of writing: it is committed whole or not at all.
type job struct {
	need  durability
	do    func(tx *writes) error
	after func() // called in the order of the commits, before the next begins; may be nil
	done  chan error
}

// writer commits jobs in the order they came, several in one transaction when
// they come together: one flush of the disk then serves them all.
type writer struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	sync  durability // that the connection is set to

	jobs    chan *job
	wg      sync.WaitGroup
	commits int
	back    *checkpointer
	log     string // the path of the log; where the journal is another, there is none
	restart int64  // the size of the log at which it is to begin anew

	mu     sync.RWMutex
	closed bool
}

func newWriter(ctx context.Context, db *sql.DB, path string, back *checkpointer) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{conn: conn, stmts: map[string]*sql.Stmt{}, sync: synced, jobs: make(chan *job, maxBatch), back: back, log: path + "-wal", restart: logLimit}
	w.wg.Go(w.run)
	return w, nil
}

// submit waits until j is committed. A ctx that ends before j has its place takes
// it back; later it does not: what a job writes to must be there when it runs.
func (w *writer) submit(ctx context.Context, j *job) error {
	if err := w.enqueue(ctx, j); err != nil {
		return err
	}
	return <-j.done
}

// submitOrLeave is submit for a job that keeps nothing of its caller: where ctx
// ends first, the caller goes and the job is done all the same.
func (w *writer) submitOrLeave(ctx context.Context, j *job) error {
	if err := w.enqueue(ctx, j); err != nil {
		return err
	}
	select {
	case err := <-j.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *writer) enqueue(ctx context.Context, j *job) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.done = make(chan error, 1)
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return errClosed
	}
	select {
	case w.jobs <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the writer after the jobs it has.
func (w *writer) close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	close(w.jobs)
	w.mu.Unlock()
	w.wg.Wait()
	for _, s := range w.stmts {
		s.Close()
	}
	return w.conn.Close()
}

func (w *writer) run() {
	for first := range w.jobs {
		batch := []*job{first}
		for len(batch) < maxBatch {
			j, ok := w.another()
			if !ok {
				break
			}
			batch = append(batch, j)
		}
		w.commit(batch)
		w.boundLog()
	}
}

// boundLog begins the log anew when it has reached its limit. A reader that stays
// (a backup) is left in peace; the next try is after as much again.
func (w *writer) boundLog() {
	log, err := os.Stat(w.log)
	if err != nil || log.Size() < w.restart || !w.back.busy.TryLock() {
		return
	}
	defer w.back.busy.Unlock()
	w.restart = log.Size() + logLimit
	// What fails here costs room on the disk, which the next try gives back.
	for _, pragma := range []string{
		fmt.Sprintf(`PRAGMA busy_timeout = %d`, restartPatience),
		`PRAGMA wal_checkpoint(TRUNCATE)`,
		fmt.Sprintf(`PRAGMA busy_timeout = %d`, busyTimeout),
	} {
		_, _ = w.conn.ExecContext(context.Background(), pragma)
	}
	if log, err := os.Stat(w.log); err == nil && log.Size() < logLimit {
		w.restart = logLimit
	}
}

// another takes a job that is there already.
func (w *writer) another() (*job, bool) {
	select {
	case j, ok := <-w.jobs:
		return j, ok
	default:
		return nil, false
	}
}

// commit commits the jobs together. When one of them cannot be done, each is
// tried alone, so that it fails nobody else.
func (w *writer) commit(batch []*job) {
	err := w.transact(batch)
	if err == nil || len(batch) == 1 {
		for _, j := range batch {
			j.finish(err)
		}
		return
	}
	for _, j := range batch {
		j.finish(w.transact([]*job{j}))
	}
}

func (j *job) finish(err error) {
	if err == nil && j.after != nil {
		j.after()
	}
	j.done <- err
}

func (w *writer) transact(batch []*job) (err error) {
	need := kept
	for _, j := range batch {
		need = max(need, j.need)
	}
	if err := w.setSync(need); err != nil {
		return err
	}
	tx := &writes{w}
	if _, err := tx.exec(`BEGIN IMMEDIATE`); err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("a bug in a write: %v", p)
		}
		if err != nil {
			_, _ = tx.exec(`ROLLBACK`) // SQLite may have done it already
		}
	}()
	for _, j := range batch {
		if err := j.do(tx); err != nil {
			return err
		}
	}
	if _, err = tx.exec(`COMMIT`); err != nil {
		return err
	}
	if w.commits++; w.commits%checkpointEvery == 0 {
		w.back.soon()
	}
	return nil
}

// setSync changes how a commit ends: with the write-ahead log, NORMAL leaves the
// flush to the next commit that needs one (sqlite.org/pragma.html#pragma_synchronous).
func (w *writer) setSync(need durability) error {
	if w.sync == need {
		return nil
	}
	pragma := `PRAGMA synchronous = FULL`
	if need == kept {
		pragma = `PRAGMA synchronous = NORMAL`
	}
	if _, err := w.conn.ExecContext(context.Background(), pragma); err != nil {
		return err
	}
	w.sync = need
	return nil
}

// writes is what a job may use. Statements are prepared once. They run without
// a context: a transaction that others share is not one caller's to interrupt.
type writes struct{ w *writer }

func (t *writes) stmt(query string) (*sql.Stmt, error) {
	if s, ok := t.w.stmts[query]; ok {
		return s, nil
	}
	s, err := t.w.conn.PrepareContext(context.Background(), query)
	if err == nil {
		t.w.stmts[query] = s
	}
	return s, err
}

func (t *writes) exec(query string, args ...any) (sql.Result, error) {
	s, err := t.stmt(query)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(context.Background(), args...)
}

// row scans the one row of query; sql.ErrNoRows if there is none.
func (t *writes) row(query string, args []any, dest ...any) error {
	s, err := t.stmt(query)
	if err != nil {
		return err
	}
	return s.QueryRowContext(context.Background(), args...).Scan(dest...)
}
