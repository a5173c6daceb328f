package s6slots

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/s6"
	"github.com/hermesgw/hermes/internal/supervise"
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

func content(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "-"
	}
	return strings.TrimSpace(string(b))
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	spec := supervise.Place{Home: "/data", RunDir: "/run", BackoffMax: time.Minute, StopTimeout: 9 * time.Second}.Gateway("work", nil, false)
	if err := Write(dir, spec, WriteOptions{Binary: "/usr/local/bin/hermes", Down: true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"timeout-finish": "3000", "timeout-kill": "9000", "notification-fd": "3", "max-death-tally": "10", "down": "", "down-signal": "-",
	} {
		if got := content(t, dir, name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"run", "finish", "log/run"} {
		if to, err := os.Readlink(filepath.Join(dir, name)); err != nil || to != "/usr/local/bin/hermes" {
			t.Errorf("%s leads to %q: %v", name, to, err)
		}
	}
	got, err := ReadSpec(dir)
	if err != nil || got.Name != spec.Name || got.Mark != spec.Mark || got.StopTimeout != spec.StopTimeout || !slices.Equal(got.Args, spec.Args) {
		t.Errorf("read back %+v, %v", got, err)
	}
}

// A slot of a user's own service directory has the settings that stand there.
func TestWriteAdoptsAUsersSettings(t *testing.T) {
	for name, c := range map[string]struct {
		source map[string]string
		want   map[string]string
	}{
		"nothing set": {nil, map[string]string{
			"timeout-finish": "3000", "timeout-kill": "-", "notification-fd": "-", "down": "-", "log/run": "-", "down-signal": "-",
		}},
		"everything set": {
			map[string]string{"timeout-finish": "5000", "timeout-kill": "700", "notification-fd": "4", "down-signal": "INT", "max-death-tally": "3", "down": ""},
			map[string]string{"timeout-finish": "5000", "timeout-kill": "700", "notification-fd": "4", "down-signal": "INT", "max-death-tally": "3", "down": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			source, dir := t.TempDir(), t.TempDir()
			for file, text := range c.source {
				writeFile(t, filepath.Join(source, file), text, 0o644)
			}
			if err := Write(dir, supervise.Place{}.Service("web", source), WriteOptions{Binary: "/hermes"}); err != nil {
				t.Fatal(err)
			}
			for file, want := range c.want {
				if got := content(t, dir, file); got != want {
					t.Errorf("%s holds %q, want %q", file, got, want)
				}
			}
		})
	}
	source, dir := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(source, "log", "run"), "#!/bin/sh\n", 0o755)
	if err := Write(dir, supervise.Place{}.Service("web", source), WriteOptions{Binary: "/hermes"}); err != nil {
		t.Fatal(err)
	}
	if to, _ := os.Readlink(filepath.Join(dir, "log", "run")); to != "/hermes" {
		t.Errorf("a service with a logger: log/run leads to %q", to)
	}
}

// A record that is lost or damaged costs a counter, never a start.
func TestDamagedRecord(t *testing.T) {
	for _, text := range []string{"", "{", `{"short":"many"}`, "null", "\x00"} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, recordFile), text, 0o644)
		if r := readRecord(dir); r.State != "" || r.Meter.Deaths != 0 || r.Until != nil {
			t.Errorf("%q was read as %+v", text, r)
		}
	}
	if _, err := ReadSpec(t.TempDir()); err == nil || !strings.HasPrefix(err.Error(), "cannot read slot: ") {
		t.Errorf("no slot: %v", err)
	}
}

func TestAskedIsTakenOnce(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "data", "x"), "", 0o644)
	if _, ok := takeAsked(dir); ok {
		t.Error("something was asked for")
	}
	if err := (asked{askedRestart, "test", time.Now()}).write(dir); err != nil {
		t.Fatal(err)
	}
	if a, ok := takeAsked(dir); !ok || a.Kind != askedRestart || a.By != "test" {
		t.Errorf("took %+v, %v", a, ok)
	}
	if _, ok := takeAsked(dir); ok {
		t.Error("it was taken twice")
	}
}

func TestDeath(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		args    []string
		started time.Time
		ready   time.Time
		wantUp  bool
		asked   bool
		want    supervise.Death
	}{
		"exit":           {args: []string{"42", "0", "x"}, wantUp: true, want: supervise.Death{Code: 42}},
		"signal":         {args: []string{"256", "9", "x"}, wantUp: true, want: supervise.Death{Signal: syscall.SIGKILL}},
		"asked":          {args: []string{"0", "0", "x"}, wantUp: true, asked: true, want: supervise.Death{Asked: true}},
		"wanted down":    {args: []string{"0", "0", "x"}, want: supervise.Death{Asked: true}},
		"ready":          {args: []string{"1", "0", "x"}, wantUp: true, started: now.Add(-2 * time.Minute), ready: now.Add(-time.Minute), want: supervise.Death{Code: 1, Lived: 2 * time.Minute, ReadyFor: time.Minute}},
		"ready long ago": {args: []string{"1", "0", "x"}, wantUp: true, started: now.Add(-time.Second), ready: now.Add(-time.Hour), want: supervise.Death{Code: 1, Lived: time.Second}},
		"never started":  {args: []string{"1", "0", "x"}, wantUp: true, ready: now.Add(-time.Hour), want: supervise.Death{Code: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "data", "x"), "", 0o644)
			if err := (record{Started: c.started}).write(dir); err != nil {
				t.Fatal(err)
			}
			if c.asked {
				if err := (asked{askedRestart, "test", now}).write(dir); err != nil {
					t.Fatal(err)
				}
			}
			c.want.At = now
			got, by, err := Entry{Dir: dir, Args: c.args}.death(s6.Status{WantUp: c.wantUp, ReadySince: c.ready}, now)
			if err != nil || got != c.want || (by == "test") != c.asked {
				t.Errorf("%+v by %q, %v; want %+v", got, by, err, c.want)
			}
		})
	}
	for _, args := range [][]string{nil, {"1"}, {"x", "0", "n"}, {"256", "x", "n"}} {
		if _, _, err := (Entry{Dir: t.TempDir(), Args: args}).death(s6.Status{}, now); err == nil {
			t.Errorf("%q was understood", args)
		}
	}
}

// TestState is the table of what is known of a slot and what it is called.
func TestState(t *testing.T) {
	gateway := supervise.Spec{Name: "gateway-default", Kind: supervise.KindGateway, Profile: "default"}
	dashboard := supervise.Spec{Name: "dashboard", Kind: supervise.KindDashboard}
	service := supervise.Spec{Name: "web", Kind: supervise.KindService}
	up := s6.Status{Up: true, WantUp: true, PID: 5}
	serving := s6.Status{Up: true, WantUp: true, Ready: true, PID: 5}
	pausing := record{State: supervise.Backoff, Reason: "r"}
	parked := record{State: supervise.Parked, Reason: "r"}
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
	recently, long := now.Add(-59*time.Second), now.Add(-61*time.Second)
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
