package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/unix"
)

// chooseRunDir returns the first candidate that can be made ready:
// $HERMES_RUN_DIR alone if it is set, else /run, $XDG_RUNTIME_DIR,
// /tmp/hermes-<uid of the services>.
func (b *booter) chooseRunDir() (rundir.Dir, error) {
	if dir := b.env.or(rundir.EnvVar, ""); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", exitcode.With(exitcode.Config, fmt.Errorf("%s is %q: give an absolute path, or unset it", rundir.EnvVar, dir))
		}
		if err := b.prepareRunDir(rundir.Dir(dir)); err != nil {
			return "", exitcode.With(exitcode.Config, fmt.Errorf(
				"cannot use %s=%s: %w; name a directory that uid %d may write, or unset it", rundir.EnvVar, dir, err, b.id.uid))
		}
		return rundir.Dir(dir), nil
	}
	candidates := []string{b.path("run")}
	if xdg := b.env.or("XDG_RUNTIME_DIR", ""); xdg != "" {
		candidates = append(candidates, xdg)
	}
	candidates = append(candidates, b.path("tmp", "hermes-"+strconv.Itoa(b.id.uid)))
	var errs []error
	for _, dir := range candidates {
		err := b.prepareRunDir(rundir.Dir(dir))
		if err == nil {
			return rundir.Dir(dir), nil
		}
		errs = append(errs, err)
	}
	return "", exitcode.With(exitcode.Config, fmt.Errorf(
		"cannot find a writable run directory (%w); give one with --tmpfs /run or --tmpfs /tmp", errors.Join(errs...)))
}

// prepareRunDir wipes what an earlier boot left (a container's own layer keeps
// /run over a restart) and makes our directories, owned by the services' user.
// What cannot be given to that user is taken away again.
func (b *booter) prepareRunDir(dir rundir.Dir) error {
	if dir.Scan().Alive() == nil {
		return fmt.Errorf("a live s6-svscan serves %s already", dir.Scan())
	}
	made, err := b.makeDirs(dir)
	// The deepest first: root without CAP_DAC_OVERRIDE cannot enter what it gave away.
	for i := len(made) - 1; i >= 0 && err == nil; i-- {
		err = b.own(made[i])
	}
	if err != nil {
		for i := len(made) - 1; i >= 0; i-- {
			_ = os.Remove(made[i]) // one that holds more is not ours
		}
	}
	return err
}

// makeDirs returns what it made, also beside an error.
func (b *booter) makeDirs(dir rundir.Dir) (made []string, err error) {
	fresh, err := b.makeTop(string(dir))
	if err != nil {
		return nil, err
	}
	if fresh {
		made = append(made, string(dir))
	}
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{
		{string(dir.Scan()), 0o755},
		{dir.Hermes(), 0o711}, // sockets inside are 0600; the mark is for everybody
		{filepath.Dir(dir.Environment()), 0o755},
		{dir.Environment(), 0o700},
	} {
		if err := freshDir(d.path, d.mode); err != nil {
			return made, err
		}
		made = append(made, d.path)
	}
	return made, nil
}

// makeTop makes the run directory (true), or accepts one that is there, unless
// somebody else prepared it. Root works in root's own only: what the services'
// user may rename, that user sets up after the drop. Others may pass through it, so that a command of
// any user finds the tree in it and can say whose it is.
func (b *booter) makeTop(dir string) (fresh bool, err error) {
	err = os.Mkdir(dir, 0o711)
	if err == nil {
		return true, os.Chmod(dir, 0o711) // whatever the umask
	}
	if !errors.Is(err, os.ErrExist) {
		return false, err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return false, err
	}
	if !fi.IsDir() {
		return false, fmt.Errorf("%s is not a directory", dir)
	}
	st, _ := unix.FileStat(fi)
	shared := fi.Mode().Perm()&0o022 != 0 && fi.Mode()&os.ModeSticky == 0
	if st != nil && int(st.Uid) != os.Getuid() && st.Uid != 0 {
		return false, fmt.Errorf("%s belongs to uid %d", dir, st.Uid)
	}
	// Root's may be shared, Kubernetes gives an emptyDir mode 0777, but is not for
	// root to work in.
	rootWorks := os.Getuid() == 0 && b.id.drop
	if shared && st != nil && (st.Uid != 0 || rootWorks) {
		return false, fmt.Errorf("%s can be written by others", dir)
	}
	return false, unix.Access(dir, unix.W_OK)
}

// freshDir makes dir anew; the parent of the environment may hold more than ours.
func freshDir(dir string, mode os.FileMode) error {
	if filepath.Base(dir) != "s6" {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Chmod(dir, mode); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}

// own gives path to the services' user, if that is not us.
func (b *booter) own(path string) error {
	if os.Getuid() == b.id.uid {
		return nil
	}
	return os.Lchown(path, b.id.uid, b.id.gid)
}

// ownPaths are the paths on the volume that are ours to repair: a fixed list,
// because start-up must not grow with the volume.
func ownPaths() []string {
	return []string{
		".", "config.yaml", ".env", "hermes.env", "hermes.db", "hermes.db-wal", "hermes.db-shm", "intent.json", "meter.json",
		"gateway.lock", "logs", "logs/gateways", "logs/boot.log", "logs/audit.log", "profiles", "profiles/.lock",
	}
}

// profilePaths are the same paths of every other profile: they grow with the
// number of profiles, not with what is in them.
func profilePaths(root *os.Root) []string {
	dir, err := root.OpenFile("profiles", os.O_RDONLY|unix.O_DIRECTORY, 0) // a FIFO in its place must not block
	if err != nil {
		return nil
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil
	}
	var paths []string
	for _, e := range entries {
		if !e.IsDir() || !profile.ValidName(e.Name()) {
			continue
		}
		for _, name := range ownPaths() {
			paths = append(paths, filepath.Join("profiles", e.Name(), name))
		}
		paths = append(paths, filepath.Join("logs/gateways", e.Name()))
	}
	return append(paths, filepath.Join("logs/gateways", profile.Default))
}

// prepareHome makes the data directory if it is missing and, as root, gives
// our own root-owned paths in it to the services' user. Links are not followed
// out of it. A refusal (a NAS that squashes root) is information, not failure:
// probe decides.
func (b *booter) prepareHome() error {
	if !filepath.IsAbs(b.home) {
		return exitcode.With(exitcode.Config, fmt.Errorf("HERMES_HOME is %q: give an absolute path", b.home))
	}
	if err := os.MkdirAll(b.home, 0o770); err != nil {
		return exitcode.With(exitcode.Config, fmt.Errorf("cannot make the data directory: %w; mount a writable volume there", err))
	}
	if !b.id.drop {
		return nil
	}
	root, err := os.OpenRoot(b.home)
	if err != nil {
		return nil // root without CAP_DAC_OVERRIDE; there is nothing of root's in there
	}
	defer root.Close()
	fresh := isEmptyDir(b.home)
	for _, name := range append(ownPaths(), profilePaths(root)...) {
		if err := b.adopt(root, name, fresh && name == "."); err != nil {
			b.say("hermes: %s stays as it is: its filesystem refuses to give it to uid %d (%v)", filepath.Join(b.home, name), b.id.uid, errno(err))
		}
	}
	return nil
}

// adopt gives one path of the volume to the services' user if it is root's, or
// if it is to be given whoever's it is.
func (b *booter) adopt(root *os.Root, name string, whoevers bool) error {
	fi, err := root.Lstat(name)
	if err != nil {
		return nil // it is not there
	}
	st, ok := unix.FileStat(fi)
	if !ok || st.Uid != 0 && !whoevers || int(st.Uid) == b.id.uid {
		return nil
	}
	err = root.Lchown(name, b.id.uid, int(st.Gid))
	if errors.Is(err, unix.EROFS) {
		return nil // probe says it, once
	}
	return err
}

// probeBytes is what must fit: a filesystem that is full still makes empty files.
const probeBytes = 4096

// probeHome says whether the services' user can write the data directory.
func (b *booter) probeHome() error {
	err := tryWrite(b.home)
	if err != nil {
		return fmt.Errorf("uid %d cannot write %s (%w): %s", os.Getuid(), b.home, errno(err), b.remedy(err))
	}
	return nil
}

func tryWrite(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, probeBytes))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// remedy is what to do about a data directory that cannot be written.
func (b *booter) remedy(err error) string {
	uid, gid := homeOwner(b.home)
	switch {
	case errors.Is(err, unix.EROFS):
		return "mount it without :ro"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return "make room in it"
	case uid <= 0 || b.id.drop:
		return fmt.Sprintf("mount a directory that this uid may write, for example after: chown %d DIRECTORY", os.Getuid())
	case uid == DefaultID && gid == 0:
		return fmt.Sprintf("run the container with --user %d:0, or mount a directory that this uid may write", os.Getuid())
	}
	return fmt.Sprintf("run the container with --user %d:%d, or mount a directory that this uid may write", uid, gid)
}

// errno is the cause at the bottom of err, without the path that the caller
// names anyway.
func errno(err error) error {
	var cause unix.Errno
	if errors.As(err, &cause) {
		return cause
	}
	return err
}

// checkLinks refuses a data directory behind a link that is not root's: who may
// change where it leads would choose what root gives away, and as whom the
// services run.
func checkLinks(home string) error {
	for path := filepath.Clean(home); path != "/" && path != "."; path = filepath.Dir(path) {
		fi, err := os.Lstat(path)
		if err != nil || fi.Mode()&os.ModeSymlink == 0 {
			continue
		}
		if st, ok := unix.FileStat(fi); ok && st.Uid != 0 {
			return exitcode.With(exitcode.Config, fmt.Errorf(
				"the data directory %s is behind the symbolic link %s of uid %d: name the directory itself, or make the link as root", home, path, st.Uid))
		}
	}
	return nil
}

// homeOwner returns who the data directory belongs to, -1 when it is not there.
func homeOwner(home string) (uid, gid int) {
	fi, err := os.Stat(home)
	if err != nil {
		return -1, -1
	}
	return proc.Owner(fi)
}
