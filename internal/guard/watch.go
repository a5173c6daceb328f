package guard

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

// watch is what the guard knows of one run.
type watch struct {
	run       Run
	seen      time.Time // when it was first seen, or when looking began anew
	next      time.Time // when it is asked again
	asking    bool
	answered  bool // it has spoken in this run
	condemned bool // it is being ended

	draining time.Time // since when it says so; zero: it does not
	silent   time.Time // when the first of the looks that went wrong in a row began
	misses   int
	load     proc.Load // at the last miss
	loadAt   time.Time
	busy     time.Time // since when nothing but its load excuses it
}

// fault says what is wrong with an answer, "" when nothing is. Its own pid must
// have given it: the slot of a profile that a foreground gateway serves stands
// by and cannot answer on a socket that is not its own.
func (w *watch) fault(a answer, now time.Time) string {
	age := now.Sub(w.seen)
	switch {
	case a.err != nil && w.answered:
		return "did not answer for " + seconds(now.Sub(w.since(a.began)))
	case a.err != nil && age < startLimit:
		return ""
	case a.err != nil:
		return "did not answer for " + seconds(age) + " after its start"
	case a.status.PID != w.run.Process.PID:
		return ""
	}
	w.answered = true
	if a.status.State != supervise.Draining {
		w.draining = time.Time{}
	} else if w.draining.IsZero() {
		w.draining = now
	}
	switch {
	case a.status.State == supervise.Starting && age >= startLimit:
		return "was not ready " + seconds(age) + " after its start"
	case !w.draining.IsZero() && now.Sub(w.draining) >= w.run.StopTimeout+drainSlack:
		return "did not finish draining in " + seconds(now.Sub(w.draining))
	}
	return ""
}

// ours says that a question failed for a reason of the guard's own process: it
// says nothing about the gateway.
func ours(err error) bool {
	for _, reason := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, os.ErrPermission} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

// since is when the silence began, of which a look at began is a part.
func (w *watch) since(began time.Time) time.Time {
	if w.misses > 0 {
		return w.silent
	}
	return began
}

// well forgets what went wrong.
func (w *watch) well() {
	w.misses, w.silent, w.busy, w.load, w.loadAt = 0, time.Time{}, time.Time{}, proc.Load{}, time.Time{}
}

// miss counts a look that began at began and went wrong, and says whether it
// was the last one. A process that had, or waited for, its share of the machine
// since the miss before is busy, not deaf: it starts from nothing, for as long
// as patience lasts.
func (w *watch) miss(began, now time.Time, load proc.Load) bool {
	before, at := w.load, w.loadAt
	w.load, w.loadAt = load, now
	if w.misses > 0 && progressed(before, load, now.Sub(at)) {
		if w.busy.IsZero() {
			w.busy = now
		}
		if now.Sub(w.busy) < patience {
			w.misses, w.silent = 1, began // what it used from here on is yet to be seen
			return false
		}
	}
	if w.misses == 0 {
		w.silent = began
	}
	w.misses++
	return w.misses >= shots
}

// progressed says whether a process got, or stood in line for, a quarter of
// one core: what sleeps in a deadlock, or is stopped, wants none; a gateway that
// fails its own check every second wants a hundredth. A thread that waits for a
// disk is at work too.
func progressed(before, after proc.Load, took time.Duration) bool {
	wanted := after.CPU + after.Waited - before.CPU - before.Waited
	return after.Blocked || wanted >= took/4
}

func seconds(d time.Duration) string { return fmt.Sprintf("%d s", int(d.Round(time.Second).Seconds())) }
