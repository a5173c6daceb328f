// Package profile knows what a profile is called and where it lives: a name
// and a home directory below the data directory. It does not read what is in
// that home; config, intent and store do.
//
//	p, err := profile.Find("/opt/data", "work") // p.Home == /opt/data/profiles/work
package profile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/hermesgw/hermes/internal/exitcode"
)

// Default is the name of the profile whose home is the data directory itself.
const Default = "default"

// homes is the directory below the data directory that holds the others' homes.
const homes = "profiles"

// nameRule says in words what namePattern means.
const nameRule = "use 1 to 64 of a-z, 0-9, _ and -, starting with a letter or digit"

// maxName is the most characters of a name.
const maxName = 64

const (
	parentMode = 0o750
	homeMode   = 0o700 // it holds secrets and conversations
)

// Profile is a name and its home.
type Profile struct {
	Name string
	Home string // absolute
}

// ErrNotFound is what Find wraps when a profile has no home.
var ErrNotFound = errors.New("no such profile")

// ValidName says whether name could be a profile: [a-z0-9][a-z0-9_-]{0,63}. By
// hand, because who looks at a fleet asks it for every slot, every second.
func ValidName(name string) bool {
	for i := range len(name) {
		c := name[i]
		plain := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !plain && (i == 0 || c != '_' && c != '-') {
			return false
		}
	}
	return 0 < len(name) && len(name) <= maxName
}

// Find returns the profile called name ("" means Default). A name that cannot
// be one is wrong usage (2); one without a home is no such profile (3). A home
// that is a symbolic link is refused: it could lead out of the data directory.
func Find(dataDir, name string) (Profile, error) {
	if name == "" || name == Default {
		return Profile{Name: Default, Home: dataDir}, nil
	}
	if !ValidName(name) {
		return Profile{}, exitcode.With(exitcode.Usage, fmt.Errorf("%q cannot be a profile name: %s", name, nameRule))
	}
	home := filepath.Join(dataDir, homes, name)
	fi, err := os.Lstat(home)
	switch {
	case err == nil && fi.IsDir():
		return Profile{Name: name, Home: home}, nil
	case err == nil:
		return Profile{}, exitcode.With(exitcode.NoSuch, fmt.Errorf("%w: %q: %s %s; put a directory in its place", ErrNotFound, name, home, noHome))
	}
	return Profile{}, exitcode.With(exitcode.NoSuch, fmt.Errorf(
		"%w: %q; create it with: hermes profile create %s", ErrNotFound, name, name))
}

// List returns the default profile and every valid one below profiles/, sorted
// by name with the default first.
func List(dataDir string) ([]Profile, error) {
	list := []Profile{{Name: Default, Home: dataDir}}
	entries, err := os.ReadDir(filepath.Join(dataDir, homes))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot list profiles: %w", err)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	for _, e := range entries {
		if e.IsDir() && ValidName(e.Name()) && e.Name() != Default {
			list = append(list, Profile{Name: e.Name(), Home: filepath.Join(dataDir, homes, e.Name())})
		}
	}
	return list, nil
}

const noHome = "is a link or a file, and a home must be a directory of its own"

// NotHomes says, a line for each, what stands below profiles/ as if it were a home
// and is none: links, and directories whose name no profile can have.
func NotHomes(dataDir string) []string {
	entries, _ := os.ReadDir(filepath.Join(dataDir, homes)) // List says why not
	var lines []string
	for _, e := range entries {
		path := filepath.Join(dataDir, homes, e.Name())
		switch {
		case e.Type()&os.ModeSymlink != 0:
			lines = append(lines, path+" is no profile: it "+noHome)
		case e.IsDir() && e.Name() == Default:
			lines = append(lines, path+" is no profile: the home of "+Default+" is "+dataDir)
		case e.IsDir() && !ValidName(e.Name()) && !strings.HasPrefix(e.Name(), "."):
			lines = append(lines, fmt.Sprintf("%q is no profile: %s", path, nameRule))
		}
	}
	return lines
}

// CheckNew says whether a profile called name could be made: a name that cannot
// be one, or one that is taken, is wrong usage (2).
func CheckNew(dataDir, name string) error {
	if !ValidName(name) || name == Default {
		return exitcode.With(exitcode.Usage, fmt.Errorf(
			"%q cannot be the name of a new profile: %s; %q is always there", name, nameRule, Default))
	}
	home := filepath.Join(dataDir, homes, name)
	if _, err := os.Lstat(home); !errors.Is(err, os.ErrNotExist) {
		return exitcode.With(exitcode.Usage, fmt.Errorf("profile %q is there already: %s", name, home))
	}
	return nil
}

// Create makes the home of a new profile, mode 0700; errors as of CheckNew.
func Create(dataDir, name string) (Profile, error) {
	if err := CheckNew(dataDir, name); err != nil {
		return Profile{}, err
	}
	p := Profile{Name: name, Home: filepath.Join(dataDir, homes, name)}
	if err := os.MkdirAll(filepath.Dir(p.Home), parentMode); err != nil {
		return Profile{}, fmt.Errorf("cannot create profile %q: %w", name, err)
	}
	if err := os.Mkdir(p.Home, homeMode); err != nil {
		return Profile{}, fmt.Errorf("cannot create profile %q: %w", name, err)
	}
	return p, nil
}
