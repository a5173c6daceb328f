package slotlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"
)

// Names in a directory of s6-log. previous is current on its way to being an
// archive; archives are called @TAI64N.s (or .u, of a logger that was killed).
const (
	currentName   = "current"
	previousName  = "previous"
	archivePrefix = "@"
)

const (
	// snapshotTries bounds how often a directory is looked at again because a
	// rotation changed it meanwhile; s6-log would have to write megabytes each time.
	snapshotTries = 10
	// maxArchives bounds how many rotated files are opened: s6-log keeps ten.
	maxArchives = 100
	readSize    = 64 << 10
)

// tail is one log that is read on and on.
type tail struct {
	source Source
	file   *os.File        // current when it was last looked at; nil while there is none
	known  map[string]bool // archives that need no look any more
	read   []os.FileInfo   // files that were read before they got an archive's name
	split  splitter
	moved  bool // the next bytes are the first of another file
	done   bool // file is an archive: nothing will be added to it
	stamp  time.Time
	order  time.Time
	missed bool // something was rotated away unread
}

// piece is one opened file of a log.
type piece struct {
	name string
	file *os.File
	info os.FileInfo
}

// last returns the last n lines and leaves current open behind them. Where
// there is no log the error wraps fs.ErrNotExist.
func (t *tail) last(n int) ([]Line, error) {
	pieces, names, err := t.snapshot()
	if err != nil {
		return nil, err
	}
	if len(pieces) == 0 {
		return nil, fs.ErrNotExist
	}
	from, count := len(pieces), 0
	for from > 0 && count < n {
		from--
		lines, err := countLines(pieces[from].file)
		if err != nil {
			closeAll(pieces)
			return nil, err
		}
		count += lines
	}
	if n == 0 { // only the end of the newest is of interest
		from = len(pieces) - 1
	}
	for _, p := range pieces[:from] {
		p.file.Close()
	}
	lines, err := t.take(pieces[from:])
	t.learn(pieces, names)
	return slices.Clone(lines[max(0, len(lines)-n):]), err
}

func countLines(f *os.File) (int, error) {
	buf := make([]byte, readSize)
	count := 0
	for {
		n, err := f.Read(buf)
		count += bytes.Count(buf[:n], []byte("\n"))
		if errors.Is(err, io.EOF) {
			_, err = f.Seek(0, io.SeekStart)
			return count, err
		}
		if err != nil {
			return 0, err
		}
	}
}

// next returns what was written since. s6-log renames current and makes a new
// one: the old file is read to its end, then what was rotated meanwhile, then
// the new current.
func (t *tail) next() ([]Line, error) {
	lines, err := t.drain(nil)
	if err != nil || !t.rotated() {
		return lines, err
	}
	pieces, names, err := t.snapshot()
	if err != nil {
		return lines, err
	}
	fresh := pieces[:0:0]
	mine := t.file == nil || t.done
	for _, p := range pieces {
		switch {
		case t.is(p.info):
			mine = true
			p.file.Close()
		case slices.ContainsFunc(t.read, func(fi os.FileInfo) bool { return os.SameFile(fi, p.info) }):
			p.file.Close()
		default:
			fresh = append(fresh, p)
		}
	}
	t.missed = t.missed || !mine
	if lines, err = t.drain(lines); err != nil { // its last lines, written before it was renamed
		closeAll(fresh)
		return lines, err
	}
	more, err := t.take(fresh)
	t.learn(pieces, names)
	return append(lines, more...), err
}

// rotated says whether current is another file than the one that is open.
func (t *tail) rotated() bool {
	now, err := os.Stat(filepath.Join(t.source.Dir, currentName))
	return err == nil && !t.is(now) // without one: between rename and create, or no log yet
}

func (t *tail) is(info os.FileInfo) bool {
	if t.file == nil {
		return false
	}
	mine, err := t.file.Stat()
	return err == nil && os.SameFile(mine, info)
}

// take reads pieces in order and leaves the last one open.
func (t *tail) take(pieces []piece) (lines []Line, err error) {
	for i, p := range pieces {
		t.close()
		t.file, t.moved, t.done = p.file, true, strings.HasPrefix(p.name, archivePrefix)
		if lines, err = t.drain(lines); err != nil {
			closeAll(pieces[i+1:])
			return lines, err
		}
	}
	return lines, nil
}

// learn notes what need not be read again: every archive there was, and what
// will be one soon.
func (t *tail) learn(pieces []piece, names []string) {
	t.known, t.read = map[string]bool{}, nil
	for _, name := range names {
		t.known[name] = true
	}
	for _, p := range pieces {
		if !t.known[p.name] {
			t.read = append(t.read, p.info)
		}
	}
}

// snapshot opens what is not known yet, oldest first: archives, previous,
// current. names are all archives, known ones too. A rotation meanwhile makes
// it look again, so that nothing is missing between two of the files.
func (t *tail) snapshot() (pieces []piece, names []string, err error) {
	for range snapshotTries {
		before, err := rotatedNames(t.source.Dir)
		if err != nil {
			return nil, nil, err
		}
		if pieces, err = t.openNew(before); err != nil {
			return nil, nil, err
		}
		after, err := rotatedNames(t.source.Dir)
		if err != nil {
			closeAll(pieces)
			return nil, nil, err
		}
		if slices.Equal(before, after) {
			return pieces, slices.DeleteFunc(before, func(n string) bool { return n == previousName }), nil
		}
		closeAll(pieces)
	}
	return nil, nil, fmt.Errorf("%q is rotated faster than it can be read", t.source.Dir)
}

// rotatedNames lists archives by age, and previous last if it is there. TAI64N
// names sort by time.
func rotatedNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), archivePrefix) || e.Name() == previousName {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names) // @ sorts before p
	return names[max(0, len(names)-maxArchives):], nil
}

// openNew opens those of names that are not known, and current.
func (t *tail) openNew(names []string) (pieces []piece, err error) {
	for _, name := range append(slices.Clone(names), currentName) {
		if t.known[name] {
			continue
		}
		p, err := openPiece(t.source.Dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away, or not made yet
		}
		if err != nil {
			closeAll(pieces)
			return nil, err
		}
		if n := len(pieces); n > 0 && os.SameFile(pieces[n-1].info, p.info) { // renamed between two opens
			p.file.Close()
			continue
		}
		pieces = append(pieces, p)
	}
	return pieces, nil
}

// openPiece opens what should be a log; a FIFO in its place must not block.
func openPiece(dir, name string) (piece, error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return piece{}, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return piece{}, errors.Join(fmt.Errorf("%q is not a file", path), err, f.Close())
	}
	return piece{name, f, info}, nil
}

func closeAll(pieces []piece) {
	for _, p := range pieces {
		p.file.Close()
	}
}

// drain appends what can be read of the open file. One that became shorter
// was emptied by somebody, and is read from its beginning.
func (t *tail) drain(lines []Line) ([]Line, error) {
	if t.file == nil {
		return lines, nil
	}
	if at, err := t.file.Seek(0, io.SeekCurrent); err != nil {
		return lines, err
	} else if info, err := t.file.Stat(); err == nil && info.Size() < at {
		if _, err := t.file.Seek(0, io.SeekStart); err != nil {
			return lines, err
		}
	}
	emit := func(raw []byte, cut int) { lines = append(lines, t.line(raw, cut)) }
	buf := make([]byte, readSize)
	for {
		n, err := t.file.Read(buf)
		if n > 0 {
			// A logger that died left half a line; what another one began has a stamp.
			if _, _, stamped := cutStamp(buf[:n]); t.moved && stamped && t.split.unfinished() {
				t.split.flush(emit)
			}
			t.moved = false
			t.split.feed(buf[:n], emit)
		}
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
	}
}

func (t *tail) line(raw []byte, cut int) Line {
	at, text, ok := cutStamp(raw)
	if ok {
		t.stamp = at
	}
	if t.stamp.After(t.order) {
		t.order = t.stamp
	}
	l := Line{Source: t.source, Time: t.stamp, Raw: string(raw), Cut: cut, order: t.order}
	l.Text = l.Raw[len(raw)-len(text):]
	return l
}

func (t *tail) close() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}
