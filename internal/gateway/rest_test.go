package gateway

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hermesgw/hermes/internal/chat"
)

type stages int

func (s *stages) Stage(string, time.Duration) { *s++ }
func (*stages) Tokens(string, chat.Usage)     {}

// Memory is given back once after the start and once after each time of work,
// never in the middle of it and never again and again.
func TestMemoryIsGivenBackWhenItIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard stages
		var freed atomic.Int64
		r := newResting(&heard, func() { freed.Add(1) })
		want := func(when string, n int64) {
			t.Helper()
			synctest.Wait()
			if freed := freed.Load(); freed != n {
				t.Errorf("%s: memory was given back %d times, want %d", when, freed, n)
			}
		}
		time.Sleep(time.Hour)
		want("an hour after the start", 1)
		for range 100 {
			r.Stage("total", time.Second)
			time.Sleep(restAfter - time.Millisecond)
		}
		want("at work", 1)
		time.Sleep(time.Hour)
		want("an hour after work", 2)
		if heard != 100 {
			t.Errorf("the observer heard %d stages, want 100", heard)
		}
	})
}
