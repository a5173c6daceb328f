package rundir_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/s6/s6test"
	"github.com/hermesgw/hermes/internal/testenv"
)

// machine is a root directory with run and tmp, and an environment.
type machine struct {
	t    *testing.T
	root string
	env  map[string]string
	uid  int
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, root: t.TempDir(), env: map[string]string{}, uid: os.Getuid()}
	m.mkdir("run", 0o755)
	m.mkdir("tmp", 0o777|os.ModeSticky)
	return m
}

func (m *machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.root}, elem...)...)
}

func (m *machine) mkdir(path string, mode os.FileMode) string {
	m.t.Helper()
	full := m.path(path)
	if err := os.MkdirAll(full, 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chmod(full, mode); err != nil {
		m.t.Fatal(err)
	}
	return full
}

func (m *machine) find() rundir.Found {
	m.t.Helper()
	return rundir.Find(rundir.Options{Lookup: m.lookup, Root: m.root, UID: m.uid})
}

func (m *machine) lookup(name string) (string, bool) { v, ok := m.env[name]; return v, ok }

// tree makes a run directory at path with a live s6-svscan in it.
func (m *machine) tree(path string) rundir.Dir {
	m.t.Helper()
	dir := rundir.Dir(m.path(path))
	for _, p := range []string{string(dir.Scan()), dir.Hermes()} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			m.t.Fatal(err)
		}
	}
	s6test.StartIn(m.t, string(dir.Scan()))
	return dir
}

func (m *machine) mark(dir rundir.Dir, uid int) {
	m.t.Helper()
	if err := dir.WriteMark(rundir.Mark{Schema: rundir.MarkSchema, BootID: "b", UID: uid, Home: "/opt/data", Profile: "default", Started: time.Now()}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) wantTree(what string, tree runmode.Tree, dir string) rundir.Found {
	m.t.Helper()
	f := m.find()
	if f.Tree != tree || dir != "" && string(f.Dir) != dir {
		m.t.Errorf("%s: found %v in %s, want %v in %s", what, f.Tree, f.Dir, tree, dir)
	}
	return f
}

func needRoot(t *testing.T) {
	t.Helper()
	testenv.Need(t, "root")
}

func TestNothingThere(t *testing.T) {
	m := newMachine(t)
	own := m.path("tmp", fmt.Sprintf("hermes-%d", m.uid))
	m.wantTree("an empty machine", runmode.TreeNone, own)
	m.mkdir("run/service", 0o755)
	m.wantTree("a scan directory that nobody serves", runmode.TreeNone, own)
	m.env["XDG_RUNTIME_DIR"] = m.mkdir("xdg", 0o700)
	m.wantTree("with a runtime directory", runmode.TreeNone, m.path("xdg"))
	m.env[rundir.EnvVar] = m.path("chosen")
	m.wantTree("with a chosen one", runmode.TreeNone, m.path("chosen"))
	m.env[rundir.EnvVar] = ""
	m.wantTree("with an empty choice", runmode.TreeNone, m.path("xdg"))
}

func TestOurs(t *testing.T) {
	m := newMachine(t)
	dir := m.tree("run")
	m.mark(dir, m.uid)
	f := m.wantTree("our tree", runmode.TreeOurs, m.path("run"))
	if f.Mark == nil || f.Mark.BootID != "b" || f.Mark.Home != "/opt/data" || f.Refusal != "" {
		t.Errorf("found %+v", f)
	}
}

// A container's own layer keeps /run over a restart.
func TestStaleMarkWithoutScannerIsNoTree(t *testing.T) {
	m := newMachine(t)
	dir := rundir.Dir(m.path("run"))
	m.mkdir("run/service/.s6-svscan", 0o700)
	m.mkdir("run/hermes", 0o711)
	m.mark(dir, m.uid)
	m.wantTree("no control FIFO", runmode.TreeNone, "")
	if err := syscall.Mkfifo(m.path("run/service/.s6-svscan/control"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.wantTree("a FIFO without a reader", runmode.TreeNone, "")
}

// A host may run s6 for itself (s6-linux-init serves /run/service): hermes
// stays in the foreground there and leaves everything as it is.
func TestHostThatRunsS6StaysForegroundUntouched(t *testing.T) {
	m := newMachine(t)
	dir := m.tree("run")
	if err := os.RemoveAll(dir.Hermes()); err != nil {
		t.Fatal(err)
	}
	if err := dir.Scan().Register(t.Context(), "getty", s6test.Service("exec sleep 1000")); err != nil {
		t.Fatal(err)
	}
	// Once it runs its supervisor writes nothing more of its own accord.
	if _, err := s6.Wait(t.Context(), dir.Scan().Dir("getty"), s6.Status.Running); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, m.root)
	f := m.wantTree("a host with s6", runmode.TreeForeign, m.path("tmp", fmt.Sprintf("hermes-%d", m.uid)))
	if f.Mark != nil {
		t.Errorf("found a mark: %+v", f.Mark)
	}
	if d := runmode.Decide(runmode.Facts{Tree: f.Tree, TreeRefusal: f.Refusal}); d.Mode != runmode.Foreground {
		t.Errorf("decided %s because of %s, want foreground", d.Mode, d.Reason)
	}
	if after := snapshot(t, m.root); after != before {
		t.Errorf("looking changed the host:\nbefore\n%s\nafter\n%s", before, after)
	}
}

// snapshot describes everything below root: names, owners, modes, change times.
func snapshot(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%s %v %d:%d %d inode %d changed %d\n", path, fi.Mode(), st.Uid, st.Gid, fi.Size(), st.Ino, st.Ctim.Nano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestOverlay(t *testing.T) {
	m := newMachine(t)
	dir := m.tree("run")
	m.wantTree("no basedir", runmode.TreeForeign, "")
	if err := os.MkdirAll(m.path("run/s6"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", m.path("run/s6/basedir")); err != nil {
		t.Fatal(err)
	}
	m.wantTree("basedir is a link", runmode.TreeForeign, "")
	if err := os.Remove(m.path("run/s6/basedir")); err != nil {
		t.Fatal(err)
	}
	m.mkdir("run/s6/basedir", 0o755)
	m.wantTree("s6-overlay", runmode.TreeOverlay, m.path("run"))
	m.mark(dir, m.uid)
	m.wantTree("our mark comes first", runmode.TreeOurs, m.path("run"))
}

// basedir means s6-overlay in /run only.
func TestBasedirElsewhereIsForeign(t *testing.T) {
	m := newMachine(t)
	dir := m.tree("chosen")
	m.mkdir("chosen/s6/basedir", 0o755)
	m.env[rundir.EnvVar] = string(dir)
	m.wantTree("basedir in a chosen directory", runmode.TreeForeign, "")
}

func TestChosenDirectoryComesFirst(t *testing.T) {
	m := newMachine(t)
	run, chosen := m.tree("run"), m.tree("chosen")
	m.mark(run, m.uid)
	m.mark(chosen, m.uid)
	m.wantTree("without a choice", runmode.TreeOurs, m.path("run"))
	m.env[rundir.EnvVar] = string(chosen)
	m.wantTree("with a choice", runmode.TreeOurs, m.path("chosen"))
	m.env[rundir.EnvVar] = m.path("nothing-there")
	m.wantTree("with a choice where nothing lives", runmode.TreeOurs, m.path("run"))
}

// Our tree is found also beside a foreign one that comes earlier.
func TestOursBesideForeign(t *testing.T) {
	m := newMachine(t)
	m.tree("run")
	m.env["XDG_RUNTIME_DIR"] = m.mkdir("xdg", 0o700)
	ours := m.tree("xdg")
	m.mark(ours, m.uid)
	m.wantTree("a foreign s6 in /run, ours in the runtime directory", runmode.TreeOurs, string(ours))
}

func TestDamagedMarkIsNotOurs(t *testing.T) {
	m := newMachine(t)
	dir := m.tree("run")
	m.mark(dir, m.uid)
	mark := filepath.Join(dir.Hermes(), "tree.json")
	for name, damage := range map[string]func() error{
		"half a file": func() error { return os.WriteFile(mark, []byte(`{"schema":1,`), 0o644) },
		"a directory": func() error { return os.Mkdir(mark, 0o755) },
		"a link":      func() error { return os.Symlink("/etc/hostname", mark) },
	} {
		if err := os.RemoveAll(mark); err != nil {
			t.Fatal(err)
		}
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		m.wantTree(name, runmode.TreeForeign, "")
	}
}

// Who can write a mark must not be able to name another user in it: root
// becomes the user of the mark.
func TestForgedMarkIsNotOurs(t *testing.T) {
	needRoot(t)
	m := newMachine(t)
	dir := m.tree("run")
	m.mark(dir, 0)
	mark := filepath.Join(dir.Hermes(), "tree.json")
	m.wantTree("root's own", runmode.TreeOurs, "")
	for _, path := range []string{mark, dir.Hermes(), string(dir.Scan())} {
		if err := os.Chown(path, 1234, 1234); err != nil {
			t.Fatal(err)
		}
		m.wantTree(path+" belongs to another user", runmode.TreeForeign, "")
		if err := os.Chown(path, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	m.mark(dir, 1234)
	m.wantTree("the mark names another user", runmode.TreeForeign, "")
}

// /tmp/hermes-N counts if it is a directory of uid N that nobody else writes.
func TestTempDirectories(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct {
		dir   string
		owner int
		mode  os.FileMode
		link  bool
		want  runmode.Tree
	}{
		"another user's":             {dir: "tmp/hermes-10000", owner: 10000, mode: 0o700, want: runmode.TreeOurs},
		"the caller's":               {dir: "tmp/hermes-0", owner: 0, mode: 0o700, want: runmode.TreeOurs},
		"of the wrong user":          {dir: "tmp/hermes-10000", owner: 666, mode: 0o700, want: runmode.TreeNone},
		"the caller's, of another":   {dir: "tmp/hermes-0", owner: 666, mode: 0o700, want: runmode.TreeNone},
		"that the group may write":   {dir: "tmp/hermes-10000", owner: 10000, mode: 0o770, want: runmode.TreeNone},
		"that everybody may write":   {dir: "tmp/hermes-0", owner: 0, mode: 0o777, want: runmode.TreeNone},
		"without a number":           {dir: "tmp/hermes-x", owner: 0, mode: 0o700, want: runmode.TreeNone},
		"behind a link":              {dir: "tmp/hermes-10000", owner: 10000, mode: 0o700, link: true, want: runmode.TreeNone},
		"the caller's behind a link": {dir: "tmp/hermes-0", owner: 0, mode: 0o700, link: true, want: runmode.TreeNone},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			real := c.dir
			if c.link {
				real = "elsewhere"
			}
			m.mkdir(real, 0o755)
			dir := m.tree(real)
			m.mark(dir, c.owner)
			for _, path := range []string{string(dir), dir.Hermes(), string(dir.Scan()), filepath.Join(dir.Hermes(), "tree.json")} {
				if err := os.Chown(path, c.owner, c.owner); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(string(dir), c.mode); err != nil {
				t.Fatal(err)
			}
			if c.link {
				if err := os.Symlink(string(dir), m.path(c.dir)); err != nil {
					t.Fatal(err)
				}
				if err := os.Lchown(m.path(c.dir), c.owner, c.owner); err != nil {
					t.Fatal(err)
				}
			}
			m.wantTree(name, c.want, "")
		})
	}
}

// A link in place of the scan directory is not followed.
func TestLinkedScanDirectoryIsPassedOver(t *testing.T) {
	m := newMachine(t)
	dir := m.tree("elsewhere")
	m.mark(dir, m.uid)
	if err := os.Symlink(string(dir.Scan()), m.path("run/service")); err != nil {
		t.Fatal(err)
	}
	m.wantTree("a linked scan directory", runmode.TreeNone, "")
}

func TestStopping(t *testing.T) {
	m := newMachine(t)
	m.mkdir("run/hermes", 0o711)
	dir := rundir.Dir(m.path("run"))
	if dir.Stopping() {
		t.Error("stopping before it was told to")
	}
	if err := os.WriteFile(dir.StoppingFlag(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if !dir.Stopping() {
		t.Error("not stopping with the flag there")
	}
}
