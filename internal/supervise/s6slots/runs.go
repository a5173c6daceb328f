package s6slots

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/hermesgw/hermes/internal/guard"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/smallfile"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
	"github.com/hermesgw/hermes/internal/unix"
)

// Runs lists, again and again, the gateways of a tree that run and ought to. It
// is not safe for concurrent use.
type Runs struct {
	dir   rundir.Dir
	files *smallfile.Cache
	known map[string]guard.Run // by slot; what was learnt of its present run
}

// NewRuns returns the lister of the tree in dir, which reads through files.
func NewRuns(dir rundir.Dir, files *smallfile.Cache) *Runs {
	return &Runs{dir: dir, files: files, known: map[string]guard.Run{}}
}

// List returns the present runs, sorted by slot. While nothing changes
// one slot costs one look at a small file.
func (rs *Runs) List() ([]guard.Run, error) {
	names, err := rs.dir.Scan().Services()
	if err != nil {
		return nil, err
	}
	known := make(map[string]guard.Run, len(names))
	runs := make([]guard.Run, 0, len(names))
	for _, name := range names {
		if r, ok := rs.run(name); ok {
			known[name] = r
			runs = append(runs, r)
		}
	}
	rs.known = known
	return runs, nil
}

// run says what a slot runs and whether it ought to serve: it is meant to be
// up, nobody paused it, and it is the service already and not the entry that
// waits out a pause.
func (rs *Runs) run(name string) (guard.Run, bool) {
	profileName, ok := supervise.ProfileOf(name)
	if !ok {
		return guard.Run{}, false
	}
	dir := rs.dir.Scan().Dir(name)
	status, err := s6.ReadStatusIn(rs.files, dir)
	if err != nil || !status.Running() || !status.WantUp || status.Paused {
		return guard.Run{}, false
	}
	if r, ok := rs.known[name]; ok && r.Process.PID == status.PID && status.Since.Equal(r.Since) {
		return r, true
	}
	if slot.ReadRecord(dir).State != "" { // it pauses: run serves the pause
		return guard.Run{}, false
	}
	spec, err := slot.ReadSpec(dir)
	if err != nil {
		return guard.Run{}, false // none of ours
	}
	p, err := proc.Read(status.PID)
	if err != nil {
		return guard.Run{}, false
	}
	return guard.Run{
		Slot: name, Profile: profileName, Since: status.Since, StopTimeout: spec.StopTimeout,
		Process: proc.Process{PID: p.PID, Start: p.Start},
	}, true
}

// Condemn notes why the present run of a slot is about to be ended, where its
// finish looks for the words that a service died with.
func (m *Manager) Condemn(name, reason string) error {
	spec, err := slot.ReadSpec(m.dir(name))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(slot.LastWordsPath(spec), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("cannot note why %s is ended: %w", name, err)
	}
	_, err = f.WriteString(reason + "\n")
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// WantedProfiles tells for each profile that has a slot whether that is wanted
// up: one that is parked is, and so is one whose supervisor has not come up yet.
func (m *Manager) WantedProfiles() (map[string]bool, error) {
	names, err := m.Dir.Scan().Services()
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, name := range names {
		if profileName, ok := supervise.ProfileOf(name); ok && m.Registered(name) {
			wanted[profileName] = m.wantedUp(name)
		}
	}
	return wanted, nil
}

func (m *Manager) wantedUp(name string) bool {
	if _, err := s6.ReadStatus(m.dir(name)); err != nil {
		return !exists(filepath.Join(m.dir(name), "down")) // which its supervisor will read
	}
	return m.Want(name) == supervise.WantUp
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
