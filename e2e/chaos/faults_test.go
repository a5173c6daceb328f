package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// kind is one way to do harm.
type kind struct {
	name   string
	weight int
	ends   int  // how many processes it kills at most, without a chance to finish; who was there is counted
	loses  bool // what is on its way in from IRC
	do     func(w *world, r *rand.Rand) error
}

// gatewayPID prints the pid of the gateway in its container, or -1 if there is
// none just now.
const gatewayPID = `s6-svstat -o pid ` + slot

// kinds is what happens to the gateway, and how often beside the others.
func kinds() []kind {
	return []kind{
		{"kill -9", 24, 1, true, kill},
		{"kill -9 twice", 4, 2, true, killTwice},
		{"SIGSTOP", 10, 0, false, stop},
		{"deaf until the guard acts", 1, 1, true, deaf},
		{"drain", 8, 0, true, drain},
		{"docker restart", 4, 0, true, restart},
		{"docker kill", 6, 1, true, dockerKill},
		{"network cut", 8, 0, false, cut},
		{"IRC connection reset", 5, 0, true, reset},
		{"kill -9 with an IRC answer in doubt", 8, 1, true, killInDoubt},
		{"IRC reset with an answer in doubt", 5, 0, true, resetInDoubt},
		{"disk full", 9, 0, false, fill},
		{"kill -9 on a full disk", 3, 1, true, killFull},
	}
}

// named returns the kinds of these names.
func named(t testing.TB, names ...string) (list []kind) {
	t.Helper()
	for _, name := range names {
		i := slices.IndexFunc(kinds(), func(k kind) bool { return k.name == name })
		if i < 0 {
			t.Fatalf("there is no fault %q", name)
		}
		list = append(list, kinds()[i])
	}
	return list
}

// deck is n faults in a random order: each kind once if n is enough for that,
// the others by weight.
func deck(r *rand.Rand, list []kind, n int) []kind {
	var cards []kind
	if n >= len(list) {
		cards = slices.Clone(list)
	}
	for len(cards) < n {
		cards = append(cards, choose(r, list))
	}
	r.Shuffle(n, func(i, j int) { cards[i], cards[j] = cards[j], cards[i] })
	return cards
}

// choose draws a kind by weight.
func choose(r *rand.Rand, list []kind) kind {
	total := 0
	for _, k := range list {
		total += k.weight
	}
	n := r.IntN(total)
	for _, k := range list {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	panic("weights do not add up")
}

// strike does one fault, notes it and undoes it.
func (w *world) strike(k kind, r *rand.Rand) error {
	begin := time.Now()
	w.ended = 0
	err := k.do(w, r)
	w.ledger.fault(fault{kind: k.name, begin: begin, end: time.Now(), ends: min(w.ended, k.ends), loses: k.loses})
	if err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	return nil
}

// between draws a time.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(r.Int64N(int64(most-least)))
}

// signal sends a signal to the gateway; that there is none just now is no fault
// of the test's. To kill(1) a pid of -1 would mean everybody.
func (w *world) signal(name string) {
	err := w.exec("sh", "-c", `pid=$(`+gatewayPID+`) && [ "$pid" -gt 0 ] && kill -`+name+` "$pid"`)
	if err == nil && name == "KILL" {
		w.ended++
	}
}

func kill(w *world, _ *rand.Rand) error {
	w.signal("KILL")
	return nil
}

func killTwice(w *world, r *rand.Rand) error {
	w.signal("KILL")
	time.Sleep(between(r, 0, 600*time.Millisecond))
	w.signal("KILL")
	return nil
}

func stop(w *world, r *rand.Rand) error {
	w.signal("STOP")
	time.Sleep(between(r, 200*time.Millisecond, 3*time.Second))
	w.signal("CONT")
	return nil
}

// deaf stops the gateway until somebody ends it; who does is the guard. Whether
// another one comes is not the guard's affair: after many deaths it pauses.
func deaf(w *world, _ *rand.Rand) error {
	stopped := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		pid, err := docker("exec", w.gateway, "sh", "-c", gatewayPID)
		switch {
		case err != nil:
			return err
		case stopped != "" && pid != stopped:
			w.ended++
			return nil
		case stopped == "" && w.alive():
			stopped = pid
			w.signal("STOP")
		}
	}
	w.signal("CONT")
	return errors.New("the guard did not act")
}

func drain(w *world, _ *rand.Rand) error {
	_ = w.exec("hermes", "gateway", "restart") // a gateway that is down is started
	return nil
}

func restart(w *world, _ *rand.Rand) error {
	_, err := docker("restart", "-t", "15", w.gateway)
	return err
}

func dockerKill(w *world, r *rand.Rand) error {
	if _, err := docker("kill", w.gateway); err != nil {
		return err
	}
	w.ended++
	time.Sleep(between(r, 0, time.Second))
	_, err := docker("start", w.gateway)
	return err
}

// cut takes the network away for less time than it takes TCP to give up.
func cut(w *world, r *rand.Rand) error {
	if _, err := docker("network", "disconnect", w.network, w.gateway); err != nil {
		return err
	}
	time.Sleep(between(r, 100*time.Millisecond, 2500*time.Millisecond))
	_, err := docker("network", "connect", "--ip", w.ip, w.network, w.gateway)
	return err
}

func reset(w *world, _ *rand.Rand) error {
	w.wire.reset()
	return nil
}

// inDoubt has the network keep silent until an answer is on its way of which
// the gateway cannot know whether it arrived, and then does the rest.
func inDoubt(w *world, r *rand.Rand, then func()) {
	release := w.wire.hold()
	defer release()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	for before := w.ledger.heardOnIRC(); ctx.Err() == nil && w.ledger.heardOnIRC() == before; {
		sleep(ctx, 10*time.Millisecond)
	}
	time.Sleep(between(r, 0, 50*time.Millisecond))
	then()
}

func killInDoubt(w *world, r *rand.Rand) error {
	inDoubt(w, r, func() { w.signal("KILL") })
	return nil
}

func resetInDoubt(w *world, r *rand.Rand) error {
	inDoubt(w, r, w.wire.reset)
	return nil
}

const (
	fillDisk = `dd if=/dev/zero of=/opt/data/fill bs=64k 2>/dev/null; dd if=/dev/zero of=/opt/data/fill2 bs=1k 2>/dev/null; true`
	freeDisk = `rm -f /opt/data/fill /opt/data/fill2`
)

// full fills the volume, does something and frees it.
func (w *world) full(then func()) error {
	if _, err := docker("exec", w.keeper, "sh", "-c", fillDisk); err != nil {
		return err
	}
	then()
	_, err := docker("exec", w.keeper, "sh", "-c", freeDisk)
	return err
}

func fill(w *world, r *rand.Rand) error {
	return w.full(func() { time.Sleep(between(r, 500*time.Millisecond, 3*time.Second)) })
}

func killFull(w *world, r *rand.Rand) error {
	return w.full(func() {
		time.Sleep(between(r, 0, time.Second))
		w.signal("KILL")
		time.Sleep(between(r, 0, time.Second))
	})
}
