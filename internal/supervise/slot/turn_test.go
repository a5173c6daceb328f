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

// However many start at once, no more than Turns are between spawn and ready, and
// all have their turn.
func TestStartsAreStaggered(t *testing.T) {
	spec := turnsIn(t)
	var at, most, had atomic.Int64
	var all sync.WaitGroup
	for range 10 * Turns() {
		all.Go(func() {
			turn := takeTurn(t.Context(), spec)
			if turn == nil {
				t.Error("a start waited in vain")
				return
			}
			for n := at.Add(1); ; {
				seen := most.Load()
				if n <= seen || most.CompareAndSwap(seen, n) {
					break
				}
			}
			time.Sleep(time.Millisecond) // the start
			at.Add(-1)
			had.Add(1)
			turn.Close()
		})
	}
	all.Wait()
	if most.Load() > int64(Turns()) || most.Load() < 2 || had.Load() != int64(10*Turns()) {
		t.Errorf("%d started at a time, want 2 to %d; %d of %d had a turn", most.Load(), Turns(), had.Load(), 10*Turns())
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
