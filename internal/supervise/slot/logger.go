package slot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

const (
	// s6-log: 10 archives of 1 MB, 5 MB free or none (a full disk made it deaf for minutes, measured).
	logArchives  = 10
	logFileBytes = 1_000_000
	logFreeBytes = 5_000_000
	// s6-log keeps in memory what a full disk or a stuck reader of its stdout
	// does not take, without bound (24 MB after three seconds, measured). Beyond
	// this it ends, loses that, and is started again.
	logMemoryBytes = 16 << 20
	// takenLook is how often one looks whether the log directory is free, takenLine
	// how much of a line is kept until its end comes.
	takenLook = time.Second
	takenLine = 64 << 10
)

// Log is what s6-supervise executes as `run NAME/log`: it becomes s6-log.
func (e Entry) Log() error {
	slot := filepath.Dir(e.Dir)
	spec, err := ReadSpec(slot)
	if err != nil {
		return err
	}
	if spec.Kind == supervise.KindService {
		return e.execService(spec, "log/run", nil)
	}
	if err := drop(spec); err != nil {
		return err
	}
	if ended, err := e.standIn(spec); ended || err != nil {
		return err
	}
	argv := append([]string{"s6-log"}, logScript(spec)...)
	// Not by this process: its own runtime would be the first that gets no memory.
	if _, err := exec.LookPath("s6-softlimit"); err == nil {
		argv = append([]string{"s6-softlimit", "-d", strconv.Itoa(logMemoryBytes)}, argv...)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return exitcode.With(exitcode.NotFound, fmt.Errorf("cannot find %s: %w", argv[0], err))
	}
	// Stamps are local time, which one hour a year is ambiguous: local is UTC.
	return e.Exec(path, argv, setEnv(e.Environ, "TZ=UTC0"))
}

// logScript is s6-log's: prefixed lines to stdout and, where there is room for
// them, timestamped and rotated files. s6-log adds the space after a prefix.
func logScript(spec supervise.Spec) []string {
	script := []string{"p" + spec.Prefix, "1"}
	if err := logRoom(spec.LogDir); err != nil {
		fmt.Fprintf(os.Stderr, "hermes: %s: log to stdout only: %v\n", spec.Name, err)
		return script
	}
	return append(script, "p", "n"+strconv.Itoa(logArchives), "s"+strconv.Itoa(logFileBytes), "T", spec.LogDir)
}

func logRoom(dir string) error {
	if dir == "" {
		return errors.New("no log directory")
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("cannot write %q: %w", dir, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("cannot measure %q: %w", dir, err)
	}
	if free := uint64(fs.Bavail) * uint64(fs.Bsize); free < logFreeBytes {
		return fmt.Errorf("%d bytes free in %q, %d needed", free, dir, logFreeBytes)
	}
	return nil
}

// standIn does the work of s6-log on stdout alone while the logger of another
// container has the log directory: s6-log would end at once, again and again, and
// nobody would see what a service says that stands by. It returns when the directory
// is free, or when the service has nothing more to say: then ended is true.
func (e Entry) standIn(spec supervise.Spec) (ended bool, err error) {
	if !taken(spec.LogDir) {
		return false, nil
	}
	fmt.Fprintf(os.Stderr, "hermes: %s: log to stdout only until the logger that has %q ends\n", spec.Name, spec.LogDir)
	out := prefixer{to: e.Stdout, prefix: spec.Prefix + " "}
	const stdin = 0
	buf := make([]byte, 32<<10)
	looked := time.Now()
	for {
		if len(out.rest) == 0 && time.Since(looked) >= takenLook {
			if !taken(spec.LogDir) {
				return false, nil
			}
			looked = time.Now()
		}
		fds := []unix.PollFd{{Fd: stdin, Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(takenLook.Milliseconds()))
		if n > 0 {
			n, err = unix.Read(stdin, buf)
			switch {
			case err == nil && n == 0:
				return true, out.flush()
			case err == nil:
				err = out.write(buf[:n])
			}
		}
		if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return false, fmt.Errorf("cannot pass on the log of %s: %w", spec.Name, err)
		}
	}
}

// taken says whether another s6-log has the lock of dir. One that reads the same pipe
// as this process is the slot's own, left by a supervisor that was killed: two must not
// share the lines, and s6-log refuses to.
func taken(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &l); err != nil || l.Type == unix.F_UNLCK {
		return false
	}
	mine, err := os.Readlink("/proc/self/fd/0")
	its, unseen := os.Readlink("/proc/" + strconv.Itoa(int(l.Pid)) + "/fd/0") // pid 0: of another container
	return err != nil || unseen != nil || mine != its
}

// prefixer writes whole lines with a prefix.
type prefixer struct {
	to     io.Writer
	prefix string
	rest   []byte // of a line whose end has not come
}

func (p *prefixer) write(b []byte) error {
	var lines []byte
	for {
		line, after, whole := bytes.Cut(b, []byte("\n"))
		p.rest = append(p.rest, line...)
		if !whole && len(p.rest) < takenLine {
			break
		}
		lines = append(append(append(lines, p.prefix...), p.rest...), '\n')
		p.rest, b = p.rest[:0], after
		if !whole {
			break
		}
	}
	_, err := p.to.Write(lines)
	return err
}

func (p *prefixer) flush() error {
	if len(p.rest) == 0 {
		return nil
	}
	return p.write([]byte("\n"))
}
