package s6

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/unix"
)

// Scandir is the path of the directory that an s6-svscan serves: each
// subdirectory without a leading dot is a service.
type Scandir string

// MaxServices is how many services an s6-svscan serves unless told otherwise,
// loggers not counted (2.11; newer ones serve as many at least). It ignores
// the ones beyond, so they are refused here.
const MaxServices = 500

// ScanCommand is one or more bytes for s6-svscan.
type ScanCommand string

// The commands of s6-svscanctl that are used here.
const (
	Scan ScanCommand = "a" // start supervisors for new services
	Reap ScanCommand = "z"
	Stop ScanCommand = "t" // end all services, then s6-svscan itself
)

// Dir is the path of the service name.
func (s Scandir) Dir(name string) string { return filepath.Join(string(s), name) }

// Alive says with nil that an s6-svscan reads commands there and that this user
// may give some. Errors: ErrNoScanner, ErrDenied.
func (s Scandir) Alive() error { return s.Control("") }

// Control writes commands to s6-svscan. There is no answer: what they do shows
// in the services only. Errors: ErrNoScanner, ErrDenied, ErrBusy.
func (s Scandir) Control(commands ScanCommand) error {
	err := sendTo(s.control(), string(commands))
	if err == nil {
		return nil
	}
	if err = classify(string(s), err); errors.Is(err, ErrNotSupervised) || errors.Is(err, ErrNotService) {
		err = ErrNoScanner
	}
	if commands == "" {
		return fmt.Errorf("cannot use scan directory %q: %w", string(s), err)
	}
	return fmt.Errorf("cannot send %q to scan directory %q: %w", commands, string(s), err)
}

func (s Scandir) control() string { return filepath.Join(string(s), ".s6-svscan", "control") }

// Services lists the names of the services, sorted: what s6-svscan would
// supervise, whether it does or not.
func (s Scandir) Services() ([]string, error) {
	entries, err := os.ReadDir(string(s))
	if err != nil {
		return nil, fmt.Errorf("cannot list services: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 { // s6-svscan follows it
			info, err := os.Stat(s.Dir(e.Name()))
			isDir = err == nil && info.IsDir()
		}
		if isDir {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// CheckName refuses what cannot be the name of a service of ours: s6-svscan
// skips a leading dot, and s6-svscan-log is its own catch-all logger. The
// limit of 200 bytes leaves room for the temporary names of Register.
func CheckName(name string) error {
	if name == "" || len(name) > 200 || name[0] == '.' || name == "s6-svscan-log" ||
		strings.ContainsFunc(name, func(r rune) bool { return r == '/' || r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%q cannot be the name of a service", name)
	}
	return nil
}

// Register adds the service name and returns when its supervisor runs, and the
// logger's too if there is a directory log. Whether the service itself starts is
// its own matter (a file down keeps it down).
//
// build fills the directory it is given (0755, hidden from s6-svscan) with
// everything: run, notification-fd, down, data, log. It may make event/ with a
// mode of its own choice; else that gets 03730, as s6 does: only the group
// subscribes. What it made is removed if anything fails.
//
// Errors: ErrExists, ErrTooMany, ErrNoScanner, ErrDenied, ctx.Err(), build's
// own. Safe for concurrent use, in other processes too. As root beside another
// user's s6-svscan (docker exec), what build made is given to that user.
func (s Scandir) Register(ctx context.Context, name string, build func(dir string) error) error {
	if err := s.register(ctx, name, build); err != nil {
		return fmt.Errorf("cannot register service %q: %w", name, err)
	}
	return nil
}

func (s Scandir) register(ctx context.Context, name string, build func(dir string) error) error {
	if err := s.admits(name); err != nil {
		return err
	}
	hidden, err := os.MkdirTemp(string(s), "."+name+".new.")
	if err != nil {
		return err
	}
	r := registration{scandir: s, name: name, dir: hidden}
	defer r.close()
	if err := r.prepare(build); err != nil {
		return errors.Join(err, s.removeTree(filepath.Base(hidden)))
	}
	if err := r.publish(); err != nil {
		return errors.Join(err, s.removeTree(filepath.Base(hidden)))
	}
	if err := r.await(ctx); err != nil {
		return errors.Join(err, s.withdraw(ctx, name))
	}
	return nil
}

// admits says whether s6-svscan would take one more service of that name.
func (s Scandir) admits(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := s.Alive(); err != nil {
		return err
	}
	names, err := s.Services()
	if err != nil {
		return err
	}
	if slices.Contains(names, name) {
		return ErrExists
	}
	if len(names) >= MaxServices {
		return fmt.Errorf("%w: %d, at most %d", ErrTooMany, len(names), MaxServices)
	}
	return nil
}

// registration is one service on its way into a scan directory.
type registration struct {
	scandir Scandir
	name    string
	dir     string // hidden at first
	subs    []*Subscription
}

func (r *registration) close() {
	for _, sub := range r.subs {
		_ = sub.Close()
	}
}

// prepare fills the hidden directory and subscribes to the supervisors to come.
func (r *registration) prepare(build func(dir string) error) error {
	if err := os.Chmod(r.dir, 0o755); err != nil {
		return err
	}
	if err := build(r.dir); err != nil {
		return err
	}
	dirs := []string{r.dir}
	if info, err := os.Stat(filepath.Join(r.dir, "log")); err == nil && info.IsDir() {
		dirs = append(dirs, filepath.Join(r.dir, "log"))
	}
	for _, dir := range dirs {
		if err := makeEventDir(dir); err != nil {
			return err
		}
	}
	if err := r.scandir.handOver(filepath.Base(r.dir)); err != nil {
		return err
	}
	for _, dir := range dirs {
		sub, err := Subscribe(dir)
		if err != nil {
			return err
		}
		r.subs = append(r.subs, sub)
	}
	return nil
}

// eventMode is what s6-supervise gives to an event directory that it makes:
// the group subscribes, nobody else, and nobody removes another's FIFO.
const eventMode = os.ModeSetgid | os.ModeSticky | 0o730

func makeEventDir(dir string) error {
	event := filepath.Join(dir, "event")
	if err := os.Mkdir(event, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chmod(event, eventMode)
}

// handOver gives entry and all below it to the user of s6-svscan, if that is
// not us: s6-supervise, started by it, must write there. Only root can be
// somebody else here. The scan directory is that user's to change at any time,
// so no link is followed, and a file with a second name is refused: it may be
// one of root's.
func (s Scandir) handOver(entry string) error {
	var owner unix.Stat_t
	if err := unix.Stat(s.control(), &owner); err != nil {
		return fmt.Errorf("cannot learn who runs s6-svscan: %w", err)
	}
	if os.Geteuid() != 0 || owner.Uid == 0 {
		return nil
	}
	root, err := os.OpenRoot(string(s))
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), entry, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := root.Lstat(path)
		if err != nil {
			return err
		}
		if st, ok := unix.FileStat(info); ok && !d.IsDir() && st.Nlink > 1 {
			return fmt.Errorf("cannot give away %q: it has %d names", path, st.Nlink)
		}
		return root.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
}

// publish gives the directory its name, whole, and tells s6-svscan to look.
func (r *registration) publish() error {
	dir := r.scandir.Dir(r.name)
	if err := os.Rename(r.dir, dir); err != nil { // replaces no directory, no file and no link
		if _, e := os.Lstat(dir); e == nil {
			return ErrExists
		}
		return err
	}
	for i, sub := range r.subs {
		sub.dir = filepath.Join(dir, []string{"", "log"}[i])
	}
	r.dir = dir
	return nil
}

// await asks s6-svscan for a scan and waits for each supervisor.
func (r *registration) await(ctx context.Context) error {
	if err := r.scandir.Control(Scan); err != nil {
		return err
	}
	for _, sub := range r.subs {
		if err := sub.awaitSupervisor(ctx); err != nil {
			return fmt.Errorf("s6-svscan started no supervisor for %q: %w", sub.dir, err)
		}
	}
	return nil
}

// withdrawPatience bounds the removal of a service whose registration failed.
const withdrawPatience = 5 * time.Second

// withdraw undoes a publish, also when ctx is over.
func (s Scandir) withdraw(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawPatience)
	defer cancel()
	return s.unregister(ctx, name)
}

// removeTree deletes an entry of the scan directory and all below it. It
// follows no symbolic link, whoever put it there meanwhile.
func (s Scandir) removeTree(entry string) error {
	root, err := os.OpenRoot(string(s))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(entry)
}
