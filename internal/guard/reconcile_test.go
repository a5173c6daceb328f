package guard_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hermesgw/hermes/internal/guard"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise"
)

// fleet is slots in memory.
type fleet struct {
	mu       sync.Mutex
	slots    map[string]bool // wanted up
	said     []string
	looks    int
	stopping bool
	err      error
	slow     time.Duration
}

func (f *fleet) Wanted() (map[string]bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	return maps.Clone(f.slots), nil
}

func (f *fleet) Stopping() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopping
}

func (f *fleet) Apply(_ context.Context, p profile.Profile, a guard.Action) error {
	f.mu.Lock()
	slow := f.slow
	f.mu.Unlock()
	time.Sleep(slow)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, string(a)+" "+p.Name)
	if f.err != nil {
		return f.err
	}
	switch a {
	case guard.Register, guard.Stop:
		f.slots[p.Name] = false
	case guard.Start:
		f.slots[p.Name] = true
	case guard.Remove:
		delete(f.slots, p.Name)
	}
	return nil
}

// take returns what was done since the last call.
func (f *fleet) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	said := strings.Join(f.said, ", ")
	f.said = nil
	return said
}

// change sets how it behaves from now on.
func (f *fleet) change(how func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how()
}

func (f *fleet) set(name string, up bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slots[name] = up
}

// volume is a data directory with a reconciler over it.
type volume struct {
	*fleet
	t    *testing.T
	home string
}

// reconciled runs f beside a reconciler, on a clock of its own, on a real
// directory. The profile kept is there and up.
func reconciled(t *testing.T, name string, f func(v *volume), more ...func(*volume, *guard.Reconciler)) {
	t.Run(name, func(t *testing.T) {
		home := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			v := &volume{&fleet{slots: map[string]bool{"default": true, "kept": true}}, t, home}
			v.make("kept")
			v.intend("kept", supervise.WantUp)
			r := &guard.Reconciler{Home: home, Fleet: v.fleet, Log: slog.New(slog.DiscardHandler)}
			for _, m := range more {
				m(v, r)
			}
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			time.Sleep(10*time.Second + 500*time.Millisecond) // whatever it does at its beginning is done
			f(v)
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}

func (v *volume) dir(name string) string { return filepath.Join(v.home, "profiles", name) }

func (v *volume) make(name string) {
	if err := os.MkdirAll(v.dir(name), 0o700); err != nil {
		v.t.Fatal(err)
	}
}

func (v *volume) remove(path string) {
	if err := os.RemoveAll(path); err != nil {
		v.t.Fatal(err)
	}
}

func (v *volume) intend(name string, want supervise.Want) {
	p, err := profile.Find(v.home, name)
	if err == nil {
		err = intent.Write(p.Home, intent.Intent{Want: want, By: "cli", At: time.Now()})
	}
	if err != nil {
		v.t.Fatal(err)
	}
}

// within says what was done in so many seconds.
func (v *volume) within(seconds int, want string) {
	v.t.Helper()
	time.Sleep(time.Duration(seconds) * time.Second)
	if got := v.take(); got != want {
		v.t.Errorf("within %d s it did %q, want %q", seconds, got, want)
	}
}

func TestProfilesGetAndLoseTheirSlots(t *testing.T) {
	reconciled(t, "a directory appears, and goes", func(v *volume) {
		v.within(60, "")
		v.make("new")
		v.within(2, "register new")
		v.within(10, "")
		v.remove(v.dir("new"))
		v.within(3, "remove new")
		v.within(60, "")
	})
	reconciled(t, "with an intent", func(v *volume) {
		v.make("new")
		v.intend("new", supervise.WantUp)
		v.within(2, "register new, start new")
		v.within(60, "")
	})
	reconciled(t, "one registers it first", func(v *volume) {
		v.make("new")
		v.set("new", false)
		v.within(60, "")
	})
	reconciled(t, "ten in one moment, and slow ones hold up nobody", func(v *volume) {
		v.change(func() { v.slow = 9 * time.Second })
		for i := range 10 {
			v.make(fmt.Sprint("new", i))
		}
		time.Sleep(11 * time.Second)
		if said := strings.Split(v.take(), ", "); len(said) != 10 {
			v.t.Errorf("did %q", said)
		}
	})
	reconciled(t, "a missing profiles directory, or home, removes nothing", func(v *volume) {
		v.remove(filepath.Join(v.home, "profiles"))
		v.within(60, "")
		v.remove(v.home)
		v.within(60, "")
	})
	reconciled(t, "renamed at once", func(v *volume) {
		if err := os.Rename(v.dir("kept"), v.dir("other")); err != nil {
			v.t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		said := strings.Split(v.take(), ", ")
		slices.Sort(said)
		if got := strings.Join(said, ", "); got != "register other, remove kept, start other" {
			v.t.Errorf("did %q", got)
		}
	})
	reconciled(t, "a link is no profile, and takes no slot away", func(v *volume) {
		v.remove(v.dir("kept"))
		if err := os.Symlink(v.t.TempDir(), v.dir("kept")); err != nil {
			v.t.Fatal(err)
		}
		v.within(60, "")
	})
}

func TestIntentIsFollowed(t *testing.T) {
	reconciled(t, "a command that acts itself is not helped", func(v *volume) {
		v.intend("kept", supervise.WantDown)
		time.Sleep(900 * time.Millisecond)
		v.set("kept", false)
		v.within(60, "")
	})
	reconciled(t, "written from elsewhere", func(v *volume) {
		v.intend("kept", supervise.WantDown)
		v.within(3, "stop kept")
		v.intend("kept", supervise.WantUp)
		v.within(3, "start kept")
		v.intend("default", supervise.WantDown)
		v.within(3, "stop default")
	})
	reconciled(t, "what others do to a slot stays", func(v *volume) {
		v.set("kept", false)
		v.within(120, "")
	})
	reconciled(t, "an unreadable one is left alone", func(v *volume) {
		if err := os.WriteFile(filepath.Join(v.dir("kept"), intent.FileName), []byte("{"), 0o600); err != nil {
			v.t.Fatal(err)
		}
		v.within(60, "")
	})
	reconciled(t, "what fails is not tried for ever", func(v *volume) {
		v.change(func() { v.err = errors.New("no") })
		v.intend("kept", supervise.WantDown)
		time.Sleep(5 * time.Minute)
		if n := len(strings.Split(v.take(), ", ")); n != 3 {
			v.t.Errorf("tried %d times", n)
		}
	})
	reconciled(t, "not while the container stops", func(v *volume) {
		v.change(func() { v.stopping = true })
		v.make("new")
		v.intend("kept", supervise.WantDown)
		v.within(60, "")
	})
	reconciled(t, "the foreground's is left alone", func(v *volume) {
		v.intend("kept", supervise.WantUp)
		v.within(60, "")
	}, func(v *volume, r *guard.Reconciler) { r.Leave = "kept"; v.slots["kept"] = false })
	reconciled(t, "at its beginning", func(v *volume) {
		v.within(60, "start kept")
	}, func(v *volume, _ *guard.Reconciler) { v.slots["kept"] = false })
}

// Nothing is looked at but the time stamps while nothing changes.
func TestReconcilerIsQuiet(t *testing.T) {
	reconciled(t, "an hour", func(v *volume) {
		v.change(func() { v.looks = 0 })
		time.Sleep(time.Hour)
		v.change(func() {
			if v.looks != 0 {
				v.t.Errorf("it looked at the slots %d times", v.looks)
			}
		})
	})
}
