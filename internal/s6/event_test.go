package s6_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/s6/s6test"
	"golang.org/x/sys/unix"
)

func subscribe(t *testing.T, dir string) *s6.Subscription {
	t.Helper()
	sub, err := s6.Subscribe(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Close() })
	return sub
}

func send(t *testing.T, dir string, commands s6.Command) {
	t.Helper()
	if err := s6.Send(dir, commands); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, sub *s6.Subscription, done func(s6.Status) bool) s6.Status {
	t.Helper()
	st, err := sub.Wait(within(t), done)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// up registers a service and waits until it runs and its start was announced
// (the status is written before the event).
func up(t *testing.T, scandir s6.Scandir, name string, build func(string) error) string {
	t.Helper()
	dir := register(t, scandir, name, withFile(build, "down", ""))
	sub, err := s6.Subscribe(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	send(t, dir, s6.Up)
	if got := nextEvents(t, sub, 1); got != "u" {
		t.Fatalf("event %q, want u", got)
	}
	if err := os.Remove(filepath.Join(dir, "down")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// withFile adds a file to what build makes.
func withFile(build func(string) error, name, content string) func(string) error {
	return func(dir string) error {
		return errors.Join(build(dir), os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755))
	}
}

func nextEvents(t *testing.T, sub *s6.Subscription, n int) string {
	t.Helper()
	var got strings.Builder
	for range n {
		e, err := sub.Next(within(t))
		if err != nil {
			t.Fatalf("after %q: %v", got.String(), err)
		}
		got.WriteByte(byte(e))
	}
	return got.String()
}

func TestEventStream(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	build := withFile(s6test.Service("echo >&3; "+sleeper), "notification-fd", "3")
	dir := register(t, scandir, "svc", withFile(build, "down", ""))
	sub := subscribe(t, dir)
	for _, step := range []struct {
		commands s6.Command
		want     string
	}{
		{s6.Up, "uU"},
		{s6.Down, "dD"},
		{s6.Up, "uU"},
		{s6.Kill, "dDuU"}, // back by itself
		{s6.Down + s6.Exit, "dDx"},
		{"", "s"}, // s6-svscan starts the supervisor again
	} {
		if step.commands != "" {
			send(t, dir, step.commands)
		}
		if got := nextEvents(t, sub, len(step.want)); got != step.want {
			t.Fatalf("after %q: events %q, want %q", step.commands, got, step.want)
		}
	}
}

func TestNextEndsWithItsContextAndWorksAgain(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	dir := up(t, scandir, "svc", s6test.Service(sleeper))
	sub := subscribe(t, dir)
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { _, err := sub.Next(ctx); ended <- err }()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatalf("Next: %v, want %v", err, context.Canceled)
		}
	}
	send(t, dir, s6.Down)
	if got := nextEvents(t, sub, 2); got != "dD" {
		t.Errorf("events %q, want dD", got)
	}
}

func TestCloseRemovesTheFIFOAndEndsAWait(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	dir := up(t, scandir, "svc", s6test.Service(sleeper))
	sub := subscribe(t, dir)
	if got := fifos(t, dir); len(got) != 1 || len(got[0]) != 39 {
		t.Errorf("FIFOs %q, want one of 39 characters", got)
	}
	ended := make(chan error)
	go func() { _, err := sub.Next(within(t)); ended <- err }()
	if err := errors.Join(sub.Close(), sub.Close()); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Next: %v, want %v", err, os.ErrClosed)
	}
	if got := fifos(t, dir); len(got) != 0 {
		t.Errorf("FIFOs %q are left", got)
	}
}

func fifos(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "event"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A subscriber killed with -9 leaves its FIFO; the supervisor removes it with
// the next event, and others get theirs.
func TestStaleFIFOIsRemoved(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	dir := up(t, scandir, "svc", s6test.Service(sleeper))
	stale := filepath.Join(dir, "event", "ftrig1:@400000006b0372b61f37e5c2:abcdef")
	if err := unix.Mkfifo(stale, 0o600); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, dir)
	send(t, dir, s6.Down)
	await(t, sub, s6.Status.Stopped)
	s6test.Eventually(t, "the stale FIFO is gone", func() bool {
		_, err := os.Lstat(stale)
		return errors.Is(err, os.ErrNotExist)
	})
}

// Every change is seen by a wait that subscribed before the command.
func TestNoChangeIsMissed(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	dir := up(t, scandir, "svc", s6test.Service(sleeper))
	sub := subscribe(t, dir)
	start := time.Now()
	const rounds = 30
	for range rounds {
		send(t, dir, s6.Down)
		await(t, sub, s6.Status.Stopped)
		send(t, dir, s6.Up)
		await(t, sub, s6.Status.Running)
	}
	// Were events lost, each wait would last until the next look, half a second.
	if took := time.Since(start); took > rounds*2*250*time.Millisecond {
		t.Errorf("%d rounds took %s: the waits do not see the events", rounds, took)
	}
}

func TestWaitReportsPermanentFailure(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	build := withFile(s6test.Service("exit 1"), "finish", "#!/bin/sh\nexit 125\n")
	dir := register(t, scandir, "svc", withFile(build, "down", ""))
	sub := subscribe(t, dir)
	send(t, dir, s6.Up)
	st, err := sub.Wait(within(t), s6.Status.Serving)
	if !errors.Is(err, s6.ErrPermanentFailure) {
		t.Fatalf("Wait: %v, want %v", err, s6.ErrPermanentFailure)
	}
	if st.WantUp || st.LastExit.Code() != 1 {
		t.Errorf("status %+v, want one that is not wanted up and exited 1", st)
	}
	await(t, sub, s6.Status.Stopped)
}

func TestWaitReportsTheEndOfTheSupervisor(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	dir := register(t, scandir, "svc", withFile(s6test.Service(sleeper), "down", ""))
	sub := subscribe(t, dir)
	_, err := sub.Wait(within(t), func(st s6.Status) bool {
		if err := s6.Send(dir, s6.Exit); err != nil {
			t.Log(err) // it had the first one
		}
		return st.Up
	})
	if !errors.Is(err, s6.ErrSupervisorGone) {
		t.Errorf("Wait: %v, want %v", err, s6.ErrSupervisorGone)
	}
}

// A supervisor killed with -9 says nothing; s6-svscan brings it back in a
// second, and a wait must live through that.
func TestWaitSurvivesAKilledSupervisor(t *testing.T) {
	t.Parallel()
	scandir := s6test.Start(t)
	dir := up(t, scandir, "svc", s6test.Service(sleeper))
	sub := subscribe(t, dir)
	first, err := s6.ReadStatus(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(first.PID, syscall.SIGKILL) // left behind by its supervisor
	_, pid, err := s6.Supervised(dir)
	if err != nil {
		t.Fatal(err)
	}
	waiting, done := make(chan struct{}, 100), make(chan error)
	go func() {
		_, err := sub.Wait(within(t), func(st s6.Status) bool {
			waiting <- struct{}{}
			return st.Up && st.PID != first.PID
		})
		done <- err
	}()
	<-waiting
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWaitRefusesADeadSupervisorsStatus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{"event", "supervise"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string][]byte{"lock": nil, "status": unhex(t, golden[6].hex)} {
		if err := os.WriteFile(filepath.Join(dir, "supervise", name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := s6.ReadStatus(dir); err != nil || !st.Up {
		t.Fatalf("ReadStatus: %+v, %v", st, err)
	}
	if _, err := s6.Wait(within(t), dir, s6.Status.Running); !errors.Is(err, s6.ErrNotSupervised) {
		t.Errorf("Wait: %v, want %v", err, s6.ErrNotSupervised)
	}
}

// Root may watch a service whose supervisor is another user's, which could not
// write to a FIFO of root's; and others may watch root's, if event/ lets them.
func TestEventsCrossUsers(t *testing.T) {
	t.Parallel()
	const nobody = 65534
	t.Run("root watches nobody's", func(t *testing.T) {
		scandir := s6test.StartAs(t, nobody)
		dir := up(t, scandir, "svc", s6test.LoggedService(sleeper, "exec cat >/dev/null"))
		sub := subscribe(t, dir)
		send(t, dir, s6.Down)
		if got := nextEvents(t, sub, 2); got != "dD" {
			t.Errorf("events %q, want dD", got)
		}
		if err := scandir.Unregister(within(t), "svc"); err != nil {
			t.Error(err)
		}
	})
	t.Run("nobody watches root's", func(t *testing.T) {
		asUser(t, nobody, func() {}) // skips unless root
		scandir := startPublic(t)
		dir := up(t, scandir, "svc", func(dir string) error {
			event := filepath.Join(dir, "event")
			return errors.Join(s6test.Service(sleeper)(dir), os.Mkdir(event, 0o700), os.Chmod(event, os.ModeSticky|0o733))
		})
		var sub *s6.Subscription
		var err error
		asUser(t, nobody, func() { sub, err = s6.Subscribe(dir) })
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Close()
		send(t, dir, s6.Down)
		if got := nextEvents(t, sub, 2); got != "dD" {
			t.Errorf("events %q, want dD", got)
		}
	})
}
