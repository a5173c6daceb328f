package turn_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/turn"
)

// The process that is killed is this test binary again, with the path of its
// database in killDatabase and its number in killNumber.
const (
	killDatabase = "HERMES_TEST_KILL_DATABASE"
	killNumber   = "HERMES_TEST_KILL_NUMBER"
	// killPreview, set to anything: the process shows a preview and hangs.
	killPreview = "HERMES_TEST_KILL_PREVIEW"
	// killRuns is how many processes are killed; more take longer.
	killRuns = "HERMES_TEST_KILL_RUNS"
	// killChats and killEach: every process sends so many messages to each chat.
	killChats, killEach = 3, 4
)

func TestMain(m *testing.M) {
	if path := os.Getenv(killDatabase); path != "" {
		if os.Getenv(killPreview) != "" {
			previewUntilKilled(path)
		}
		sendUntilKilled(path)
		return
	}
	os.Exit(m.Run())
}

// sendUntilKilled accepts messages, says so on stdout once each is committed,
// answers slowly, and ends only by a signal.
func sendUntilKilled(path string) {
	ctx := context.Background()
	db, err := store.Open(ctx, path)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	e, err := turn.New(turn.Options{Journal: db, Agent: brain(func(ctx context.Context, t agent.Turn) (agent.Result, error) {
		fmt.Println("called", t.News[len(t.News)-1].Text)
		time.Sleep(time.Duration(rand.IntN(8)) * time.Millisecond) // the time a model takes
		return echo(ctx, t)
	})})
	if err == nil {
		err = e.Resume(ctx)
	}
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var wg sync.WaitGroup
	for c := range killChats {
		wg.Go(func() {
			for i := range killEach {
				id := fmt.Sprintf("msg_%s_%d_%d", os.Getenv(killNumber), c, i)
				if _, _, _, err := e.Accept(ctx, message(id, fmt.Sprint("chat", c), id)); err != nil {
					fmt.Println("error", err)
				}
				fmt.Println("accepted", id)
			}
		})
	}
	wg.Wait()
	fmt.Println("all accepted")
	select {}
}

// Processes are killed with -9 at random moments, each with messages waiting in
// every chat. What was accepted is answered, once, in the order of acceptance,
// and a model is asked again only for what was in flight.
func TestNothingIsLostToKillsAndOrderHolds(t *testing.T) {
	runs := 8
	if text := os.Getenv(killRuns); text != "" {
		runs, _ = strconv.Atoi(text)
	}
	seed := rand.Uint64()
	t.Logf("seed %d, %d processes", seed, runs)
	random := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), store.FileName)
	accepted, calls := map[string]bool{}, map[string]int{}
	for n := range runs {
		for _, line := range runAndKill(t, time.Duration(random.IntN(120))*time.Millisecond, killDatabase+"="+path, killNumber+"="+strconv.Itoa(n)) {
			word, id, _ := strings.Cut(line, " ")
			switch word {
			case "accepted":
				accepted[id] = true
			case "called":
				calls[id]++
			case "error":
				t.Errorf("process %d: %s", n, line)
			}
		}
	}
	db := open(t, path)
	e := start(t, db, brain(echo))
	for id := range accepted {
		if l := e.Live(id); l != nil {
			wait(t, l)
		}
	}
	e.Drain(t.Context())
	asked := 0
	for c := range killChats {
		history, err := db.History(t.Context(), fmt.Sprint("chat", c))
		if err != nil {
			t.Fatal(err)
		}
		last, seen := int64(0), map[string]bool{}
		for i := 0; i < len(history); i += 2 {
			id := history[i].Text
			m, err := db.Message(t.Context(), id)
			if err != nil || m.Seq <= last || seen[id] || history[i+1].Text != "re: "+id {
				t.Fatalf("chat %d: %s is number %d after %d, seen %v, answered %q, %v", c, id, m.Seq, last, seen[id], history[i+1].Text, err)
			}
			last, seen[id] = m.Seq, true
			asked += max(calls[id]-1, 0)
		}
		for id := range accepted {
			if strings.Contains(id, fmt.Sprintf("_%d_", c)) && strings.HasSuffix(id[:strings.LastIndexByte(id, '_')], fmt.Sprint("_", c)) && !seen[id] {
				m, err := db.Message(t.Context(), id)
				if m.Reason != turn.Crashed {
					t.Errorf("%s was accepted and is %s %s, %v", id, m.State, m.Reason, err)
				}
			}
		}
	}
	// One turn of each chat can be in flight at a kill.
	if asked > runs*killChats {
		t.Errorf("the model was asked again %d times in %d kills", asked, runs)
	}
	dead, err := db.DeadMessages(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range dead {
		if m.Reason != turn.Crashed || m.Attempts < turn.MaxAttempts {
			t.Errorf("%s failed: %s after %d attempts", m.ID, m.Reason, m.Attempts)
		}
	}
	t.Logf("%d accepted, the model asked again %d times, %d set aside after %d kills in a row", len(accepted), asked, len(dead), turn.MaxAttempts)
	balanced(t, e.Tally())
	if n := e.Tally(); n.Answered+int64(len(dead)) != n.Received || n.Failed != int64(len(dead)) {
		t.Errorf("counted %+v", n)
	}
}

// runAndKill runs one process, kills it after a time that runs from its first
// word, and returns what it said.
func runAndKill(t *testing.T, after time.Duration, environ ...string) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), environ...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	var timer *time.Timer
	for scanner := bufio.NewScanner(out); scanner.Scan(); {
		if timer == nil {
			timer = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
		lines = append(lines, scanner.Text())
	}
	_ = cmd.Wait() // it was killed
	return lines
}
