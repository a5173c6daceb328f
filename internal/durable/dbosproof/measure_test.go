package dbosproof

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// cost is what a child measured of itself.
type cost struct {
	Messages             int
	PerSecond            float64
	ReplyP50, ReplyP99   time.Duration // from the call of accept to the committed reply
	AcceptP50, AcceptP99 time.Duration
	Commits              int64
	Written              int64 // bytes handed to write(2)
	CPU                  time.Duration
	Private              int64 // bytes that are this process's alone
	Open                 time.Duration
	IdleCPU              float64 // of one core, in percent
}

func processor() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// field sums the numbers of a file in /proc that follow one of names.
func field(path string, names ...string) (sum int64) {
	data, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		var n int64
		if slices.Contains(names, name) {
			fmt.Sscan(rest, &n)
			sum += n
		}
	}
	return sum
}

func private() int64 {
	return 1024 * field("/proc/self/smaps_rollup", "Private_Clean", "Private_Dirty")
}

func percentile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[min(len(list)-1, int(p*float64(len(list))))]
}

// load sends Messages to each chat, each after the answer to the one before, or
// Rate of them a second over all chats.
func (o order) load() error {
	commits := countCommits()
	var mu sync.Mutex
	waiting := map[string]chan struct{}{}
	e, err := open(o.Setup, hooks{
		model: func(ctx context.Context, m message) (string, error) { return echo(ctx, m) },
		reply: func(m message) {
			mu.Lock()
			defer mu.Unlock()
			close(waiting[m.id()])
		},
	})
	if err != nil {
		return err
	}
	var replies, accepts []time.Duration
	send := func(m message) error {
		done := make(chan struct{})
		mu.Lock()
		waiting[m.id()] = done
		mu.Unlock()
		begin := time.Now()
		if err := e.accept(context.Background(), m); err != nil {
			return err
		}
		accepted := time.Since(begin)
		<-done
		mu.Lock()
		defer mu.Unlock()
		replies, accepts = append(replies, time.Since(begin)), append(accepts, accepted)
		return nil
	}
	commits.Store(0)
	written, cpu, begin := field("/proc/self/io", "wchar"), processor(), time.Now()
	if err := o.sendAll(send); err != nil {
		return err
	}
	took, spent := time.Since(begin), processor()-cpu
	if err := settle(e); err != nil { // outcomes are recorded after the replies
		return err
	}
	c := cost{
		Messages: len(replies), PerSecond: float64(len(replies)) / took.Seconds(), Commits: commits.Load(), CPU: spent,
		Written: field("/proc/self/io", "wchar") - written, Private: private(),
		ReplyP50: percentile(replies, 0.5), ReplyP99: percentile(replies, 0.99), AcceptP50: percentile(accepts, 0.5), AcceptP99: percentile(accepts, 0.99),
	}
	if err := e.close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(c)
}

// settle waits until every turn is recorded as done.
func settle(e engine) error {
	for {
		c, err := e.counts(context.Background())
		if err != nil || c.Pending == 0 {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (o order) sendAll(send func(message) error) error {
	var wg sync.WaitGroup
	errs := make(chan error, o.Chats*o.Messages+1)
	text := strings.Repeat("x", 200)
	if o.Rate == 0 {
		for c := range o.Chats {
			wg.Go(func() {
				for n := range o.Messages {
					errs <- send(message{fmt.Sprintf("chat%d", c), n + 1, text})
				}
			})
		}
	} else {
		tick := time.NewTicker(time.Second / time.Duration(o.Rate))
		defer tick.Stop()
		for i := range o.Chats * o.Messages {
			<-tick.C
			wg.Go(func() { errs <- send(message{fmt.Sprintf("chat%d", i%o.Chats), i/o.Chats + 1, text}) })
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// rest opens an engine twice, on a new database and on that one again, and does nothing for Wait.
func (o order) rest() error {
	none := hooks{model: echo, reply: func(message) {}}
	e, err := open(o.Setup, none)
	if err != nil {
		return err
	}
	if err := e.close(); err != nil {
		return err
	}
	begin := time.Now()
	if e, err = open(o.Setup, none); err != nil {
		return err
	}
	c := cost{Open: time.Since(begin)}
	time.Sleep(o.Wait / 4) // the start is over
	cpu, begin := processor(), time.Now()
	time.Sleep(o.Wait)
	c.IdleCPU = 100 * (processor() - cpu).Seconds() / time.Since(begin).Seconds()
	c.Private = private()
	if err := e.close(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(c)
}

// flight has Messages turns of Wait in flight, each in a chat of its own, and
// meanwhile accepts new ones of the same chats.
func (o order) flight() error {
	var begun atomic.Int64
	e, err := open(o.Setup, hooks{
		model: func(ctx context.Context, m message) (string, error) {
			begun.Add(1)
			return m.Text, pause(ctx, o.Wait)
		},
		reply: func(message) {},
	})
	if err != nil {
		return err
	}
	text := strings.Repeat("x", 200)
	for c := range o.Messages {
		if err := e.accept(context.Background(), message{fmt.Sprintf("chat%d", c), 1, text}); err != nil {
			return err
		}
	}
	for begun.Load() < int64(o.Messages) {
		time.Sleep(time.Millisecond)
	}
	var accepts []time.Duration
	for c := range min(o.Messages, 100) {
		begin := time.Now()
		if err := e.accept(context.Background(), message{fmt.Sprintf("chat%d", c), 2, text}); err != nil {
			return err
		}
		accepts = append(accepts, time.Since(begin))
	}
	c := cost{Messages: o.Messages, Private: private(), AcceptP50: percentile(accepts, 0.5), AcceptP99: percentile(accepts, 0.99)}
	return json.NewEncoder(os.Stdout).Encode(c) // without close: nobody waits for the rest
}

// straceVar, if set, has strace count the fsyncs and slow them down.
const straceVar = "HERMES_PROOF_STRACE"

// measured are the ways that are compared; the long form adds what a choice of
// connections and of the queue's pause makes of them.
func measured(t *testing.T) map[string]setup {
	t.Helper()
	all := map[string]setup{
		own:                     {Kind: own, Conns: 1},
		direct:                  {Kind: direct, Conns: 1},
		queued + " polls 50 ms": {Kind: queued, Conns: 1, Poll: 50 * time.Millisecond},
	}
	if scale(t) > 1 {
		all[direct+" with 8 connections"] = setup{Kind: direct, Conns: 8}
		all[queued+" polls 1 s"] = setup{Kind: queued, Conns: 1, Poll: time.Second}
	}
	return all
}

// scale multiplies what is measured; 1 is what fits into every test run.
func scale(t *testing.T) int { return fromEnv(t, "HERMES_PROOF_SCALE", 1) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// fsyncs counts those of a job by strace, if asked to; else it says -1.
func fsyncs(t *testing.T, o order) float64 {
	t.Helper()
	if os.Getenv(straceVar) == "" {
		return -1
	}
	count := func(messages int) int {
		o.Setup.Path, o.Messages = database(t), messages
		out := filepath.Join(t.TempDir(), "strace")
		result[cost](t, o, "strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o", out)
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(data), "sync(")
	}
	n := o.Messages
	return float64(count(n)-count(1)) / float64(o.Chats*(n-1))
}

// (f) The costs of a message. What is asserted holds on any machine: the number
// of write transactions. The rest is logged, and the record has it.
func TestMeasureMessages(t *testing.T) {
	if scale(t) == 1 { // the short form measures nothing that others disturb
		t.Parallel()
	}
	for name, s := range measured(t) {
		t.Run(name, func(t *testing.T) {
			o := order{Job: "throughput", Setup: s, Chats: 50, Messages: 2 * scale(t)}
			if s.Kind == queued {
				o.Messages = 1 + scale(t)/10
			}
			o.Setup.Path = database(t)
			c := result[cost](t, o)
			perMessage := float64(c.Commits) / float64(c.Messages)
			t.Logf("%s: %d messages, %.0f/s; reply p50 %.1f ms, p99 %.1f ms; accept p50 %.1f ms, p99 %.1f ms; %.2f commits, %.2f fsyncs, %d bytes written, %.2f ms CPU per message",
				name, c.Messages, c.PerSecond, ms(c.ReplyP50), ms(c.ReplyP99), ms(c.AcceptP50), ms(c.AcceptP99), perMessage,
				fsyncs(t, o), c.Written/int64(c.Messages), ms(c.CPU/time.Duration(c.Messages)))
			switch {
			case s.Kind == own && perMessage > 3:
				t.Errorf("%.2f commits for each message, at most 3 were to be", perMessage)
			case s.Kind == direct && perMessage < 3:
				t.Errorf("%.2f commits for each message: DBOS has learnt to join them, correct the record", perMessage)
			}
		})
	}
}

// (f) accepted → reply at 20 messages a second over 50 chats.
func TestMeasurePacedReply(t *testing.T) {
	if scale(t) == 1 { // the short form measures nothing that others disturb
		t.Parallel()
	}
	for name, s := range measured(t) {
		t.Run(name, func(t *testing.T) {
			o := order{Job: "paced", Setup: s, Chats: 10, Rate: 20, Messages: 1}
			if scale(t) > 1 {
				o.Chats, o.Messages = 50, 4
			}
			o.Setup.Path = database(t)
			c := result[cost](t, o)
			t.Logf("%s: %d messages; reply p50 %.1f ms, p99 %.1f ms; accept p50 %.1f ms, p99 %.1f ms; %.2f commits, %.2f fsyncs per message",
				name, c.Messages, ms(c.ReplyP50), ms(c.ReplyP99), ms(c.AcceptP50), ms(c.AcceptP99), float64(c.Commits)/float64(c.Messages), fsyncs(t, o))
			if os.Getenv(straceVar) != "" {
				o.Setup.Path = database(t)
				c = result[cost](t, o, "strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=fsync,fdatasync",
					"-e", "inject=fsync,fdatasync:delay_exit=20000", "-o", os.DevNull)
				t.Logf("%s, each fsync takes 20 ms more: reply p50 %.1f ms, p99 %.1f ms; accept p50 %.1f ms, p99 %.1f ms",
					name, ms(c.ReplyP50), ms(c.ReplyP99), ms(c.AcceptP50), ms(c.AcceptP99))
			}
		})
	}
}

// (f) What an engine costs that has nothing to do, and how long it takes to open.
func TestMeasureRest(t *testing.T) {
	wait := time.Second / 2
	if scale(t) > 1 {
		wait = 20 * time.Second
	}
	all := measured(t)
	all[none] = setup{Kind: none, Conns: 1}
	for name, s := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s.Path = database(t)
			c := result[cost](t, order{Job: "rest", Setup: s, Wait: wait})
			t.Logf("%s: open again %.1f ms, idle for %v: %.3f %% of a core, %.1f MB private", name, ms(c.Open), wait, c.IdleCPU, float64(c.Private)/1e6)
			if s.Kind == own && c.IdleCPU > 1 { // it has nothing that wakes it
				t.Errorf("%.1f %% of a core at rest", c.IdleCPU)
			}
		})
	}
}

// (f) Many turns that wait for their model.
func TestMeasureFlight(t *testing.T) {
	if scale(t) == 1 { // the short form measures nothing that others disturb
		t.Parallel()
	}
	turns, wait := 30, 5*time.Second
	if scale(t) > 1 {
		turns, wait = 500, 10*time.Second
	}
	all := measured(t)
	delete(all, queued+" polls 1 s") // only its poll would be measured
	for name, s := range all {
		t.Run(name, func(t *testing.T) {
			s.Path = database(t)
			c := result[cost](t, order{Job: "flight", Setup: s, Messages: turns, Wait: wait})
			t.Logf("%s: %d turns in flight, %.1f MB private; accept p50 %.1f ms, p99 %.1f ms", name, c.Messages, float64(c.Private)/1e6, ms(c.AcceptP50), ms(c.AcceptP99))
		})
	}
}
