package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/admin"
	"github.com/hermesgw/hermes/internal/boot"
	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/doctor"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/filesystem"
	"github.com/hermesgw/hermes/internal/lease"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
)

const (
	// dialTimeout is ample for a port of this machine.
	dialTimeout = 500 * time.Millisecond
	// databaseTimeout bounds the question to a gateway; its own check gives up
	// before.
	databaseTimeout = 15 * time.Second
	// lockTimeout bounds the other process of the test of locks.
	lockTimeout = 10 * time.Second
)

// Doctor examines the profiles and everything around them.
func (s *Supervision) Doctor(ctx context.Context, profiles []profile.Profile) ([]doctor.Finding, error) {
	everyone, err := profile.List(s.Home)
	if err != nil {
		return nil, err
	}
	o := doctor.Options{
		Home: s.Home, Profiles: profiles, Everyone: everyone, Found: s.Found,
		Environ: s.environ(), Owns: s.OwnsEnvironment,
		Internal: []string{supervise.MarkVar, slot.EnvNotify, slot.EnvStarting, slot.EnvLastWords, runmode.EnvSentinel, DeadlockVar},
		Gateways: s.gateways(ctx, everyone),
	}
	o.Report, o.ReportError = s.Report(ctx, true)
	o.Probes = doctor.Probes{
		Filesystem: filesystem.Of,
		Locks:      s.tryLocks,
		Listens:    listens,
		Database: func(ctx context.Context, p profile.Profile) doctor.Database {
			status, answers := o.Gateways[p.Name]
			return s.checkDatabase(ctx, p, status, answers)
		},
	}
	if fi, err := os.Stat(s.binary); err == nil {
		o.Probes.Binary = fi.ModTime()
	}
	var findings []doctor.Finding
	err = s.OnVolume(func() error {
		findings = doctor.Examine(ctx, o)
		return nil
	})
	return findings, err
}

// environ is the container's environment where there is one, also for a command
// that came without it.
func (s *Supervision) environ() []string {
	if s.Found.Tree == runmode.TreeOurs {
		if env, err := boot.LoadEnvironment(s.Found.Dir.Environment()); err == nil {
			return env
		}
	}
	return os.Environ()
}

// MainServices is what the gateway of p tells of all services: those of the
// profile that the container's environment speaks of do, so that a scraper finds
// them in one place.
func (s *Supervision) MainServices(p profile.Profile) supervise.Lister {
	if !s.OwnsEnvironment(p) {
		return nil
	}
	return s.Lister()
}

// gateways asks all profiles at once who answers.
func (s *Supervision) gateways(ctx context.Context, profiles []profile.Profile) map[string]control.Status {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found := map[string]control.Status{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range profiles {
		wg.Go(func() {
			status, err := s.dial(p).Status(ctx)
			if err == nil && status.Home == p.Home {
				mu.Lock()
				defer mu.Unlock()
				found[p.Name] = status
			}
		})
	}
	wg.Wait()
	return found
}

func (s *Supervision) dial(p profile.Profile) *control.Client {
	return control.Dial(control.SocketPath(string(s.Found.Dir), p.Name))
}

// checkDatabase asks the gateway that has the database open; only where there
// is none, and under the lease, it is opened here.
func (s *Supervision) checkDatabase(ctx context.Context, p profile.Profile, status control.Status, answers bool) doctor.Database {
	switch {
	case answers && status.Holder != nil:
		return doctor.Database{Skipped: "it is open on " + status.Holder.Host + "; run doctor there"}
	case answers:
		ctx, cancel := context.WithTimeout(ctx, databaseTimeout)
		defer cancel()
		db := outcome(s.dial(p).CheckDatabase(ctx))
		db.Storage, db.NotAsked = s.askStorage(ctx, p)
		return db
	}
	path := filepath.Join(p.Home, store.FileName)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return doctor.Database{Skipped: "there is none yet"}
	}
	host, _ := os.Hostname() // for people; "" names nobody
	l, err := lease.TryAcquire(p.Home, lease.Holder{Host: host, PID: os.Getpid(), Since: time.Now().UTC(), RunDir: string(s.Found.Dir)})
	var held *lease.HeldError
	if errors.As(err, &held) {
		return doctor.Database{Skipped: fmt.Sprintf("it is open on %s; run doctor there", held.Holder.Host)}
	}
	if err != nil {
		return doctor.Database{Unsure: err.Error()}
	}
	defer l.Release()
	db := outcome(store.Check(ctx, path, true))
	db.NotAsked = doctor.ErrNoGateway
	return db
}

// askStorage asks the gateway of p how its database stands.
func (s *Supervision) askStorage(ctx context.Context, p profile.Profile) (*doctor.Storage, error) {
	door := &Operator{client: s.dial(p).HTTPClient()}
	var a admin.Storage
	if err := door.Call(ctx, http.MethodGet, "storage", nil, &a); err != nil {
		return nil, err
	}
	st := &doctor.Storage{Bytes: a.Bytes, MaxBytes: a.MaxBytes, Prunable: a.Prunable, Dead: a.DeadMessages + a.DeadDeliveries}
	if a.OldestDead != nil {
		st.OldestDead = *a.OldestDead
	}
	return st, nil
}

// outcome keeps what is wrong apart from what could not be told.
func outcome(problems []string, err error) doctor.Database {
	switch {
	case errors.Is(err, store.ErrNewer):
		return doctor.Database{Newer: err.Error()}
	case err != nil && exitcode.Of(err) == exitcode.Config:
		return doctor.Database{Problems: []string{err.Error()}}
	case err != nil:
		return doctor.Database{Unsure: err.Error()}
	}
	return doctor.Database{Problems: problems}
}

// tryLocks has another process of ours try a lock that this one holds.
func (s *Supervision) tryLocks(ctx context.Context, dir string) error {
	return lease.Probe(dir, func(path string) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, lockTimeout)
		defer cancel()
		out, err := exec.CommandContext(ctx, s.binary, "boot", "try-lock", path).Output()
		switch answer := strings.TrimSpace(string(out)); {
		case err != nil:
			return false, fmt.Errorf("cannot ask another process: %w", err)
		case answer != LockGot && answer != LockHeld:
			return false, fmt.Errorf("another process says %q", answer)
		default:
			return answer == LockGot, nil
		}
	})
}

// What the other process of tryLocks says.
const (
	LockGot  = "got"
	LockHeld = "held"
)

// TryLock is that process: it says whether a lock could be had.
func TryLock(path string) (string, error) {
	got, err := lease.Try(path)
	if got {
		return LockGot, err
	}
	return LockHeld, err
}

// listens says whether a connection is accepted.
func listens(ctx context.Context, address string) bool {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
