// Package audit keeps logs/audit.log on the volume: a line for every stop and
// start that was asked for, every run that began and every run that ended. Who,
// from where, why, what signal, what exit.
//
// It records and never hinders: a log that cannot be written is left out, and
// a writer waits for nobody. It takes some 3 MB at most.
//
//	audit.Append(home, time.Now(), "slot", "gateway-default", "ask", "stop", "by", "cli", "uid", "0", "why", "new token")
//	2026-01-02T15:04:05Z slot=gateway-default ask=stop by=cli uid=0 why="new token"
package audit

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hermesgw/hermes/internal/unix"
)

// FileName is the log's name below the data directory.
const FileName = "logs/audit.log"

const (
	fileMode = 0o640
	maxSize  = 1 << 20 // bytes, then the file is rotated
	kept     = 2       // rotated files: audit.log.1 and audit.log.2
	maxValue = 1000    // bytes of one value
)

// Append adds one line to the log below home: pairs are keys and values in
// turn, and an empty value is left out with its key. Safe for concurrent use,
// also by several processes.
func Append(home string, at time.Time, pairs ...string) {
	path := filepath.Join(home, FileName)
	// What somebody put in its place must neither block nor lead elsewhere.
	const flags = os.O_APPEND | os.O_CREATE | os.O_WRONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	f, err := os.OpenFile(path, flags, fileMode)
	if os.IsNotExist(err) && os.MkdirAll(filepath.Dir(path), 0o750) == nil {
		f, err = os.OpenFile(path, flags, fileMode)
	}
	if err != nil {
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return
	}
	if _, err := f.WriteString(line(at, pairs)); err == nil && fi.Size() > maxSize {
		rotate(f, path)
	}
}

// line is one entry; what could end it or look like another key is quoted.
func line(at time.Time, pairs []string) string {
	var b strings.Builder
	b.WriteString(at.UTC().Format(time.RFC3339))
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			b.WriteString(" " + pairs[i] + "=" + value(pairs[i+1]))
		}
	}
	return b.String() + "\n"
}

func value(v string) string {
	if len(v) > maxValue {
		v = v[:maxValue] + "…"
	}
	odd := func(r rune) bool {
		return !unicode.IsPrint(r) || r == ' ' || r == '"' || r == '=' || r == unicode.ReplacementChar
	}
	if strings.ContainsFunc(v, odd) {
		return strconv.Quote(v)
	}
	return v
}

// rotate moves f away if it still is the log; who comes second finds that it
// is not. A line that another process writes meanwhile lands in the old file.
func rotate(f *os.File, path string) {
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	ours, err := f.Stat()
	if err != nil {
		return
	}
	if there, err := os.Lstat(path); err != nil || !os.SameFile(ours, there) {
		return
	}
	for n := kept; n > 1; n-- {
		_ = os.Rename(path+"."+strconv.Itoa(n-1), path+"."+strconv.Itoa(n)) // there may be none yet
	}
	_ = os.Rename(path, path+".1")
}
