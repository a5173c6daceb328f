package store

import (
	"context"
	"database/sql"
	"sync"
)

// checkpointer writes the log back into the database beside the writer. SQLite
// would do it inside of a commit, and everybody who waits for that one would wait
// for two more flushes of the disk. A passive checkpoint takes no lock that a
// writer needs (sqlite.org/pragma.html#pragma_wal_checkpoint); with the other
// journal it does nothing.
type checkpointer struct {
	wanted chan struct{}
	busy   sync.Mutex // held while one is under way: SQLite has room for one
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newCheckpointer(db *sql.DB) *checkpointer {
	ctx, cancel := context.WithCancel(context.Background()) // ended by close
	c := &checkpointer{wanted: make(chan struct{}, 1), cancel: cancel}
	c.wg.Go(func() {
		for {
			select {
			case <-c.wanted:
			case <-ctx.Done():
				return
			}
			// One that fails is made up for by the next, or by the last close.
			c.busy.Lock()
			_, _ = db.ExecContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`)
			c.busy.Unlock()
		}
	})
	return c
}

// soon asks for a checkpoint; it does not block.
func (c *checkpointer) soon() {
	select {
	case c.wanted <- struct{}{}:
	default:
	}
}

func (c *checkpointer) close() error {
	c.cancel()
	c.wg.Wait()
	return nil
}
