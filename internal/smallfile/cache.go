package smallfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/unix"
)

const (
	// settled is how old a change must be for what follows it to be remembered: two
	// changes within one tick of a filesystem's clock can leave the same stamps. On
	// Linux a tick is at most 10 ms.
	settled = time.Second
	// worthwhile is the part of what was read, one in so many, that must be new for
	// it to be worth a write.
	worthwhile = 8
	// forgotten is how often Save finds a file unread before it is forgotten: several
	// may read, and save, at the same time.
	forgotten = 4
	// maxKept is far above what a thousand slots take.
	maxKept = 4 << 20
	// keptHeader begins a kept cache; any other version is as good as none.
	keptHeader = "hermes smallfile 1\n"
)

// Cache remembers what files held. That counts only while a look at the file finds
// the very same one: device, inode, size and the times of its last change. So a
// Cache is never behind the files; it spares opening and reading, each of which in a
// container can be a message to a storage driver in user space.
//
// A nil Cache remembers nothing. A Cache is safe for concurrent use.
type Cache struct {
	dir  *Dir
	path string // where it is kept
	now  func() time.Time

	mu     sync.Mutex
	loaded bool
	files  map[string]*remembered
	learnt int // since the last Save
}

// remembered is one file.
type remembered struct {
	id      identity
	content []byte
	unused  int // calls of Save since it was read
}

// identity tells a file, and what is in it, from all others that ever had its name.
type identity struct {
	Device, Inode, Size uint64
	Modified, Changed   int64 // ns after 1970
}

// KeptIn returns the Cache of files in dir that the processes of this user keep in
// the file at path. It is read at the first use. One that is not there, of another
// user or damaged is an empty one.
func KeptIn(path string, dir *Dir) *Cache { return &Cache{path: path, dir: dir, now: time.Now} }

// Open is Dir.Open; nothing is remembered of it.
func (c *Cache) Open(path string, flags int) (fd int, err error) { return c.in().Open(path, flags) }

func (c *Cache) in() *Dir {
	if c == nil {
		return nil
	}
	return c.dir
}

// Read is Dir.Read. What it returns is shared and must not be changed.
func (c *Cache) Read(path string, limit int) ([]byte, error) {
	b, _, err := c.read(path, limit, func() ([]byte, time.Time, error) {
		b, err := c.in().Read(path, limit)
		return b, time.Time{}, err
	})
	return b, err
}

// ReadWithTime is Dir.ReadWithTime. What it returns is shared and must not
// be changed.
func (c *Cache) ReadWithTime(path string, limit int) ([]byte, time.Time, error) {
	return c.read(path, limit, func() ([]byte, time.Time, error) { return c.in().ReadWithTime(path, limit) })
}

func (c *Cache) read(path string, limit int, fresh func() ([]byte, time.Time, error)) ([]byte, time.Time, error) {
	if c == nil {
		return fresh()
	}
	// Identified before it is read: a file that is replaced meanwhile is remembered
	// under an identity that no look will find again.
	id, ok := c.identify(path)
	if !ok {
		return fresh()
	}
	if b, ok := c.recall(path, id); ok && len(b) <= limit {
		return b, time.Unix(0, id.Modified), nil
	}
	b, at, err := fresh()
	if err == nil && uint64(len(b)) == id.Size {
		c.remember(path, id, b)
	}
	return b, at, err
}

// Modified says when what is at path, a file or whatever else, was modified.
func (c *Cache) Modified(path string) (time.Time, error) {
	st, err := c.stat(path, unix.STATX_MTIME)
	return time.Unix(0, nanos(st.Mtime)), err
}

// identify says which regular file is at path.
func (c *Cache) identify(path string) (identity, bool) {
	st, err := c.stat(path, unix.STATX_TYPE|unix.STATX_INO|unix.STATX_SIZE|unix.STATX_MTIME|unix.STATX_CTIME)
	return identity{
		Device: uint64(st.Dev_major)<<32 | uint64(st.Dev_minor), Inode: st.Ino, Size: st.Size,
		Modified: nanos(st.Mtime), Changed: nanos(st.Ctime),
	}, err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// stat asks for fields alone. The time of access, which every reader makes stale,
// would cost a message on a FUSE mount.
func (c *Cache) stat(path string, fields int) (st unix.Statx_t, err error) {
	dir, relative := c.in().at(path)
	for {
		err = unix.Statx(dir, relative, unix.AT_SYMLINK_NOFOLLOW, fields, &st)
		if !errors.Is(err, unix.EINTR) {
			return st, wrap("stat", path, err)
		}
	}
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*int64(time.Second) + int64(t.Nsec) }

func (c *Cache) recall(path string, id identity) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.load()
	r := c.files[path]
	if r == nil || r.id != id {
		return nil, false
	}
	r.unused = 0
	return r.content, true
}

func (c *Cache) remember(path string, id identity, b []byte) {
	if age := c.now().Sub(time.Unix(0, max(id.Modified, id.Changed))); age < settled { // also when the clock was set back
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files == nil {
		c.files = map[string]*remembered{}
	}
	c.files[path] = &remembered{id, b, 0}
	c.learnt++
}

// load reads what is kept, once. The caller has the lock.
func (c *Cache) load() {
	if c.loaded {
		return
	}
	c.loaded = true
	fd, err := c.dir.Open(c.path, unix.O_RDONLY)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if !ours(fd) {
		return
	}
	if b, err := readAll(fd, maxKept); err == nil {
		c.files = decode(b)
	}
}

// ours says whether an open file is this user's own: nobody else has a say in what
// is remembered, least of all for root.
func ours(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && int(st.Uid) == os.Geteuid()
}

// Save forgets files that nobody reads any more, and keeps the rest for other
// processes where that is worth a write: one in eight had to be read anew. It
// reports no failure: that costs the next reader time, and nothing else.
func (c *Cache) Save() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for path, r := range c.files {
		if r.unused++; r.unused > forgotten {
			delete(c.files, path)
		}
	}
	write := c.learnt > 0 && c.learnt*worthwhile >= len(c.files)
	c.learnt = 0
	if write && c.mayKeep() {
		_ = atomicfile.WriteVolatile(c.path, encode(c.files), 0o600)
	}
}

// mayKeep keeps root from writing where a service may put a link.
func (c *Cache) mayKeep() bool {
	fd, err := c.dir.Open(filepath.Dir(c.path), unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return ours(fd)
}

// A kept cache is the header and then, for each file, its path and what was in it,
// each after its length as a varint, and its identity, big-endian.
func encode(files map[string]*remembered) []byte {
	b := []byte(keptHeader)
	for path, r := range files {
		b = appendBytes(appendBytes(b, []byte(path)), r.content)
		b, _ = binary.Append(b, binary.BigEndian, r.id) // of fixed size: it cannot fail
	}
	return b
}

func appendBytes(b, what []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(what))), what...)
}

// decode returns nothing at all for what is damaged.
func decode(b []byte) map[string]*remembered {
	b, ok := bytes.CutPrefix(b, []byte(keptHeader))
	files := map[string]*remembered{}
	for ok && len(b) > 0 {
		var path []byte
		r := &remembered{}
		if path, b, ok = cutBytes(b); ok {
			r.content, b, ok = cutBytes(b)
		}
		n, err := binary.Decode(b, binary.BigEndian, &r.id)
		if ok = ok && err == nil; ok {
			files[string(path)], b = r, b[n:]
		}
	}
	if !ok {
		return nil
	}
	return files
}

func cutBytes(b []byte) (what, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	b = b[size:]
	return b[:n:n], b[n:], true
}
