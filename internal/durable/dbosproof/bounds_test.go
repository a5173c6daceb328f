package dbosproof

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
)

func launch(t *testing.T, db *sql.DB, version string, register func(dbos.Context)) dbos.Context {
	t.Helper()
	ctx, err := dbos.NewContext(t.Context(), config(db, version))
	if err != nil {
		t.Fatal(err)
	}
	if register != nil {
		register(ctx)
	}
	if err := dbos.Launch(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dbos.Shutdown(ctx, 5*time.Second) })
	return ctx
}

func opened(t *testing.T, path, journal string, conns int) *sql.DB {
	t.Helper()
	db, err := openSQLite(path, journal, conns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// (a) DBOS leaves the connections of our handle as we made them, with each of the
// journals that the store uses.
func TestEveryConnectionHasOurPragmas(t *testing.T) {
	for _, journal := range []string{"wal", "truncate"} {
		t.Run(journal, func(t *testing.T) {
			const conns = 6
			db := opened(t, database(t), journal, conns)
			ctx := launch(t, db, "1", func(ctx dbos.Context) {
				dbos.RegisterWorkflow(ctx, func(dbos.Context, int) (int, error) { return 0, nil }, dbos.WithWorkflowName("w"))
			})
			if _, err := dbos.RegisterQueue(ctx, "q"); err != nil {
				t.Fatal(err)
			}
			for i := range conns { // held until the end: no connection is looked at twice
				c, err := db.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": journal, "busy_timeout": "5000", "foreign_keys": "1", "cache_size": "-512"} {
					var got string
					if err := c.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
						t.Errorf("connection %d: %s is %q, want %q (%v)", i, pragma, got, want, err)
					}
				}
			}
		})
	}
}

// (a) Given a URL DBOS decides on the journal itself, against what the URL says.
func TestURLForcesWAL(t *testing.T) {
	path := database(t)
	c := config(nil, "1")
	c.DatabaseURL = "sqlite:file:" + path + "?_pragma=journal_mode(TRUNCATE)"
	ctx, err := dbos.NewContext(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer dbos.Shutdown(ctx, 5*time.Second)
	if _, err := os.Stat(path + "-wal"); err != nil {
		t.Errorf("it did not: %v", err)
	}
}

func rows(t *testing.T, db *sql.DB, query string) string {
	t.Helper()
	list, err := db.Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	var all []string
	for list.Next() {
		var a, b string
		if err := list.Scan(&a, &b); err != nil {
			t.Fatal(err)
		}
		all = append(all, a+" "+b)
	}
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, ", ")
}

// (c) A shutdown in the middle of a turn records no failure, and the same turn
// goes on after the restart. The call that was in flight is made again, even
// when it succeeds during the shutdown: DBOS throws that answer away, which is
// why a stop has to drain first.
func TestShutdownInTheMiddleOfATurn(t *testing.T) {
	for _, heeds := range []bool{true, false} {
		t.Run(fmt.Sprintf("the call heeds its context: %v", heeds), func(t *testing.T) {
			path := database(t)
			s := &steps{made: map[string]int{}}
			began := make(chan struct{}, 1)
			first := true
			var failed []error
			turn := func(ctx dbos.Context, _ int) (string, error) {
				if _, err := dbos.RunAsStep(ctx, func(context.Context) (string, error) { s.add("history"); return "", nil }, dbos.WithStepName("history")); err != nil {
					return "", err
				}
				answer, err := dbos.RunAsStep(ctx, func(ctx context.Context) (string, error) {
					s.add("model")
					if !first {
						return "answer", nil
					}
					began <- struct{}{}
					<-ctx.Done()
					if heeds {
						return "", context.Cause(ctx)
					}
					return "answer", nil
				}, dbos.WithStepName("model"))
				if err != nil {
					failed = append(failed, err)
					return "", err
				}
				s.add("send")
				return answer, nil
			}
			register := func(ctx dbos.Context) { dbos.RegisterWorkflow(ctx, turn, dbos.WithWorkflowName("turn")) }
			db := opened(t, path, "WAL", 4)
			ctx := launch(t, db, "1", register)
			if _, err := dbos.RunWorkflow(ctx, turn, 1, dbos.WithWorkflowID("a")); err != nil {
				t.Fatal(err)
			}
			<-began
			if err := dbos.Shutdown(ctx, 10*time.Second); err != nil {
				t.Fatal(err)
			}
			if len(failed) != 1 { // the workflow sees the stop as the failure of its step: it must not answer with it
				t.Errorf("the turn saw %v", failed)
			}
			if db.Ping() == nil {
				t.Error("Shutdown leaves our handle open: the record can be corrected")
			}
			db = opened(t, path, "WAL", 4)
			if got := rows(t, db, `SELECT workflow_uuid, status FROM workflow_status`); got != "a PENDING" {
				t.Errorf("after the shutdown: %s", got)
			}
			if got := rows(t, db, `SELECT function_name, ifnull(error, '') FROM operation_outputs`); got != "history " {
				t.Errorf("steps after the shutdown: %q", got)
			}
			first = false
			ctx = launch(t, db, "1", register)
			h, err := dbos.RetrieveWorkflow[string](ctx, "a")
			if err != nil {
				t.Fatal(err)
			}
			if answer, err := h.GetResult(dbos.WithHandlePollingInterval(5 * time.Millisecond)); err != nil || answer != "answer" {
				t.Errorf("after the restart: %q %v", answer, err)
			}
			if s.made["history"] != 1 || s.made["model"] != 2 || s.made["send"] != 1 {
				t.Errorf("steps made: %v", s.made)
			}
		})
	}
}

// strandedUnderAnotherVersion: a launch recovers its own version only, and has
// done so when it returns.
func strandedUnderAnotherVersion(t *testing.T, path string) {
	t.Helper()
	db := opened(t, path, "WAL", 4)
	ctx := launch(t, db, "2", nil)
	if got := rows(t, db, `SELECT status, count(*) FROM workflow_status GROUP BY 1`); got != fmt.Sprintf("PENDING %d", versionTurns) {
		t.Errorf("under another version: %s", got)
	}
	if err := dbos.Shutdown(ctx, 5*time.Second); err != nil {
		t.Fatal(err)
	}
}

// (g) Variables in the environment do override what we configure: version and
// executor decide what is recovered, so a stray one strands every pending turn.
// Taking them out of the environment first is what helps.
func TestEnvironmentOverridesTheConfiguration(t *testing.T) {
	for name, read := range map[string]func(dbos.Context) string{
		"DBOS__APPVERSION": dbos.Context.GetApplicationVersion,
		"DBOS__VMID":       dbos.Context.GetExecutorID,
		"DBOS__APPID":      dbos.Context.GetApplicationID,
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "stray")
			if got := read(contextOf(t)); got != "stray" {
				t.Errorf("%s no longer overrides (%q): the record can be corrected", name, got)
			}
			if err := os.Unsetenv(name); err != nil { // t.Setenv puts back what was there
				t.Fatal(err)
			}
			if got := read(contextOf(t)); got == "stray" {
				t.Errorf("%s is still heard when it is gone", name)
			}
		})
	}
}

func contextOf(t *testing.T) dbos.Context {
	t.Helper()
	ctx, err := dbos.NewContext(t.Context(), config(opened(t, filepath.Join(t.TempDir(), "e.db"), "WAL", 2), "ours"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dbos.Shutdown(ctx, 5*time.Second) })
	return ctx
}
