package s6slots

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
	"github.com/hermesgw/hermes/internal/unix"
)

// Retrier tries slots again that are parked because their configuration is
// wrong. It is for one goroutine.
type Retrier struct {
	manager *Manager
	calm    map[string]fileID // of the records that speak of no such parking
}

// fileID tells one record from the next: each is a new file.
type fileID struct {
	ino  uint64
	time unix.Timespec
}

// NewRetrier makes one that acts on behalf of m.By.
func NewRetrier(m *Manager) *Retrier { return &Retrier{m, map[string]fileID{}} }

// Look starts every slot that is parked because its configuration is wrong and
// whose config.yaml or .env is another one since, and returns their names. It
// waits for nobody and is cheap enough for every second: one stat for each slot.
func (r *Retrier) Look(ctx context.Context) ([]string, error) {
	names, err := r.manager.Dir.Scan().Services()
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(r.calm, func(name string, _ fileID) bool { return !slices.Contains(names, name) })
	var retried []string
	var errs []error
	for _, name := range names {
		if ctx.Err() != nil || r.manager.Dir.Stopping() {
			break
		}
		if !r.worthALook(name) || !changedSince(r.manager.dir(name)) {
			continue
		}
		ok, err := r.manager.retry(ctx, name)
		errs = append(errs, err)
		if ok {
			retried = append(retried, name)
		}
	}
	return retried, errors.Join(errs...)
}

// worthALook says whether the record of a slot may speak of a parking: it does,
// or it is not the one that was read.
func (r *Retrier) worthALook(name string) bool {
	dir := r.manager.dir(name)
	var st unix.Stat_t
	if unix.Lstat(filepath.Join(dir, slot.RecordFile), &st) != nil {
		return false // it has never run, or is gone
	}
	id := fileID{st.Ino, st.Mtim}
	if r.calm[name] == id {
		return false
	}
	if rec := slot.ReadRecord(dir); rec.State == supervise.Parked && rec.Until == nil {
		delete(r.calm, name)
		return true
	}
	r.calm[name] = id
	return false
}

// changedSince says whether the slot in dir is parked for its configuration,
// and that is another one now than the one that its last run read.
func changedSince(dir string) bool {
	r := slot.ReadRecord(dir)
	if r.State != supervise.Parked || r.Until != nil {
		return false
	}
	spec, err := slot.ReadSpec(dir)
	return err == nil && spec.Kind == supervise.KindGateway && slot.Fingerprint(spec) != r.Config
}

// retry leaves a slot on which a command is at work to that command, and one
// whose finish has not ended yet to the next look.
func (m *Manager) retry(ctx context.Context, name string) (bool, error) {
	unlock, err := m.serialize(ctx, name, "start", lockPoll)
	if err != nil {
		return false, nil
	}
	defer unlock()
	dir := m.dir(name)
	st, err := s6.ReadStatus(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && !st.Stopped() || !changedSince(dir) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	again := *m
	again.Why = "the configuration changed"
	again.ask(name, "start", "")
	if err := slot.ChangeRecord(dir, func(r *slot.Record) {
		r.State, r.Until, r.Reason, r.By = "", nil, "", m.By // the meter stays: nobody mended what it counts
	}); err != nil {
		return false, err
	}
	return true, s6.Send(dir, s6.UpStored)
}
