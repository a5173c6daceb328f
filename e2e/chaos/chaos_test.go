package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	faults = flag.Int("faults", 50, "how many faults, over all worlds")
	worlds = flag.Int("worlds", 2, "gateways side by side, each with a share of the faults")
	seed   = flag.Uint64("seed", 0, "repeats a run: the same people, faults and pauses; 0: a new one")
	only   = flag.String("only", "", "comma-separated `kinds` of fault; all by default")
	report = flag.String("report", "", "`file` that the counts are written to")
)

// plan is what happens in one world.
type plan struct {
	seed   uint64
	faults []kind
	// binary takes the place of the image's; empty: it is the product.
	binary string
	// settle is how long open messages are waited for at the end.
	settle time.Duration
	// until ends the run as soon as a violation of one of these kinds is found.
	until []string
}

// TestChaos is the proof: whatever happens, what was accepted is answered.
func TestChaos(t *testing.T) {
	first := *seed
	if first == 0 {
		first = rand.Uint64() >> 32
	}
	t.Logf("to repeat this run: go test ./e2e/chaos -run TestChaos -seed %d -faults %d -worlds %d", first, *faults, *worlds)
	list := kinds()
	if *only != "" {
		list = named(t, strings.Split(*only, ",")...)
	}
	cards := deck(rand.New(rand.NewPCG(first, 0)), list, *faults)
	var mu sync.Mutex
	var sum counts
	began := time.Now()
	t.Run("worlds", func(t *testing.T) {
		for i := range *worlds {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				share := cards[i*len(cards) / *worlds : (i+1)*len(cards) / *worlds]
				got, found := live(t, plan{seed: first + uint64(i), faults: share, settle: patience})
				for _, v := range found {
					t.Error(v)
				}
				mu.Lock()
				defer mu.Unlock()
				sum.add(got)
			})
		}
	})
	text := fmt.Sprintf("seed %d, %d worlds, %s, revision %s\n%s", first, *worlds, time.Since(began).Round(time.Second), revision(t), sum)
	t.Log("\n" + text)
	if *report != "" {
		if err := os.WriteFile(*report, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// live makes a world, has people write and faults strike, and checks.
func live(t *testing.T, p plan) (counts, []violation) {
	w := newWorld(t, p.binary)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	crowd := &people{w: w, seed: p.seed, stop: make(chan struct{})}
	crowd.begin(ctx)
	stopScraping := w.scrape()

	r := rand.New(rand.NewPCG(p.seed, 0))
	wrong := false
	for _, k := range p.faults {
		time.Sleep(between(r, 300*time.Millisecond, 2500*time.Millisecond))
		if err := w.strike(k, r); err != nil {
			t.Errorf("cannot do harm: %v", err)
			break
		}
		w.operate()
		if wrong = w.wrong(p.until); wrong {
			break
		}
	}
	close(crowd.stop)
	if !wrong {
		w.settle(p.settle)
	}
	stopScraping()
	cancel()
	crowd.wg.Wait()
	got, found := check(w.ledger, w.model.Seen(), !wrong)
	if len(found) > 0 {
		for _, f := range w.ledger.faults {
			t.Logf("%s to %s: %s", clock(f.begin), clock(f.end), f.kind)
		}
		said, _ := exec.Command("docker", "logs", "--timestamps", w.gateway).CombinedOutput()
		t.Logf("the gateway's container said:\n%s", said)
	}
	return got, found
}

// begin lets everybody write: three on IRC, whose account may say a line a
// second, and three of each kind over HTTP.
func (p *people) begin(ctx context.Context) {
	const each = 3
	for n := range each {
		p.wg.Go(func() {
			if err := p.irc(ctx, n); err != nil {
				p.w.t.Errorf("person %d cannot use IRC: %v", n, err)
			}
		})
		p.wg.Go(func() { p.runs(ctx, each+n) })
		p.wg.Go(func() { p.completions(ctx, 2*each+n) })
	}
}

// wrong says whether something of these kinds is there already, that can never
// become right.
func (w *world) wrong(kinds []string) bool {
	_, found := check(w.ledger, w.model.Seen(), false)
	return slices.ContainsFunc(found, func(v violation) bool { return slices.Contains(kinds, v.kind) })
}

// operate is what somebody does who looks after the gateway: one that was ended
// so often that it pauses is started again.
func (w *world) operate() {
	const bearable = 2 * time.Second
	for deadline := time.Now().Add(bearable); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if w.alive() {
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, _ = dockerWithin(ctx, "exec", w.gateway, "hermes", "gateway", "start")
}

// settle waits until everybody has what they wait for, and nothing is on its way
// that nobody waits for: an answer to what somebody on IRC has sent again. Who
// gets nothing is the checker's affair.
func (w *world) settle(patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ; ctx.Err() == nil; sleep(ctx, scrapeEvery) {
		if w.ready() != nil {
			w.operate()
		}
		s, err := w.scrapeOnce(ctx)
		answered, failed := w.ledger.outcomes()
		if err == nil && len(w.ledger.open()) == 0 && s.queued+s.running == 0 && s.answered == answered && s.failed == failed {
			return
		}
	}
}

const scrapeEvery = 250 * time.Millisecond

// scrape reads the counts until told to stop; a gateway that does not answer is
// asked again.
func (w *world) scrape() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			w.scrapeOnce(ctx)
			sleep(ctx, scrapeEvery)
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (w *world) scrapeOnce(ctx context.Context) (scrape, error) {
	limited, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	code, body, err := w.ask(limited, http.MethodGet, "/metrics", "", "")
	if err != nil || code != http.StatusOK {
		return scrape{}, errors.Join(err, fmt.Errorf("status %d", code))
	}
	s := scrape{at: time.Now()}
	for name, field := range map[string]*int{
		"received_total": &s.received, "answered_total": &s.answered, "failed_total": &s.failed,
		"duplicates_total": &s.duplicate, "queued": &s.queued, "running": &s.running,
	} {
		if *field, err = metric(body, "hermes_messages_"+name); err != nil {
			return s, err
		}
	}
	w.ledger.change(func() { w.ledger.scrapes = append(w.ledger.scrapes, s) })
	return s, nil
}

// metric finds a value that has one series.
func metric(body, name string) (int, error) {
	for line := range strings.Lines(body) {
		fields := strings.Fields(line)
		if bare, _, _ := strings.Cut(line, "{"); len(fields) == 2 && (bare == name || fields[0] == name) {
			value, err := strconv.ParseFloat(fields[1], 64)
			return int(value), err
		}
	}
	return 0, fmt.Errorf("there is no %s in\n%s", name, body)
}
