// Package doctor looks at everything that has to be right for a gateway to
// work, and says of each finding what mends it: the supervisor, the services,
// the volume, settings and credentials, ports, the database, the clock.
//
// It changes nothing but through Mend, and never opens what a living gateway
// has open: it asks that gateway. How it is printed is not its business.
//
//	findings := doctor.Examine(ctx, doctor.Options{Home: "/opt/data", Profiles: profiles, Probes: probes})
//	if !doctor.Healthy(findings) { os.Exit(1) }
package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/filesystem"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/supervise"
)

// Severity says how much a finding matters.
type Severity string

// The severities. Only a problem makes doctor fail.
const (
	OK      Severity = "ok"
	Warning Severity = "warning"
	Problem Severity = "problem"
)

// Finding is one thing that was looked at.
type Finding struct {
	Check    string   `json:"check"`   // GROUP.NAME, such as volume.locks
	Profile  *string  `json:"profile"` // null where it is no profile's
	Severity Severity `json:"severity"`
	What     string   `json:"what"`    // one line
	Fix      string   `json:"fix"`     // what mends it, a command where there is one; "" where nothing needs to be
	Fixable  bool     `json:"fixable"` // --fix does it
	Fixed    bool     `json:"fixed"`   // --fix has done it

	mend func() error
}

// Group is the part of Check before the dot.
func (f Finding) Group() string {
	group, _, _ := strings.Cut(f.Check, ".")
	return group
}

// Name is the part of Check behind the dot.
func (f Finding) Name() string {
	_, name, _ := strings.Cut(f.Check, ".")
	return name
}

// Options says what to look at. Home, Profiles and Probes are required.
type Options struct {
	Home     string            // data directory
	Profiles []profile.Profile // whose settings, credentials, ports and database to look at
	Everyone []profile.Profile // all there are: ports must not clash with theirs. Default: Profiles

	Found rundir.Found // the supervision tree around us
	// Environ is the environment of the container, NAME=VALUE.
	Environ []string
	// Owns says whether credentials and ports in Environ are the profile's.
	// Default: they are the default profile's.
	Owns func(profile.Profile) bool
	// Internal are variables that hermes sets for itself.
	Internal []string

	// Report is the state of the services, or ReportError why there is none.
	Report      supervise.Report
	ReportError error
	// Gateways are those that answer on their control sockets, by profile.
	Gateways map[string]control.Status

	Probes Probes
	Now    func() time.Time // default: time.Now
}

// Probes are the looks that reach outside; a test gives its own.
type Probes struct {
	// Filesystem tells what a directory lies on.
	Filesystem func(dir string) (filesystem.Info, error)
	// Locks tries the locks of a directory's filesystem; lease.ErrNoLocks says
	// that they do not work.
	Locks func(ctx context.Context, dir string) error
	// Database checks the database of a profile.
	Database func(ctx context.Context, p profile.Profile) Database
	// Listens says whether something accepts connections on host:port.
	Listens func(ctx context.Context, address string) bool
	// Binary is when the running binary was made; zero is unknown.
	Binary time.Time
}

// Database is what a check of one database gave.
type Database struct {
	Skipped  string   // why it was not checked, and need not be here; "" if it was
	Unsure   string   // why it could not be checked
	Newer    string   // that a newer version has written it; "" if not
	Problems []string // what is wrong with it

	// Storage is what its gateway tells of it; nil: NotAsked says why it does not,
	// or there is nothing to tell.
	Storage  *Storage
	NotAsked error // ErrNoGateway: nobody to ask
}

// ErrNoGateway means that no gateway of the profile runs.
var ErrNoGateway = errors.New("no gateway of this profile runs")

// Storage is how a database stands.
type Storage struct {
	Bytes, MaxBytes int64     // MaxBytes 0: any size
	Prunable        bool      // there is something that retention may remove
	Dead            int64     // dead letters
	OldestDead      time.Time // when the oldest of them was given up
}

// examiner carries the options through the checks.
type examiner struct {
	Options
	configs map[string]*config.Config // by profile
	began   time.Time
}

// Examine makes every check, in the order in which one would ask. It blocks for
// the disk and for databases of any size, until ctx ends.
func Examine(ctx context.Context, o Options) []Finding {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Everyone == nil {
		o.Everyone = o.Profiles
	}
	if o.Owns == nil {
		o.Owns = func(p profile.Profile) bool { return p.Name == profile.Default }
	}
	e := &examiner{Options: o, configs: map[string]*config.Config{}, began: o.Now()}
	var all []Finding
	all = append(all, e.run()...)
	if o.Found.Refusal != "" {
		return all // to a stranger everything would look ill
	}
	all = append(all, e.services()...)
	all = append(all, e.volume(ctx)...)
	all = append(all, e.settings()...)
	all = append(all, e.credentials()...)
	all = append(all, e.network(ctx)...)
	all = append(all, e.databases(ctx)...)
	return append(all, e.clock()...)
}

// Healthy says that nothing found is a problem.
func Healthy(findings []Finding) bool {
	return !slices.ContainsFunc(findings, func(f Finding) bool { return f.Severity == Problem })
}

// Brief leaves out what is well with other profiles than p, and who can reach
// them: that is no illness, and with many profiles it would hide one.
func Brief(findings []Finding, p profile.Profile) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool {
		other := f.Profile != nil && *f.Profile != p.Name
		return other && (f.Severity == OK || f.Check == reachable)
	})
}

// Mend does what is safe to do about the findings, and returns them with what
// became of it.
func Mend(findings []Finding) []Finding {
	out := slices.Clone(findings)
	for i := range out {
		f := &out[i]
		if f.mend == nil {
			continue
		}
		if err := f.mend(); err != nil {
			f.What += fmt.Sprintf("; could not be mended: %v", err)
			continue
		}
		f.Severity, f.Fixed, f.Fixable, f.mend = OK, true, false, nil
	}
	return out
}

func good(check, format string, args ...any) Finding {
	return Finding{Check: check, Severity: OK, What: line(format, args...)}
}

func warning(check, fix, format string, args ...any) Finding {
	return Finding{Check: check, Severity: Warning, What: line(format, args...), Fix: fix}
}

func problem(check, fix, format string, args ...any) Finding {
	return Finding{Check: check, Severity: Problem, What: line(format, args...), Fix: fix}
}

// line keeps a finding in one line, whatever was quoted in it.
func line(format string, args ...any) string {
	return strings.Join(strings.FieldsFunc(fmt.Sprintf(format, args...), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// of says whose finding it is.
func (f Finding) of(p profile.Profile) Finding {
	f.Profile = &p.Name
	return f
}

// mended makes f one that --fix does.
func (f Finding) mended(by func() error) Finding {
	f.Fixable, f.mend = true, by
	return f
}

// inContainer says that a tree of ours, or of s6-overlay, is around us: the
// supervisor is asked, the container is never guessed.
func (e *examiner) inContainer() bool {
	return e.Found.Tree == runmode.TreeOurs || e.Found.Tree == runmode.TreeOverlay
}

// command is a hermes command for the profile called name.
func command(name, words string) string {
	if name == profile.Default {
		return "hermes " + words
	}
	return "hermes -p " + name + " " + words
}
