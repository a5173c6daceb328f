package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/unix"
)

// Options says where to look.
type Options struct {
	Lookup func(string) (string, bool) // environment; required
	Root   string                      // prefix of /run and /tmp, for tests; "" is the real root
	UID    int                         // of the caller, for /tmp/hermes-<uid>
}

// Found is what Find saw.
type Found struct {
	Dir     Dir          // of the live tree, or where a host process keeps its sockets
	Tree    runmode.Tree // what kind of tree
	Mark    *Mark        // of our own tree
	Refusal string       // why a live tree cannot be used
}

// Find looks at the candidates in order and takes the first whose scan
// directory has a live s6-svscan: $HERMES_RUN_DIR, /run, $XDG_RUNTIME_DIR,
// every /tmp/hermes-<uid>. Links are not followed, and a candidate that
// somebody else could have prepared is passed over. Without a live tree Dir is
// where a gateway on a host keeps its sockets.
func Find(o Options) Found {
	var foreign *Found
	for _, dir := range candidates(o) {
		f, ok := examine(o, dir)
		if !ok {
			continue
		}
		if f.Tree != runmode.TreeForeign {
			return f
		}
		if foreign == nil {
			foreign = &f
		}
	}
	if foreign != nil {
		foreign.Dir = HostDir(o)
		return *foreign
	}
	return Found{Dir: HostDir(o), Tree: runmode.TreeNone}
}

// HostDir is the run directory of a process outside any tree of ours.
func HostDir(o Options) Dir {
	if dir, ok := o.Lookup(EnvVar); ok && dir != "" {
		return Dir(dir)
	}
	if dir, ok := o.Lookup("XDG_RUNTIME_DIR"); ok && dir != "" && writable(dir) {
		return Dir(dir)
	}
	return TempDir(o)
}

// TempDir is the last resort, /tmp/hermes-<uid>.
func TempDir(o Options) Dir {
	return Dir(filepath.Join("/", o.Root, "tmp", "hermes-"+strconv.Itoa(o.UID)))
}

func candidates(o Options) []Dir {
	var dirs []Dir
	if dir, ok := o.Lookup(EnvVar); ok && dir != "" {
		dirs = append(dirs, Dir(dir))
	}
	dirs = append(dirs, Dir(filepath.Join("/", o.Root, "run")))
	if dir, ok := o.Lookup("XDG_RUNTIME_DIR"); ok && dir != "" {
		dirs = append(dirs, Dir(dir))
	}
	// The caller's own first, then any other user's: `docker exec` may come as root or as a stranger.
	others, _ := filepath.Glob(filepath.Join("/", o.Root, "tmp", "hermes-*")) // the pattern is constant and valid
	sort.Strings(others)
	for _, dir := range append([]string{string(TempDir(o))}, others...) {
		if !slices.Contains(dirs, Dir(dir)) && ownTempDir(dir) {
			dirs = append(dirs, Dir(dir))
		}
	}
	return dirs
}

// ownTempDir says whether /tmp/hermes-N is a directory that belongs to uid N
// and that nobody else may write.
func ownTempDir(dir string) bool {
	uid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "hermes-"))
	if err != nil {
		return false
	}
	fi, err := os.Lstat(dir)
	return err == nil && fi.IsDir() && fi.Mode().Perm()&0o022 == 0 && owner(dir) == uid
}

// examine says what lives in dir; false when nothing does.
func examine(o Options, dir Dir) (Found, bool) {
	if fi, err := os.Lstat(string(dir.Scan())); err != nil || !fi.IsDir() {
		return Found{}, false
	}
	live := dir.Scan().Alive()
	if live != nil && !isDenied(live) {
		return Found{}, false
	}
	f := Found{Dir: dir, Tree: runmode.TreeForeign}
	mark, err := dir.readMark()
	switch {
	case err == nil && live != nil && mark.dead(): // an earlier boot's, of which not everything could be removed
		return Found{}, false
	case err == nil:
		f.Tree, f.Mark = runmode.TreeOurs, mark
	case isOverlay(o, dir):
		f.Tree = runmode.TreeOverlay
	}
	if live != nil {
		f.Refusal = live.Error()
	}
	return f, true
}

// isOverlay recognises a container whose init is s6-overlay v3.
func isOverlay(o Options, dir Dir) bool {
	if dir != Dir(filepath.Join("/", o.Root, "run")) {
		return false
	}
	fi, err := os.Lstat(filepath.Join(string(dir), "s6", "basedir"))
	return err == nil && fi.IsDir()
}

// owner returns the uid a path belongs to, -1 when it cannot be told.
func owner(path string) int {
	uid, _ := owners(path)
	return uid
}

// owners returns the uid and gid of a path, -1 when they cannot be told.
func owners(path string) (uid, gid int) {
	fi, err := os.Lstat(path)
	if err != nil {
		return -1, -1
	}
	return proc.Owner(fi)
}

func writable(dir string) bool {
	return unix.Access(dir, 2 /* W_OK */) == nil
}

func isDenied(err error) bool {
	return errors.Is(err, s6.ErrDenied) || errors.Is(err, os.ErrPermission)
}
