package profile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/lease"
	"github.com/hermesgw/hermes/internal/unix"
)

const (
	// lockName is the lock of the set of profiles, below profiles/.
	lockName = ".lock"
	// discarded begins the name of a home that is being deleted; no profile's does.
	discarded = ".deleted-"
	// lockPatience is how long Lock waits. The longest work behind it stops a
	// gateway, which its stop budget bounds (9 s by default).
	lockPatience = 15 * time.Second
	// inUseFile names the profile that interactive commands mean without -p.
	inUseFile = "active_profile"
	inUseMode = 0o644 // no secret
	maxInUse  = 256   // bytes; a name has at most 64
)

// Lock keeps every other command that creates, renames or deletes a profile, or
// assigns it a port, away until it is released, on whatever machine shares the
// volume. It waits for its turn, at most a quarter of a minute.
func Lock(ctx context.Context, dataDir string) (*lease.Lease, error) {
	dir := filepath.Join(dataDir, homes)
	if err := os.MkdirAll(dir, parentMode); err != nil {
		return nil, fmt.Errorf("cannot lock the profiles: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	l, err := lease.Lock(limited, filepath.Join(dir, lockName))
	var held *lease.HeldError
	if errors.As(err, &held) {
		if ctx.Err() != nil {
			return nil, ctx.Err() // we were told to end
		}
		return nil, fmt.Errorf("another hermes command is changing the profiles in %s; try again when it is done", dir)
	}
	return l, err
}

// Rename gives the home of p another name, in one step: it has the old one or
// the new one, whenever the machine stops. Errors as of CheckNew; the caller
// holds Lock and the lease of p.
func Rename(dataDir string, p Profile, name string) (Profile, error) {
	if err := CheckNew(dataDir, name); err != nil {
		return Profile{}, err
	}
	renamed := Profile{Name: name, Home: filepath.Join(dataDir, homes, name)}
	if err := os.Rename(p.Home, renamed.Home); err != nil {
		return Profile{}, fmt.Errorf("cannot rename profile %q: %w", p.Name, err)
	}
	atomicfile.SyncDir(filepath.Dir(p.Home))
	return renamed, nil
}

// Discard takes the home of p out of sight in one step; Remove removes it. The
// caller holds Lock and the lease of p.
func Discard(dataDir string, p Profile) error {
	root, err := os.OpenRoot(dataDir)
	if err != nil {
		return fmt.Errorf("cannot delete profile %q: %w", p.Name, err)
	}
	defer root.Close()
	hidden := filepath.Join(homes, discarded+p.Name+"-"+rand.Text()[:8])
	if err := root.Rename(filepath.Join(homes, p.Name), hidden); err != nil {
		return fmt.Errorf("cannot delete profile %q: %w", p.Name, err)
	}
	return nil
}

// Remove removes what was discarded, also by a delete that was killed, and paths
// below dataDir, with all that is in them. It never leaves dataDir: a symbolic link is removed,
// what it points to is not. The caller holds Lock.
func Remove(dataDir string, paths ...string) error {
	root, err := os.OpenRoot(dataDir)
	if err != nil {
		return fmt.Errorf("cannot remove the data: %w", err)
	}
	defer root.Close()
	left, _ := fs.Glob(root.FS(), filepath.Join(homes, discarded+"*")) // the pattern is valid
	var errs []error
	for _, path := range append(paths, left...) {
		if err := root.RemoveAll(path); err != nil {
			errs = append(errs, fmt.Errorf("cannot remove %s: %w; remove it by hand", filepath.Join(dataDir, path), err))
		}
	}
	return errors.Join(errs...)
}

// InUse returns the name that Use wrote, Default when there is none. It is for
// interactive commands: what starts, stops or runs something goes by its own
// arguments alone. The profile may be gone by now.
func InUse(dataDir string) (string, error) {
	path := filepath.Join(dataDir, inUseFile)
	// A link or a FIFO in its place must lead nowhere and not block.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return Default, nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot tell which profile is in use: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxInUse))
	if err != nil {
		return "", fmt.Errorf("cannot tell which profile is in use: %w", err)
	}
	name := strings.TrimSpace(string(data))
	if name == "" {
		return Default, nil
	}
	if !ValidName(name) {
		return "", exitcode.With(exitcode.Config, fmt.Errorf(
			"%s holds %q, which cannot be a profile name; choose one with: hermes profile use NAME", path, name))
	}
	return name, nil
}

// Use makes name the profile that interactive commands mean without -p. The
// caller has found it.
func Use(dataDir, name string) error {
	path := filepath.Join(dataDir, inUseFile)
	if name != Default {
		return atomicfile.Write(path, []byte(name+"\n"), inUseMode)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot use profile %q: %w", name, err)
	}
	return nil
}
