package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/lease"
	"github.com/hermesgw/hermes/internal/profile"
)

const (
	// scarce is when to make room: a database may need that much at once.
	scarce = 100 << 20
	// full is when log files are no longer written and writes begin to fail.
	full = 5 << 20
	// fewInodes is the same for files.
	fewInodes = 100
	// probeBytes must fit: a full filesystem still makes empty files.
	probeBytes = 4096
	// staleAfter is how old a temporary file of ours must be to be a leftover:
	// the longest write takes seconds.
	staleAfter = time.Hour
)

// volume looks at the data directory.
func (e *examiner) volume(ctx context.Context) []Finding {
	fi, err := os.Stat(e.Home)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Finding{good("volume.there", "%s is not there yet; the first start makes it", e.Home)}
	case err != nil:
		return []Finding{problem("volume.there", "make it readable for this user", "%s cannot be looked at: %v", e.Home, cause(err))}
	case !fi.IsDir():
		return []Finding{problem("volume.there", "set HERMES_HOME to a directory", "%s is not a directory", e.Home)}
	}
	findings := []Finding{e.writable()}
	findings = append(findings, e.filesystem()...)
	if findings[0].Severity == OK {
		findings = append(findings, e.locks(ctx))
	}
	for _, p := range e.Profiles {
		findings = append(findings, e.leftovers(p)...)
	}
	return findings
}

// writable writes a real file.
func (e *examiner) writable() Finding {
	const check = "volume.writable"
	err := tryWrite(e.Home)
	switch {
	case err == nil:
		return good(check, "%s takes writes of uid %d", e.Home, os.Geteuid())
	case errors.Is(err, syscall.EROFS):
		return problem(check, "mount it without :ro", "%s is mounted read-only", e.Home)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return problem(check, "make room: du -xh "+e.Home+" | sort -h | tail", "%s is full", e.Home)
	default:
		return problem(check, fmt.Sprintf("as root: chown %d %s; or run as its owner", os.Geteuid(), e.Home),
			"%s cannot be written by uid %d: %v", e.Home, os.Geteuid(), cause(err))
	}
}

func tryWrite(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, probeBytes))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// cause is what the kernel said, without the path that the finding names.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func (e *examiner) filesystem() []Finding {
	info, err := e.Probes.Filesystem(e.Home)
	if err != nil {
		return []Finding{warning("volume.filesystem", "", "%v", err)}
	}
	kind := good("volume.filesystem", "%s", info.Name)
	switch {
	case info.Shared:
		kind = warning("volume.filesystem", "prefer a named volume or a local directory",
			"%s: other machines may have it open, so the database uses its slower, safer journal", info.Name)
	case info.Volatile && e.inContainer():
		kind = warning("volume.filesystem", "mount a volume: docker run -v hermes-data:"+e.Home,
			"%s: what is in %s is lost with the container", info.Name, e.Home)
	}
	findings := []Finding{kind}
	return append(findings, free(e.Home, info.Free, info.Inodes, info.Countless))
}

func free(home string, bytes, inodes uint64, countless bool) Finding {
	const check = "volume.free"
	fix := "make room: du -xh " + home + " | sort -h | tail"
	switch {
	case bytes < full:
		return problem(check, fix, "%s are left; writes fail, and log files are no longer written", size(bytes))
	case !countless && inodes < fewInodes:
		return problem(check, "remove files from the filesystem of "+home, "%d files are left", inodes)
	case bytes < scarce:
		return warning(check, fix, "%s are left", size(bytes))
	}
	return good(check, "%s are left", size(bytes))
}

// size is a number of bytes for people.
func size(n uint64) string {
	const mega, giga = 1_000_000, 1_000_000_000
	if n >= 10*giga {
		return fmt.Sprintf("%d GB", n/giga)
	}
	if n >= giga {
		return fmt.Sprintf("%.1f GB", float64(n)/giga)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/mega)
}

func (e *examiner) locks(ctx context.Context) Finding {
	const check = "volume.locks"
	err := e.Probes.Locks(ctx, e.Home)
	switch {
	case err == nil:
		return good(check, "the kernel's locks work, also between two processes")
	case errors.Is(err, lease.ErrNoLocks):
		return problem(check, "put the data on a named volume or a local directory",
			"the filesystem has no working locks: gateways refuse to start, because two could run at once")
	default:
		return warning(check, "", "the locks could not be tried: %v", err)
	}
}

// leftoverPattern are the names of temporary files that a dead hermes process
// leaves: of atomicfile (.NAME.RANDOM), of the probes, of a backup and a restore.
const leftoverPattern = `^(\.probe-[0-9]+|\.(config\.yaml|\.env|intent\.json)\.[0-9]+|` +
	`\.hermes-backup-[0-9]+|hermes\.db\.restoring(-wal|-shm|-journal|-keeping)?)$`

// leftovers looks for them at the top of a profile's home.
func (e *examiner) leftovers(p profile.Profile) []Finding {
	entries, err := os.ReadDir(p.Home)
	if err != nil {
		return nil // said by others
	}
	ours := regexp.MustCompile(leftoverPattern)
	var stale []string
	for _, entry := range entries {
		if !ours.MatchString(entry.Name()) || !entry.Type().IsRegular() {
			continue
		}
		if fi, err := entry.Info(); err == nil && e.began.Sub(fi.ModTime()) > staleAfter {
			stale = append(stale, filepath.Join(p.Home, entry.Name()))
		}
	}
	if len(stale) == 0 {
		return nil
	}
	f := warning("volume.leftovers", "hermes doctor --fix", "temporary files of processes that were killed: %s", listed(stale))
	return []Finding{f.of(p).mended(func() error { return removeAll(stale) })}
}

func removeAll(paths []string) error {
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}
