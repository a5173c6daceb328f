package logging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hermesgw/hermes/internal/logging"
)

// reader takes lines while its gate is open.
type reader struct {
	gate chan struct{} // a write waits until it can receive; nil never waits
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *reader) Write(p []byte) (int, error) {
	if r.gate != nil {
		<-r.gate
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *reader) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Split(strings.TrimSuffix(r.text.String(), "\n"), "\n")
}

func (r *reader) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := r.lines(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func open(r *reader) (*slog.Logger, *logging.Sink) {
	return logging.Open(r, logging.Text, slog.LevelInfo, logging.WithoutTime())
}

func TestRepeatedLinesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		log, sink := open(r)
		for range 25 { // every 7 s: the window ends at 60 s and at 120 s
			log.Warn("already running", "pid", 7)
			time.Sleep(7 * time.Second)
		}
		said := []string{"warn already running pid=7", "warn already running pid=7 repeated=8", "warn already running pid=7 repeated=9"}
		r.expect(t, said...)
		log.Info("done") // what differs ends the count
		said = append(said, "warn already running pid=7 repeated=7", "info done")
		r.expect(t, said...)
		log.Info("done")
		sink.Close() // so does the end
		r.expect(t, append(said, "info done repeated=1")...)
		log.Info("late")
		sink.Close() // a second time is none
	})
}

func TestNothingThatDiffersIsHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		log, sink := open(r)
		defer sink.Close()
		log.Warn("turn failed", "error", errors.New("a"))
		log.Warn("turn failed", "error", errors.New("b"))
		log.Error("turn failed", "error", errors.New("b"))
		log.With("session", "s").Error("turn failed", "error", errors.New("b"))
		log.WithGroup("g").Error("turn failed", "error", errors.New("b"))
		r.expect(t, "warn turn failed error=a", "warn turn failed error=b", "error turn failed error=b",
			"error turn failed session=s error=b", "error turn failed g.error=b")
		time.Sleep(2 * time.Minute)
		log.WithGroup("g").Error("turn failed", "error", errors.New("b")) // long ago is no repeat
		if got := r.lines(); len(got) != 6 || strings.Contains(got[5], "repeated") {
			t.Errorf("%q", got)
		}
	})
}

func TestRepeatedJSONAndTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{}
		log, sink := logging.Open(r, logging.JSON, slog.LevelInfo)
		for range 3 {
			log.Info("hello", "n", 1)
			time.Sleep(time.Second)
		}
		sink.Close()
		var last struct {
			Time     time.Time
			Msg      string
			N        int
			Repeated int
		}
		lines := r.lines()
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
			t.Fatal(err)
		}
		if len(lines) != 2 || last.Msg != "hello" || last.N != 1 || last.Repeated != 2 || time.Since(last.Time) != time.Second {
			t.Errorf("%q", lines)
		}
		r = &reader{}
		log, sink = logging.Open(r, logging.Text, slog.LevelInfo)
		log.Info("hello")
		time.Sleep(time.Second)
		log.Info("hello")
		sink.Close()
		if lines := r.lines(); len(lines) != 2 || !strings.HasSuffix(lines[1], " info hello repeated=1") {
			t.Errorf("%q", lines)
		}
	})
}

// A reader that is stuck costs lines, but nobody waits for it twice.
func TestStuckReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{gate: make(chan struct{})}
		log, sink := logging.Open(r, logging.Text, slog.LevelInfo, logging.WithoutTime())
		began := time.Now()
		const count, long = 1000, 1000
		for i := range count {
			log.Info("line", "n", i, "x", strings.Repeat("x", long))
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%d lines took %s", count, took)
		}
		close(r.gate)
		synctest.Wait()
		lines := r.lines()
		kept := len(lines) - 1
		if kept < 200 || kept > 300 || lines[kept] != fmt.Sprintf("warn log lines dropped: nobody took them count=%d", count-kept) {
			t.Errorf("%d lines kept, then %q", kept, lines[kept])
		}
		log.Info("back")
		if got := r.lines(); got[len(got)-1] != "info back" {
			t.Errorf("a line is out when its writer goes on, but the last is %q", got[len(got)-1])
		}
		sink.Close()
	})
}

// The note stands where the lines are missing.
func TestDroppedInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{gate: make(chan struct{})}
		log, sink := open(r)
		for i := range 5 {
			log.Info("long", "n", i, "x", strings.Repeat("x", 100<<10))
		}
		r.gate <- struct{}{} // two of five fit; one goes, so there is room again
		synctest.Wait()
		log.Info("short")
		close(r.gate)
		sink.Close()
		lines := r.lines()
		if len(lines) != 4 || lines[2] != "warn log lines dropped: nobody took them count=3" || lines[3] != "info short" {
			for _, l := range lines {
				t.Errorf("%.60s", l)
			}
		}
	})
}

// A process ends, whoever reads its log.
func TestTheEndDoesNotWaitForAStuckReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &reader{gate: make(chan struct{})}
		log, sink := open(r)
		began := time.Now()
		log.Info("one")
		sink.Close()
		logging.WriteWithin(r, "last words\n", time.Second)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
		close(r.gate) // in a real process its end does that
	})
}

// With a real pipe: full, nobody reads, and what others write into it is whole.
func TestFullPipe(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	log, sink := logging.Open(to, logging.Text, slog.LevelInfo, logging.WithoutTime())
	began := time.Now()
	for i := range 2000 {
		log.Info("line", "n", i, "x", strings.Repeat("x", 300))
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the writer was held up for %s", took)
	}
	read := make(chan string)
	go func() {
		var b bytes.Buffer
		_, _ = b.ReadFrom(from)
		read <- b.String()
	}()
	sink.Close()
	to.Close()
	text := <-read
	if !strings.Contains(text, "line n=0 ") || !strings.Contains(text, "info line n=700 ") {
		t.Errorf("what fits the pipe and the buffer is missing: %d bytes", len(text))
	}
	if !strings.Contains(text, "warn log lines dropped: nobody took them count=") {
		t.Errorf("nothing said of what was dropped; the end is %q", text[max(0, len(text)-200):])
	}
}
