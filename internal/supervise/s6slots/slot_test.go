package s6slots

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/slot"
	"github.com/hermesgw/hermes/internal/testenv"
)

func writeFile(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := testenv.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func contextWithTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// TestState is the table of what is known of a slot and what it is called.
func TestState(t *testing.T) {
	gateway := supervise.Spec{Name: "gateway-default", Kind: supervise.KindGateway, Profile: "default"}
	dashboard := supervise.Spec{Name: "dashboard", Kind: supervise.KindDashboard}
	service := supervise.Spec{Name: "web", Kind: supervise.KindService}
	up := s6.Status{Up: true, WantUp: true, PID: 5}
	serving := s6.Status{Up: true, WantUp: true, Ready: true, PID: 5}
	pausing := slot.Record{State: supervise.Backoff, Reason: "r"}
	parked := slot.Record{State: supervise.Parked, Reason: "r"}
	says := func(s supervise.State) *control.Status { return &control.Status{State: s, Reason: "g", PID: 5} }
	for name, c := range map[string]struct {
		spec   supervise.Spec
		o      observation
		state  supervise.State
		reason string
		want   supervise.Want
	}{
		"no slot":                      {gateway, observation{}, supervise.Down, "", supervise.WantDown},
		"no slot, in the foreground":   {gateway, observation{gateway: says(supervise.Ready)}, supervise.Ready, "g; runs in the foreground, not supervised", supervise.WantDown},
		"slot down, in the foreground": {gateway, observation{registered: true, gateway: says(supervise.Degraded)}, supervise.Degraded, "g; runs in the foreground, not supervised", supervise.WantDown},
		"no dashboard":                 {dashboard, observation{}, supervise.Disabled, "set HERMES_DASHBOARD=1 on the container to have it", supervise.WantDown},
		"dashboard down":               {dashboard, observation{registered: true, supervised: true}, supervise.Down, "", supervise.WantDown},
		"down":                         {gateway, observation{registered: true, supervised: true}, supervise.Down, "", supervise.WantDown},
		"starting":                     {gateway, observation{registered: true, supervised: true, status: up}, supervise.Starting, "", supervise.WantUp},
		"starting, and says so":        {gateway, observation{registered: true, supervised: true, status: up, gateway: says(supervise.Starting)}, supervise.Starting, "g", supervise.WantUp},
		"standby":                      {gateway, observation{registered: true, supervised: true, status: up, gateway: says(supervise.Standby)}, supervise.Standby, "g", supervise.WantUp},
		"ready":                        {gateway, observation{registered: true, supervised: true, status: serving, gateway: says(supervise.Ready)}, supervise.Ready, "g", supervise.WantUp},
		"draining":                     {gateway, observation{registered: true, supervised: true, status: serving, gateway: says(supervise.Draining)}, supervise.Draining, "g", supervise.WantUp},
		"deaf":                         {gateway, observation{registered: true, supervised: true, status: serving, asked: true}, supervise.Degraded, "its control socket does not answer", supervise.WantUp},
		"dashboard ready":              {dashboard, observation{registered: true, supervised: true, status: serving}, supervise.Ready, "", supervise.WantUp},
		"dashboard starting":           {dashboard, observation{registered: true, supervised: true, status: up}, supervise.Starting, "", supervise.WantUp},
		"a service that never says":    {service, observation{registered: true, supervised: true, status: up}, supervise.Ready, "", supervise.WantUp},
		"supervisor died":              {gateway, observation{registered: true, status: serving, gateway: says(supervise.Ready)}, supervise.Starting, "its supervisor died and is being started again", supervise.WantUp},
		"stopping":                     {gateway, observation{registered: true, supervised: true, status: s6.Status{Up: true, PID: 5, Ready: true}, gateway: says(supervise.Draining)}, supervise.Stopping, "", supervise.WantDown},
		"stopping, in finish":          {gateway, observation{registered: true, supervised: true, status: s6.Status{Finishing: true, PID: 6}}, supervise.Stopping, "", supervise.WantDown},
		"between two runs":             {gateway, observation{registered: true, supervised: true, status: s6.Status{WantUp: true}}, supervise.Starting, "", supervise.WantUp},
		"in finish":                    {gateway, observation{registered: true, supervised: true, status: s6.Status{WantUp: true, Finishing: true, PID: 6}}, supervise.Starting, "", supervise.WantUp},
		"backoff":                      {gateway, observation{registered: true, supervised: true, status: up, record: pausing}, supervise.Backoff, "r", supervise.WantUp},
		"stopped in backoff":           {gateway, observation{registered: true, supervised: true, status: s6.Status{Up: true, PID: 5}, record: pausing}, supervise.Stopping, "", supervise.WantDown},
		"parked for good":              {gateway, observation{registered: true, supervised: true, record: parked}, supervise.Parked, "r", supervise.WantUp},
		"parked, trial to come":        {gateway, observation{registered: true, supervised: true, status: up, record: parked}, supervise.Parked, "r", supervise.WantUp},
	} {
		state, reason, _ := c.o.state(c.spec)
		if state != c.state || reason != c.reason || c.o.want() != c.want {
			t.Errorf("%s: %s %q, wanted %s; want %s %q, wanted %s", name, state, reason, c.o.want(), c.state, c.reason, c.want)
		}
	}
}

// Every key is there, also of what does not run; unknown is null.
func TestListWithoutATree(t *testing.T) {
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, "profiles", "work"), 0o700); err != nil {
		t.Fatal(err)
	}
	l := Lister{Dir: rundir.Dir(t.TempDir()), Home: home}
	for all, want := range map[bool]string{true: "gateway-default gateway-work dashboard", false: "gateway-default gateway-work"} {
		report, err := l.List(t.Context(), all)
		if err != nil || report.Manager != "none" || report.Schema != 1 {
			t.Fatalf("%+v, %v", report, err)
		}
		var names []string
		for _, s := range report.Services {
			names = append(names, s.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("all=%v lists %s, want %s", all, got, want)
		}
		if all {
			checkKeys(t, report)
		}
	}
}

func checkKeys(t *testing.T, report supervise.Report) {
	t.Helper()
	b, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Services []map[string]any }
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	keys := []string{"name", "kind", "profile", "state", "want", "since", "pid", "restarts", "requested_restarts", "memory_bytes", "reason", "until", "holder", "last_exit", "platforms"}
	for _, s := range got.Services {
		for _, key := range keys {
			if _, ok := s[key]; !ok {
				t.Errorf("%v has no key %q", s["name"], key)
			}
		}
		if len(s) != len(keys) || s["pid"] != nil || s["since"] != nil || s["platforms"] == nil {
			t.Errorf("%v", s)
		}
	}
}

// degradedBy is a wanted gateway of which one platform fails.
func degradedBy(name string) supervise.Service {
	platforms := []supervise.Platform{{Name: "http", State: supervise.Ready}, {Name: "telegram", State: supervise.Ready}}
	for i := range platforms {
		if platforms[i].Name == name {
			platforms[i].State = supervise.Degraded
		}
	}
	return supervise.Service{Want: supervise.WantUp, State: supervise.Degraded, Platforms: platforms}
}

func TestCulprits(t *testing.T) {
	now := time.Now()
	recently, long, tomorrow := now.Add(-59*time.Second), now.Add(-61*time.Second), now.Add(24*time.Hour)
	pid := 5
	for name, c := range map[string]struct {
		s           supervise.Service
		live, ready bool // well, for each question
	}{
		"ready":             {supervise.Service{Want: supervise.WantUp, State: supervise.Ready}, true, true},
		"degraded":          {supervise.Service{Want: supervise.WantUp, State: supervise.Degraded}, true, true},
		"platform fails":    {degradedBy("telegram"), true, true},
		"serves nobody":     {degradedBy("http"), true, true}, // only its own /readyz says 503
		"standby":           {supervise.Service{Want: supervise.WantUp, State: supervise.Standby}, true, false},
		"draining":          {supervise.Service{Want: supervise.WantUp, State: supervise.Draining}, true, false},
		"starting":          {supervise.Service{Want: supervise.WantUp, State: supervise.Starting, Since: &recently}, true, false},
		"starting too long": {supervise.Service{Want: supervise.WantUp, State: supervise.Starting, Since: &long}, false, false},
		"clock set back":    {supervise.Service{Want: supervise.WantUp, State: supervise.Starting, Since: &tomorrow}, false, false},
		"backoff":           {supervise.Service{Want: supervise.WantUp, State: supervise.Backoff}, false, false},
		"parked":            {supervise.Service{Want: supervise.WantUp, State: supervise.Parked}, false, false},
		"wanted, yet down":  {supervise.Service{Want: supervise.WantUp, State: supervise.Down}, false, false},
		"down":              {supervise.Service{Want: supervise.WantDown, State: supervise.Down}, true, true},
		"disabled":          {supervise.Service{Want: supervise.WantDown, State: supervise.Disabled}, true, true},
		"stopping":          {supervise.Service{Want: supervise.WantDown, State: supervise.Stopping, PID: &pid}, true, true},
		"foreground":        {supervise.Service{Want: supervise.WantDown, State: supervise.Starting, Since: &long, PID: &pid}, false, false},
	} {
		c.s.Name, c.s.Reason = "gateway-default", "why"
		for ready, well := range map[bool]bool{false: c.live, true: c.ready} {
			lines := Culprits(supervise.Report{Services: []supervise.Service{c.s}}, ready, time.Minute, now)
			if (len(lines) == 0) != well {
				t.Errorf("%s, ready=%v: %q", name, ready, lines)
			}
			if !well && lines[0].String() != "gateway-default is "+string(c.s.State)+": why" {
				t.Errorf("%s: %q", name, lines)
			}
		}
	}
}
