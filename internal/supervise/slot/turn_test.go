package slot

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/supervise"
)

func turnsIn(t *testing.T) supervise.Spec {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(rundir.Dir(dir).Hermes(), 0o700); err != nil {
		t.Fatal(err)
	}
	return supervise.Spec{RunDir: dir}
}

// However many start at once, Turns of them are between spawn and ready and no
// more, and all have their turn.
func TestStartsAreStaggered(t *testing.T) {
	spec := turnsIn(t)
	starts := 10 * Turns()
	var at, most, had atomic.Int64
	full := make(chan struct{}) // closed when all turns are taken
	var all sync.WaitGroup
	for range starts {
		all.Go(func() {
			turn := takeTurn(t.Context(), spec)
			if turn == nil {
				t.Error("a start waited in vain")
				return
			}
			n := at.Add(1)
			if had.Add(1) == int64(Turns()) {
				close(full)
			}
			for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
			}
			select {
			case <-full:
			case <-time.After(turnLimit):
				t.Errorf("%d start at a time, want %d", at.Load(), Turns())
			}
			at.Add(-1)
			turn.Close()
		})
	}
	all.Wait()
	if most.Load() != int64(Turns()) || had.Load() != int64(starts) {
		t.Errorf("%d started at a time, want %d; %d of %d had a turn", most.Load(), Turns(), had.Load(), starts)
	}
}

// Those who keep their turn hold nobody up for ever, and the end of one is a turn.
func TestKeptTurnsHoldNobodyUp(t *testing.T) {
	spec := turnsIn(t)
	var kept []*os.File
	for range Turns() {
		kept = append(kept, takeTurn(t.Context(), spec))
	}
	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if turn := takeTurn(brief, spec); turn != nil {
		t.Error("there is a turn more than there are")
	}
	kept[0].Close()
	if turn := takeTurn(t.Context(), spec); turn == nil {
		t.Error("a turn that was given back is not taken")
	}
	for _, turn := range kept[1:] {
		turn.Close()
	}
}

// Where there can be no locks, a gateway starts all the same.
func TestNoTurnsWithoutTheirDirectory(t *testing.T) {
	if turn := takeTurn(t.Context(), supervise.Spec{RunDir: t.TempDir()}); turn != nil {
		t.Error("a turn from nowhere")
	}
}
