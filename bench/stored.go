package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// storedTurns are answered over storedChats conversations, chats of them at once.
	storedTurns = 50_000
	storedChats = 5_000
)

func storedJob() job {
	const empty, full = "spawn → ready, nothing stored", "spawn → ready, 50000 turns stored"
	return job{
		name: "stored", title: "a store with many turns",
		how: fmt.Sprintf("%d messages over %d chats, %d at once, offline model; the private memory (USS) of the gateway's process before, "+
			"in the middle and at the end, each after a pause of -settle. Then gateway restart: from the first sight of the new process, "+
			"looked for every millisecond, to the first 200 of /readyz.", storedTurns, storedChats, chats),
		run: func(ctx context.Context, l *lab, r *Result) error {
			few := *l
			few.runs = min(l.runs, memoryRuns)
			err := few.rounds(ctx, []contestant{l.supervised()}, func(ctx context.Context, c contestant) error {
				box, err := l.docker.serving(ctx, c)
				if err != nil {
					return err
				}
				if err := l.timeRespawns(ctx, box, empty, r); err != nil {
					return err
				}
				if err := l.weighTurns(ctx, box, r); err != nil {
					return err
				}
				if err := l.timeRespawns(ctx, box, full, r); err != nil {
					return err
				}
				return box.remove(ctx)
			})
			most := r.samples(weighed(2))
			r.claim(Claim{What: "private memory after 50,000 turns over 5,000 chats", Unit: megabytes, Floor: 40, Goal: 20, Measured: median(most)})
			r.claim(Claim{What: "the same: growth over the second half (goal: 0)", Unit: megabytes, Floor: 1, Measured: difference(most, r.samples(weighed(1)))})
			r.claim(Claim{What: "gateway's start → ready with 50,000 stored turns", Unit: milliseconds, Floor: 300, Goal: 100, Measured: median(r.samples(full))})
			return err
		},
	}
}

// weighed names the private memory with so many halves of the turns stored.
func weighed(halves int) string {
	return fmt.Sprintf("gateway, USS, %d turns stored", halves*storedTurns/2)
}

// weighTurns has all turns answered and weighs the gateway before, in the middle
// and at the end. The connections are the same throughout: each that is open is a
// part of the gateway's memory, and no turn.
func (l *lab) weighTurns(ctx context.Context, box *container, r *Result) error {
	people := talkTo(box)
	for halves := range 3 {
		if halves > 0 {
			if err := people.fill(ctx, (halves-1)*storedTurns/2, halves*storedTurns/2); err != nil {
				return err
			}
		}
		if err := pause(ctx, l.settle); err != nil {
			return err
		}
		weight, err := box.weighGateway(ctx)
		if err != nil {
			return err
		}
		r.add(weighed(halves), megabytes, weight)
	}
	return nil
}

// fill has the turns from the first to before the last answered.
func (t talker) fill(ctx context.Context, first, last int) error {
	var g gathered
	var wg sync.WaitGroup
	var next atomic.Int64
	next.Store(int64(first))
	for range chats {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= last {
					return
				}
				g.add(t.chat(ctx, fmt.Sprint("stored", i%storedChats)))
			}
		})
	}
	wg.Wait()
	if g.err != nil {
		return g.err
	}
	return ctx.Err()
}

// weighGateway is the private memory of the gateway in MB.
func (c *container) weighGateway(ctx context.Context) (float64, error) {
	pid, err := c.gatewayPID(ctx)
	if err != nil {
		return 0, err
	}
	m, err := memoryOf(pid)
	return (m.clean + m.dirty) / megabyte, err
}

// timeRespawns restarts the gateway l.runs times, each time from its spawn to ready.
func (l *lab) timeRespawns(ctx context.Context, box *container, name string, r *Result) error {
	for range l.runs {
		took, err := box.respawn(ctx)
		if err != nil {
			return err
		}
		r.add(name, milliseconds, millis(took))
	}
	return nil
}

// respawn asks for a restart and returns how long the new process took from its
// spawn to ready.
func (c *container) respawn(ctx context.Context) (time.Duration, error) {
	old, err := c.gatewayPID(ctx)
	if err != nil {
		return 0, err
	}
	fields, err := stat(old)
	if err != nil {
		return 0, err
	}
	supervisor := fields[1] // its parent
	asked := make(chan error, 1)
	go func() {
		_, err := c.docker.out(ctx, "exec", c.id, "hermes", "gateway", "restart")
		asked <- err
	}()
	seen := map[int]time.Time{} // the first sight of each child
	var spawned time.Time
	err = until(ctx, "the gateway is spawned again", func() (bool, error) {
		// A child of the supervisor is its finish script, or what becomes the gateway.
		children, err := os.ReadFile(fmt.Sprintf("/proc/%s/task/%[1]s/children", supervisor))
		if err != nil {
			return false, err
		}
		for field := range strings.FieldsSeq(string(children)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return false, err
			}
			if pid == old {
				continue
			}
			if seen[pid].IsZero() {
				seen[pid] = time.Now()
			}
			args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // gone again: not it
			if p := (process{pid, strings.ReplaceAll(string(args), "\x00", " ")}); p.isGateway() {
				spawned = seen[pid]
			}
		}
		return !spawned.IsZero(), nil
	})
	if err != nil {
		return 0, err
	}
	if err := c.awaitReady(ctx); err != nil {
		return 0, err
	}
	took := time.Since(spawned)
	return took, <-asked
}
