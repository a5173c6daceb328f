// Package rundir knows the layout of the run directory (sockets, scan
// directory, boot state; never on the data volume), the mark that boot leaves
// in it, and how any hermes process finds the one that is live. It starts no
// service; s6slots does.
//
//	found := rundir.Find(rundir.Options{Lookup: os.LookupEnv})
//	if found.Tree == runmode.TreeOurs { fmt.Println(found.Dir.Scan()) }
package rundir

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/smallfile"
)

// EnvVar names the variable that chooses the run directory.
const EnvVar = "HERMES_RUN_DIR"

// Dir is a run directory.
type Dir string

// Scan is the s6 scan directory.
func (d Dir) Scan() s6.Scandir { return s6.Scandir(filepath.Join(string(d), "service")) }

// Environment holds the container's environment, one file per variable.
func (d Dir) Environment() string {
	return filepath.Join(string(d), "s6", "container_environment")
}

// Hermes holds the control sockets and the boot state; mode 0700.
func (d Dir) Hermes() string { return filepath.Join(string(d), "hermes") }

// StopFIFO is where the signal hooks of s6-svscan reach the wrapper of the
// container's main program.
func (d Dir) StopFIFO() string { return filepath.Join(d.Hermes(), "stop") }

// ExitCode holds the exit code of the container, decimal, written once.
func (d Dir) ExitCode() string { return filepath.Join(d.Hermes(), "exitcode") }

// StoppingFlag exists from the moment the container stops: nothing is
// registered or started any more.
func (d Dir) StoppingFlag() string { return filepath.Join(d.Hermes(), "stopping") }

// Stacks is the file into which the gateway of a slot writes its stacks when it
// crashes.
func (d Dir) Stacks(slot string) string { return filepath.Join(d.Hermes(), slot+".stacks") }

// Files reads small files of the run directory. What was in them the processes of
// the tree keep for one another.
func (d Dir) Files() *smallfile.Cache {
	return smallfile.KeptIn(filepath.Join(d.Hermes(), "seen"), smallfile.In(string(d)))
}

// Stopping says whether the container is on its way down.
func (d Dir) Stopping() bool {
	_, err := os.Lstat(d.StoppingFlag())
	return err == nil
}

func (d Dir) markPath() string { return filepath.Join(d.Hermes(), "tree.json") }

// Mark is what boot leaves in the run directory: this tree is ours, and whose
// it is.
type Mark struct {
	Schema int    `json:"schema"`  // 1
	BootID string `json:"boot_id"` // random, new with every boot
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Groups []int  `json:"groups"`
	Home   string `json:"home"` // data directory
	// Profile is the one that the container's environment speaks of: its
	// credentials and ports are for this profile's slot alone.
	Profile string    `json:"profile"`
	Started time.Time `json:"started"`
	// ScannerPID and ScannerStart (proc.Process.Start) name the tree's
	// s6-svscan: who may not open its control FIFO tells by them whether it
	// lives. 0 is unknown.
	ScannerPID   int    `json:"scanner_pid"`
	ScannerStart uint64 `json:"scanner_start"`
}

// dead says that the tree's s6-svscan is known to be gone.
func (m *Mark) dead() bool {
	if m.ScannerPID == 0 {
		return false
	}
	now, err := proc.Read(m.ScannerPID)
	return errors.Is(err, os.ErrNotExist) || err == nil && now.Start != m.ScannerStart
}

// MarkSchema is the present version of Mark.
const MarkSchema = 1

// WriteMark leaves the mark.
func (d Dir) WriteMark(m Mark) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot encode the mark: %w", err)
	}
	return atomicfile.WriteVolatile(d.markPath(), append(b, '\n'), 0o644)
}

// errForged is a mark whose owner is not who the mark says.
var errForged = errors.New("its owner is not the owner of the tree")

// readMark reads the mark and believes it only if a regular file, the
// directory around it and the scan directory all belong to the uid it names:
// who can make a directory in /tmp could otherwise direct root to any uid.
func (d Dir) readMark() (*Mark, error) {
	fi, err := os.Lstat(d.markPath())
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("cannot trust %q: not a regular file", d.markPath())
	}
	b, err := os.ReadFile(d.markPath())
	if err != nil {
		return nil, err
	}
	var m Mark
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("cannot decode %q: %w", d.markPath(), err)
	}
	for _, path := range []string{d.markPath(), d.Hermes(), string(d.Scan())} {
		if owner(path) != m.UID {
			return nil, fmt.Errorf("cannot trust %q: %w", path, errForged)
		}
	}
	m.GID, m.Groups = d.groups(m)
	return &m, nil
}

// groups are those of the tree's s6-svscan, as the kernel has them: the mark's
// owner could have written any, and root takes them on. Without it there is the
// group of the scan directory, which its owner is in.
func (d Dir) groups(m Mark) (gid int, groups []int) {
	id, err := proc.IdentityOf(m.ScannerPID)
	if err == nil && id.UID == m.UID {
		return id.GID, id.Groups
	}
	_, gid = owners(string(d.Scan()))
	return gid, []int{gid}
}
