package s6slots

import (
	"reflect"
	"testing"

	"github.com/hermesgw/hermes/internal/supervise"
)

// Whatever becomes of a slot: through what was read of it before, a list says the
// same as one that reads everything.
func TestListThroughFilesIsNeverBehind(t *testing.T) {
	t.Parallel()
	tr := newTree(t, "ready")
	plain := Lister{Dir: tr.dir, Home: t.TempDir(), Live: true}
	ahead := plain
	ahead.Files = tr.dir.Files()
	list := func(l Lister) supervise.Service {
		t.Helper()
		report, err := l.List(tr.ctx(), true)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range report.Services {
			if s.Name == tr.spec.Name {
				s.MemoryBytes = nil // of a living process
				return s
			}
		}
		return supervise.Service{}
	}
	same := func(what string) {
		t.Helper()
		later := plain
		later.Files = tr.dir.Files() // as a process that begins now
		want := list(plain)
		for who, l := range map[string]Lister{"long-lived": ahead, "new": later} {
			if got := list(l); !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %s: %+v, want %+v", what, who, got, want)
			}
		}
		if err := ahead.Remember(); err != nil {
			t.Error(err)
		}
	}
	same("before there is a slot")
	tr.ensure()
	same("registered")
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	if s := list(ahead); s.Want != supervise.WantUp || s.PID == nil {
		t.Errorf("started: %+v", s)
	}
	same("started")
	first := tr.status().PID
	tr.kill(first)
	tr.eventually("it is back", func() bool { s := tr.status(); return s.Serving() && s.PID != first })
	same("killed")
	if s := list(ahead); s.Restarts != 1 {
		t.Errorf("killed: %+v", s)
	}
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	same("stopped")
	if err := tr.m.Unregister(tr.ctx(), tr.spec.Name); err != nil {
		t.Fatal(err)
	}
	same("unregistered")
}
