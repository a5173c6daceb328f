package logging

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	// maxWaiting bounds the lines that wait for a stuck reader, in bytes. The
	// pipe to the logger holds another 64 KiB.
	maxWaiting = 256 << 10
	// putPatience is how long a line's writer waits for it to be gone: far
	// longer than a reader that lives takes, and paid once, when it gets stuck.
	putPatience = 100 * time.Millisecond
)

// relay hands lines to a writer that may block for ever: a pipe whose reader
// is stopped, or waits for a full disk. One goroutine writes; whoever has a
// line waits for it, so that in good times a line is out before its writer goes
// on, and a kill loses none. When that takes too long nobody waits any more:
// lines are kept up to maxWaiting, later ones are dropped and counted.
//
// The descriptor stays as it is: O_NONBLOCK belongs to the open pipe, and would
// cut what others write into it, the stacks of a panic among them.
type relay struct {
	w    io.Writer
	note func(dropped int) []byte
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	waiting []parcel
	size    int // bytes in waiting
	dropped int // since the last note
	stuck   bool
	closing bool
}

// parcel is a line and who waits for it.
type parcel struct {
	line []byte
	gone chan struct{} // closed when the line is written
}

func startRelay(w io.Writer, note func(int) []byte) *relay {
	r := &relay{w: w, note: note, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go r.run()
	return r
}

// put hands over a copy of line, and returns after putPatience at the latest.
func (r *relay) put(line []byte) {
	r.mu.Lock()
	if r.closing || r.size+len(line) > maxWaiting {
		r.dropped++
		r.mu.Unlock()
		return
	}
	r.noteDropped()
	p := r.add(bytes.Clone(line))
	stuck := r.stuck
	r.mu.Unlock()
	r.poke()
	if stuck {
		return
	}
	timer := time.NewTimer(putPatience)
	defer timer.Stop()
	select {
	case <-p.gone:
	case <-timer.C:
		r.mu.Lock()
		r.stuck = len(r.waiting) > 0
		r.mu.Unlock()
	}
}

// add needs r.mu.
func (r *relay) add(line []byte) parcel {
	p := parcel{line, make(chan struct{})}
	r.waiting = append(r.waiting, p)
	r.size += len(line)
	return p
}

// noteDropped puts the count of what was dropped where it is missing. It needs
// r.mu.
func (r *relay) noteDropped() {
	if r.dropped > 0 {
		r.add(r.note(r.dropped))
		r.dropped = 0
	}
}

func (r *relay) poke() {
	select {
	case r.wake <- struct{}{}:
	default: // it is awake
	}
}

// run writes until it is closed and nothing is left.
func (r *relay) run() {
	defer close(r.done)
	for {
		p, more, last := r.first()
		switch {
		case more:
			_, _ = r.w.Write(p.line) // whom could it be told?
			r.written(p)
		case last:
			return
		default:
			<-r.wake
		}
	}
}

// first is the next line to write, which stays in waiting meanwhile.
func (r *relay) first() (p parcel, more, last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) == 0 {
		r.noteDropped()
	}
	if len(r.waiting) == 0 {
		r.stuck = false
		return parcel{}, false, r.closing
	}
	return r.waiting[0], true, false
}

func (r *relay) written(p parcel) {
	r.mu.Lock()
	r.waiting[0] = parcel{} // frees the line
	r.waiting = r.waiting[1:]
	r.size -= len(p.line)
	r.mu.Unlock()
	close(p.gone)
}

// close waits until everything is written, or limit. A write that hangs is
// left to the end of the process.
func (r *relay) close(limit time.Duration) {
	r.mu.Lock()
	r.closing = true
	r.mu.Unlock()
	r.poke()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
	}
}

// WriteWithin writes text to w and gives up after limit: the last words of a
// process must not keep it from ending. A write that hangs is left behind.
func WriteWithin(w io.Writer, text string, limit time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.WriteString(w, text)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
