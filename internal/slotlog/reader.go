package slotlog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Reader reads the logs of several slots as one. It is not safe for concurrent
// use.
type Reader struct {
	tails []*tail
}

// New returns a reader of nothing; Watch says of what.
func New() *Reader { return &Reader{} }

// Watch makes sources what is read, and closes what is not among them any
// more. A log need not exist: it is read from its beginning once it does.
func (r *Reader) Watch(sources []Source) {
	var tails []*tail
	for _, s := range sources {
		i := slices.IndexFunc(r.tails, func(t *tail) bool { return t.source == s })
		if i < 0 {
			tails = append(tails, &tail{source: s})
			continue
		}
		tails = append(tails, r.tails[i])
		r.tails = slices.Delete(r.tails, i, i+1)
	}
	r.Close()
	r.tails = tails
}

// Last returns the last n lines of all logs together, merged by time; lines of
// one log keep their order. Next goes on behind them. Where none of the logs
// exists the error wraps fs.ErrNotExist, and Next waits for them all the same.
func (r *Reader) Last(n int) ([]Line, error) {
	var all []Line
	missing := error(fs.ErrNotExist)
	for _, t := range r.tails {
		lines, err := t.last(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the log: %w", err)
		}
		missing = nil
		all = append(all, lines...)
	}
	merge(all)
	return all[max(0, len(all)-n):], missing
}

// Next returns the lines that came since the last call, merged by time. It
// does not wait. missed names logs that were rotated away before they could be
// read to their end.
func (r *Reader) Next() (lines []Line, missed []Source, err error) {
	for _, t := range r.tails {
		more, err := t.next()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("cannot follow the log: %w", err)
		}
		lines = append(lines, more...)
		if t.missed {
			missed, t.missed = append(missed, t.source), false
		}
	}
	merge(lines)
	return lines, missed, nil
}

// merge sorts by time, but never two lines of one log.
func merge(lines []Line) {
	slices.SortStableFunc(lines, func(a, b Line) int { return a.order.Compare(b.order) })
}

// Close closes every log.
func (r *Reader) Close() {
	for _, t := range r.tails {
		t.close()
	}
	r.tails = nil
}
