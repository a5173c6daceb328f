package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/hermesgw/hermes/internal/unix"
)

// A tag is a number that a process cannot lose by accident: it stands in the
// limit of real-time CPU, which children inherit through fork, exec, setsid and
// a cleared environment, and which only a process that sets that limit itself
// changes (setrlimit(2), RLIMIT_RTTIME). The limit is in microseconds and binds
// threads with a real-time scheduler alone; every tag is over 160,000 years, so
// it limits nobody.
const (
	tagBase = uint64(0x4845) << 48 // "HE": what is not below it is no tag
	tagMask = uint64(1)<<48 - 1
	limits  = "limits"
)

// Tag is what SetTag puts on a process; 0 is none.
type Tag uint64

// TagOf makes a tag of any 48 bits of n.
func TagOf(n uint64) Tag { return Tag(tagBase | n&tagMask) }

// SetTag puts tag on this process and on all that it will start. It may be
// refused: by a sandbox that does not know the limit, or because the limit was
// lowered before, which nobody may undo.
func SetTag(tag Tag) error {
	limit := unix.Rlimit{Cur: uint64(tag), Max: uint64(tag)}
	if err := unix.Setrlimit(unix.RLIMIT_RTTIME, &limit); err != nil {
		return fmt.Errorf("cannot tag this process: %w", err)
	}
	return nil
}

// Tag returns the tag that p carries, 0 when it has none or nobody says.
func (p Process) Tag() Tag {
	var limit unix.Rlimit
	err := unix.Prlimit(p.PID, unix.RLIMIT_RTTIME, nil, &limit)
	switch {
	case err == nil:
		return tagIn(limit.Max)
	case errors.Is(err, unix.ESRCH):
		return 0
	}
	// Another user's process, or a sandbox: /proc tells everybody.
	b, err := os.ReadFile(path(p.PID, limits))
	if err != nil {
		return 0
	}
	return parseTag(b)
}

// tagIn finds the tag in a hard limit; the soft one can be lowered and raised
// again. 0 for no limit, or somebody's own.
func tagIn(limit uint64) Tag {
	if limit&^tagMask != tagBase {
		return 0
	}
	return Tag(limit)
}

// parseTag finds the hard limit in /proc/PID/limits (proc(5)).
func parseTag(b []byte) Tag {
	_, rest, found := bytes.Cut(b, []byte("Max realtime timeout"))
	if !found {
		return 0
	}
	line, _, _ := bytes.Cut(rest, []byte{'\n'})
	fields := bytes.Fields(line)
	if len(fields) < 2 {
		return 0
	}
	n, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil { // "unlimited"
		return 0
	}
	return tagIn(n)
}
