package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/supervise"
)

const (
	// pollEvery is how often the services are asked while somebody watches.
	pollEvery = time.Second
	// pollTimeout is far above what a Lister promises (under a second).
	pollTimeout = 5 * time.Second
	// maxStreams bounds open event streams: each browser tab has one.
	maxStreams = 64
	// memoryStep is the least change of memory, in bytes, that is worth a
	// message; the page shows tenths of a MiB.
	memoryStep = 1 << 20 / 10
)

// snapshot is what the watchers were last told.
type snapshot struct {
	version uint64 // 0: nothing known yet
	event   string // services or trouble
	data    []byte // one line of JSON
}

// watcher asks the lister while somebody watches and tells all of them when
// something changed.
type watcher struct {
	lister supervise.Lister
	log    *slog.Logger
	wake   chan struct{} // somebody joined

	mu       sync.Mutex
	watching int
	now      snapshot
	seen     []byte        // what now was made from, without noise
	changed  chan struct{} // closed when now is replaced
	versions uint64
}

func newWatcher(l supervise.Lister, log *slog.Logger) *watcher {
	return &watcher{lister: l, log: log, wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// run polls until ctx ends.
func (w *watcher) run(ctx context.Context) {
	for {
		var next <-chan time.Time // nil while nobody watches: waits for wake
		if w.anybody() {
			w.poll(ctx)
			next = time.After(pollEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-next:
		}
	}
}

func (w *watcher) anybody() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watching > 0
}

// join counts one more watcher until leave is called; ok is false when there
// are too many.
func (w *watcher) join() (leave func(), ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watching >= maxStreams {
		return nil, false
	}
	w.watching++
	select {
	case w.wake <- struct{}{}:
	default: // a wake-up is under way already
	}
	return w.leave, true
}

// leave forgets what was known with the last watcher: the next one shall see
// the present, not the past.
func (w *watcher) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watching--
	if w.watching == 0 {
		w.now, w.seen = snapshot{}, nil
	}
}

// current returns the latest snapshot and a channel that closes when there is
// a newer one.
func (w *watcher) current() (snapshot, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now, w.changed
}

// poll asks once and tells the watchers if the answer differs.
func (w *watcher) poll(ctx context.Context) {
	event, data, seen := w.ask(ctx)
	if ctx.Err() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watching == 0 || w.now.event == event && bytes.Equal(w.seen, seen) {
		return
	}
	w.versions++
	w.now, w.seen = snapshot{version: w.versions, event: event, data: data}, seen
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watcher) ask(ctx context.Context) (event string, data, seen []byte) {
	report, err := list(ctx, w.lister)
	if err == nil {
		if data, err = json.Marshal(report); err == nil {
			return "services", data, withoutNoise(report)
		}
	}
	w.log.Debug("services not listed", "error", err)
	data, _ = json.Marshal(map[string]string{"message": err.Error()}) // a map of strings always marshals
	return "trouble", data, data
}

// list asks for every service, within a bound. A report without services has
// an empty list, never null.
func list(ctx context.Context, l supervise.Lister) (supervise.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	report, err := l.List(ctx, true)
	if report.Services == nil {
		report.Services = []supervise.Service{}
	}
	return report, err
}

// withoutNoise is report with memory in steps, for comparing.
func withoutNoise(report supervise.Report) []byte {
	report.Services = slices.Clone(report.Services)
	for i, s := range report.Services {
		if s.MemoryBytes != nil {
			steps := *s.MemoryBytes / memoryStep
			report.Services[i].MemoryBytes = &steps
		}
	}
	data, _ := json.Marshal(report) // marshalled once already
	return data
}
