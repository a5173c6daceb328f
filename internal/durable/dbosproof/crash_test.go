package dbosproof

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fromEnv is a number that makes a test longer than it is by default.
func fromEnv(t *testing.T, name string, short int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return short
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no positive number", name, text)
	}
	return n
}

// tale is what the model server and the users of one run saw.
type tale struct {
	overtaken int // a message was started, or answered, before an earlier one of its chat
	repeated  int // model calls started again
	again     int // replies sent again
	replied   map[string]bool
}

func readTale(t *testing.T, path string) tale {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	last, told, seen, s := map[string]int{}, map[string]int{}, map[string]bool{}, tale{replied: map[string]bool{}}
	for line := range strings.Lines(string(data)) {
		var word, chat string
		var n int
		if _, err := fmt.Sscan(line, &word, &chat, &n); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		key := fmt.Sprint(chat, " ", n)
		switch {
		case word == "reply" && s.replied[key]:
			s.again++
		case word == "reply":
			if n != told[chat]+1 {
				s.overtaken++
			}
			s.replied[key], told[chat] = true, max(told[chat], n)
		case n < last[chat] || !seen[key] && n != last[chat]+1:
			s.overtaken++
		}
		if word == "start" {
			if seen[key] {
				s.repeated++
			}
			seen[key], last[chat] = true, max(last[chat], n)
		}
	}
	return s
}

const (
	killChats = 2
	kills     = 2 // in a run; then what is left is finished
	killBurst = 4 // new messages of each chat in each life
)

// killRun kills a process twice while messages of the same chats wait and new
// ones come in, and lets the third one finish.
func killRun(t *testing.T, kind string, random *rand.Rand) (tale, int) {
	t.Helper()
	dir := t.TempDir()
	o := order{
		Job: "serve", Setup: setup{Kind: kind, Path: filepath.Join(dir, "proof.db"), Conns: connections(kind), Poll: 20 * time.Millisecond},
		Log: filepath.Join(dir, "log"), Chats: killChats, Wait: 3 * time.Millisecond,
	}
	accepted := map[int]int{}
	for life := range kills + 1 {
		// What was not acknowledged is sent again; both chats start at the same number.
		o.From = min(accepted[0], accepted[1]) + 1
		o.To = o.From + killBurst - 1
		l := start(t, o)
		if life < kills {
			l.kill(t, time.Duration(random.IntN(40_000))*time.Microsecond)
		} else if !l.end() || !l.done {
			t.Fatalf("%s: the last life did not finish", kind)
		}
		for chat, n := range l.accepted {
			accepted[chat] = max(accepted[chat], n)
		}
		if l.done && l.counts.Failed > 0 {
			t.Errorf("%s: %d turns failed", kind, l.counts.Failed)
		}
	}
	s := readTale(t, o.Log)
	for chat, last := range accepted {
		for n := 1; n <= last; n++ {
			if !s.replied[fmt.Sprintf("chat%d %d", chat, n)] {
				t.Errorf("%s: message %d of chat %d was accepted and never answered", kind, n, chat)
			}
		}
	}
	return s, accepted[0] + accepted[1]
}

// connections is how many the measurements and kills use: DBOS's own choice for
// DBOS, one for the single writer.
func connections(kind string) int {
	if kind == own {
		return 1
	}
	return 8
}

// (b) Nothing is lost, and order inside a chat holds, where we keep it ourselves
// or a partition does. A workflow that is simply started at once is recovered
// behind and beside what is new: dbos-naive counts how often, and asserts only
// that it loses nothing.
func TestKillKeepsOrderInsideAChat(t *testing.T) {
	t.Parallel()
	runs := fromEnv(t, "HERMES_PROOF_RUNS", 2)
	seed := uint64(fromEnv(t, "HERMES_PROOF_SEED", 20261126))
	for _, kind := range []string{own, queued, direct, naive} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, uint64(len(kind))))
			var sum tale
			var overtaken, messages int
			for run := range runs {
				s, n := killRun(t, kind, random)
				if s.overtaken > 0 {
					overtaken++
					if kind != naive {
						t.Errorf("seed %d, run %d: order broken %d times", seed, run, s.overtaken)
					}
				}
				sum.repeated, sum.again, messages = sum.repeated+s.repeated, sum.again+s.again, messages+n
				if limit := kills * killChats; s.repeated > limit && kind != naive {
					t.Errorf("seed %d, run %d: %d model calls again, at most one for each chat and kill is in flight (%d)", seed, run, s.repeated, limit)
				}
				if (run+1)%50 == 0 || run+1 == runs {
					t.Logf("%s, seed %d: %d runs, %d kills, %d messages accepted, all answered; order broken in %d runs; %d model calls and %d replies again",
						kind, seed, run+1, (run+1)*kills, messages, overtaken, sum.repeated, sum.again)
				}
			}
		})
	}
}

// poisonMessages is how many messages each of the two chats has.
const poisonMessages = 3

// (d) A turn that kills its process is set aside after three tries, and the
// other chat goes on. Started directly, the messages that wait behind it are set
// aside with it though they never ran: DBOS counts a recovery against every
// started workflow of the process. Waiting in a queue they are not counted.
func TestPoisonIsSetAside(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]counts{
		own: {Answered: 5, Failed: 1}, queued: {Answered: 5, Failed: 1}, direct: {Answered: 3, Failed: 3},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := order{
				Job: "serve", Setup: setup{Kind: kind, Path: filepath.Join(dir, "proof.db"), Conns: connections(kind), Poll: 20 * time.Millisecond},
				Log: filepath.Join(dir, "log"), Chats: 2, From: 1, To: poisonMessages, CrashText: "poison",
			}
			var l *life
			for range tries + 2 {
				l = start(t, o)
				if l.end() {
					break
				}
				o.From, o.To = 1, 0 // all were accepted in the first life
			}
			data, err := os.ReadFile(o.Log)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(string(data), "start chat0 1\n"); got != tries {
				t.Errorf("%d tries, want %d", got, tries)
			}
			if !l.done || l.counts != want {
				t.Errorf("ended %v with %+v, want %+v", l.done, l.counts, want)
			}
		})
	}
}

// (e) The next binary finishes what the last one left, if both say the same
// application version, and a patch leads each turn the way it began. Under
// another version nothing is touched: that is (g)'s danger, and the default's.
func TestNextBinaryFinishesWhatTheLastOneLeft(t *testing.T) {
	t.Parallel()
	path := database(t)
	s := setup{Path: path, Conns: connections(queued)}
	err := command(t, order{Job: "old", Setup: s, Version: "1"}).Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the old binary was to be killed: %v", err)
	}
	strandedUnderAnotherVersion(t, path)
	got := result[map[string]int](t, order{Job: "new", Setup: s, Version: "1"})
	for step, want := range map[string]int{"history": 0, "summary": versionTurns / 2, "model": versionTurns / 2, "send": versionTurns} {
		if got[step] != want {
			t.Errorf("the new binary ran %q %d times, want %d", step, got[step], want)
		}
	}
}
