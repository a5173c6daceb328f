package s6slots

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
)

// fingerprint tells one state of a profile's configuration files from another,
// without reading them: size, time of change and inode of each.
func fingerprint(spec supervise.Spec) string {
	home := homeOf(spec)
	if home == "" {
		return ""
	}
	var b strings.Builder
	for _, name := range []string{"config.yaml", ".env"} {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(home, name), &st) == nil {
			fmt.Fprintf(&b, "%d.%d.%d.%d", st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
		}
		b.WriteByte(';')
	}
	return b.String()
}

// RetryChanged starts every slot that is parked because its configuration is
// wrong and whose config.yaml or .env is another one since, and returns their
// names. It waits for nobody and is cheap enough for every second: one small
// file for each slot, two more for a parked one.
func (m *Manager) RetryChanged(ctx context.Context) ([]string, error) {
	names, err := m.Dir.Scan().Services()
	if err != nil {
		return nil, err
	}
	var retried []string
	var errs []error
	for _, name := range names {
		if ctx.Err() != nil || m.Dir.Stopping() {
			break
		}
		if !changedSince(m.dir(name)) {
			continue
		}
		ok, err := m.retry(ctx, name)
		errs = append(errs, err)
		if ok {
			retried = append(retried, name)
		}
	}
	return retried, errors.Join(errs...)
}

// changedSince says whether the slot in dir is parked for its configuration,
// and that is another one now than the one that its last run read.
func changedSince(dir string) bool {
	r := readRecord(dir)
	if r.State != supervise.Parked || r.Until != nil {
		return false
	}
	spec, err := ReadSpec(dir)
	return err == nil && spec.Kind == supervise.KindGateway && fingerprint(spec) != r.Config
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
	if err := changeRecord(dir, func(r *record) {
		r.State, r.Until, r.Reason, r.By = "", nil, "", m.By // the meter stays: nobody mended what it counts
	}); err != nil {
		return false, err
	}
	return true, s6.Send(dir, s6.UpStored)
}
