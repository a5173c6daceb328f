package s6_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/s6/s6test"
)

// within gives a test's context a deadline that only a hang reaches.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func register(t *testing.T, scandir s6.Scandir, name string, build func(string) error) string {
	t.Helper()
	if err := scandir.Register(within(t), name, build); err != nil {
		t.Fatal(err)
	}
	return scandir.Dir(name)
}

const sleeper = "exec sleep 1000"

func TestRegisterReturnsWithLiveSupervisors(t *testing.T) {
	scandir := s6test.Start(t)
	dir := register(t, scandir, "web", s6test.LoggedService(sleeper, "exec cat >/dev/null"))
	for _, d := range []string{dir, filepath.Join(dir, "log")} {
		if alive, pid, err := s6.Supervised(d); !alive || pid <= 0 || err != nil {
			t.Errorf("Supervised(%q) = %v, %d, %v", d, alive, pid, err)
		}
		if !s6.Answers(nil, d) {
			t.Errorf("nobody answers in %q", d)
		}
		if _, err := s6.Wait(within(t), d, s6.Status.Running); err != nil {
			t.Error(err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("directory: %v, %v; want mode 0755", info.Mode(), err)
	}
	names, err := scandir.Services()
	if err != nil || !slices.Equal(names, []string{"web"}) {
		t.Errorf("Services() = %q, %v", names, err)
	}
	noHiddenEntries(t, scandir)
}

func noHiddenEntries(t *testing.T, scandir s6.Scandir) {
	t.Helper()
	entries, err := os.ReadDir(string(scandir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".s6-svscan" && e.Name()[0] == '.' {
			t.Errorf("%q is left in the scan directory", e.Name())
		}
	}
}

func TestRegisterAndUnregisterConcurrently(t *testing.T) {
	scandir := s6test.Start(t)
	const n = 12
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			name, build := fmt.Sprintf("svc-%d", i), s6test.Service(sleeper)
			if i%3 == 0 {
				build = s6test.LoggedService(sleeper, "exec cat >/dev/null")
			}
			if err := scandir.Register(within(t), name, build); err != nil {
				t.Error(err)
				return
			}
			if err := scandir.Unregister(within(t), name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if names, err := scandir.Services(); len(names) != 0 || err != nil {
		t.Errorf("Services() = %q, %v", names, err)
	}
	noHiddenEntries(t, scandir)
}

func TestOnlyOneOfConcurrentRegistrationsWins(t *testing.T) {
	scandir := s6test.Start(t)
	errs := make(chan error)
	for range 4 {
		go func() { errs <- scandir.Register(within(t), "one", s6test.Service(sleeper)) }()
	}
	won := 0
	for range 4 {
		switch err := <-errs; {
		case err == nil:
			won++
		case !errors.Is(err, s6.ErrExists):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d registrations won, want 1", won)
	}
	noHiddenEntries(t, scandir)
}
