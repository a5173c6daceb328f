package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

const (
	// killReserve is what the stop keeps of its budget to kill and reap.
	killReserve = 200 * time.Millisecond
	// loggerReserve: loggers that did not end with their input are killed this
	// long before the deadline; on a full disk s6-log was deaf for minutes.
	loggerReserve = time.Second
	progressEvery = time.Second
	scannerPoll   = 20 * time.Millisecond // it says nothing when it ends
	// abort makes s6-svscan become its finish hook at once.
	abort s6.ScanCommand = "b"
)

// stop is one orderly end of the container.
type stop struct {
	run     rundir.Dir
	env     environment
	budget  time.Duration
	stderr  io.Writer
	code    int
	mu      sync.Mutex
	waiting map[string]bool
}

func newStop(o MainOptions) *stop {
	budget, err := environment(o.Environ).seconds("HERMES_STOP_TIMEOUT", DefaultStopTimeout)
	if err != nil {
		budget = DefaultStopTimeout // refused at boot already
	}
	return &stop{run: o.Run, env: o.Environ, budget: budget, stderr: o.Stderr, waiting: map[string]bool{}}
}

// follow waits for the main program's own end or for the first stop signal;
// other signals go to the main program.
func (s *stop) follow(ctx context.Context, c *child, signals chan syscall.Signal) error {
	for {
		select {
		case status := <-c.done:
			s.code = exitCode(status, false)
			return s.conduct(ctx, nil, signals)
		case sig := <-signals:
			if endsContainer(sig) {
				return s.conduct(ctx, c, signals)
			}
			_ = unix.Kill(c.pid, sig) // it may be gone already
		}
	}
}

// endsContainer says which signals ask for a stop; the others are forwarded.
func endsContainer(sig syscall.Signal) bool {
	return slices.Contains([]syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGPWR}, sig)
}

// conduct ends everything within the budget: gateways and the main program
// first, then the other services, the user's finish hooks, the loggers. A
// second stop signal brings the kill forward. It does not return before
// s6-svscan ends this process or the abort was sent.
func (s *stop) conduct(ctx context.Context, c *child, signals <-chan syscall.Signal) error {
	deadline := time.Now().Add(s.budget)
	polite, hurry := context.WithDeadline(ctx, deadline.Add(-killReserve))
	defer hurry()
	go func() {
		for {
			select {
			case <-polite.Done():
				return
			case sig := <-signals:
				if endsContainer(sig) {
					hurry()
				}
			}
		}
	}()
	progress, quiet := context.WithCancel(ctx)
	defer quiet()
	go s.report(progress)
	if err := os.WriteFile(s.run.StoppingFlag(), nil, 0o644); err != nil {
		fmt.Fprintf(s.stderr, "hermes: %v\n", err)
	}
	s.endAll(polite, c)
	for _, f := range runHooks(polite, "/"+finishHooks, s.env, finishHookLimit(s.env)) {
		fmt.Fprintf(s.stderr, "hermes: %s\n", f.Error())
	}
	if err := writeExitCode(s.run, s.code); err != nil {
		fmt.Fprintf(s.stderr, "hermes: %v\n", err)
	}
	return s.endScanner(ctx, deadline)
}

// endAll ends the main program beside the gateways, then everything else.
func (s *stop) endAll(polite context.Context, c *child) {
	names, err := s.run.Scan().Services()
	if err != nil {
		fmt.Fprintf(s.stderr, "hermes: %v\n", err)
	}
	gateways, others := partition(names)
	var wg sync.WaitGroup
	if c != nil {
		wg.Go(func() { s.endMain(polite, c) })
	}
	for _, name := range gateways {
		wg.Go(func() { s.endService(polite, name) })
	}
	wg.Wait()
	for _, name := range others {
		wg.Go(func() { s.endService(polite, name) })
	}
	wg.Wait()
}

// partition tells who ends first. The guard is one of those: nobody needs it for
// a stop, and it must not start what is being stopped.
func partition(names []string) (gateways, others []string) {
	for _, name := range names {
		if _, ok := supervise.ProfileOf(name); ok || name == supervise.GuardName {
			gateways = append(gateways, name)
		} else {
			others = append(others, name)
		}
	}
	return gateways, others
}

// endMain sends TERM once (and HUP where it has the terminal: an interactive
// shell ignores TERM), KILL when polite is over, and keeps the exit code.
func (s *stop) endMain(polite context.Context, c *child) {
	defer s.wait("the main program")()
	_ = unix.Kill(c.pid, unix.SIGTERM)
	if c.tty {
		_ = unix.Kill(c.pid, unix.SIGHUP)
	}
	_ = unix.Kill(c.pid, unix.SIGCONT)
	select {
	case status := <-c.done:
		s.code = exitCode(status, true)
	case <-polite.Done():
		_ = unix.Kill(-c.pid, unix.SIGKILL)
		_ = unix.Kill(c.pid, unix.SIGKILL)
		s.code = exitCode(<-c.done, true)
	}
}

// endService tells one service to stop, once, waits, and kills it when polite
// is over.
func (s *stop) endService(polite context.Context, name string) {
	defer s.wait(name)()
	dir := s.run.Scan().Dir(name)
	sub, err := s6.Subscribe(dir)
	if err != nil {
		return // no supervisor ever ran there
	}
	defer sub.Close()
	if err := s6.Send(dir, s6.Down); err != nil {
		return
	}
	down := func(st s6.Status) bool { return st.Stopped() && !st.WantUp }
	if _, err := sub.Wait(polite, down); err == nil {
		return
	}
	if err := s6.Send(dir, s6.Kill); err != nil {
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(polite), killReserve)
	defer cancel()
	_, _ = sub.Wait(last, down) // what KILL does not end, the end of the namespace does
}

// wait notes that name is being waited for, until the returned function is called.
func (s *stop) wait(name string) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[name] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting, name)
	}
}

// report names every second what the stop still waits for.
func (s *stop) report(ctx context.Context) {
	began := time.Now()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if names := s.names(); len(names) > 0 {
				fmt.Fprintf(s.stderr, "hermes: stopping: waiting for %s (%.0f s of %.0f)\n",
					strings.Join(names, ", "), now.Sub(began).Seconds(), s.budget.Seconds())
			}
		}
	}
}

func (s *stop) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.waiting {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// endScanner lets the loggers drain and end, then s6-svscan, whose finish hook
// gives the container its exit code. This process ends with the container.
func (s *stop) endScanner(ctx context.Context, deadline time.Time) error {
	defer s.wait("the loggers")()
	scan := s.run.Scan()
	if err := scan.Control(s6.Stop); err != nil {
		return err
	}
	if !s.scannerOutlives(ctx, deadline.Add(-loggerReserve)) {
		return nil
	}
	names, _ := scan.Services() // none is as good as an error: the abort follows
	for _, name := range names {
		_ = s6.Send(scan.Dir(name)+"/log", s6.Kill)
	}
	if !s.scannerOutlives(ctx, deadline) {
		return nil
	}
	if err := scan.Control(abort); err != nil && !errors.Is(err, s6.ErrNoScanner) {
		return err
	}
	return nil
}

// scannerOutlives waits until t and says whether s6-svscan is still there; it
// is false at once when it ended or ctx did.
func (s *stop) scannerOutlives(ctx context.Context, t time.Time) bool {
	tick := time.NewTicker(scannerPoll)
	defer tick.Stop()
	for time.Now().Before(t) {
		if s.run.Scan().Alive() != nil {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}
