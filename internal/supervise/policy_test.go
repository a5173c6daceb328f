package supervise_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hermesgw/hermes/internal/supervise"
)

const (
	almost = 1 - 1e-9 // the largest jitter there is, nearly
	minute = time.Minute
)

func crashed(code int, readyFor time.Duration) supervise.Death {
	return supervise.Death{Code: code, ReadyFor: readyFor}
}

// deaths is a meter that shows n, from long ago.
func deaths(n int) supervise.Meter { return supervise.Meter{Deaths: n} }

func TestDecide(t *testing.T) {
	asked := func(d supervise.Death) supervise.Death { d.Asked = true; return d }
	killed := supervise.Death{Signal: syscall.SIGKILL}
	lived := func(d time.Duration) supervise.Death { return supervise.Death{Code: 1, Lived: d} }
	for name, c := range map[string]struct {
		death  supervise.Death
		short  int
		action supervise.Action
		after  int
	}{
		"first crash":                       {crashed(1, 0), 0, supervise.RestartNow, 1},
		"second crash":                      {crashed(1, 0), 1, supervise.RestartAfter, 2},
		"killed counts like a crash":        {killed, 1, supervise.RestartAfter, 2},
		"an unasked 0 counts too":           {crashed(0, 0), 1, supervise.RestartAfter, 2},
		"an unasked 75 counts too":          {crashed(75, 0), 1, supervise.RestartAfter, 2},
		"ready for almost a minute":         {crashed(1, supervise.GoodRun-1), 4, supervise.RestartAfter, 5},
		"ready for a minute":                {crashed(1, supervise.GoodRun), 19, supervise.RestartNow, 0},
		"a good run that was killed":        {supervise.Death{Signal: syscall.SIGSEGV, ReadyFor: time.Hour}, 7, supervise.RestartNow, 0},
		"asked":                             {asked(crashed(0, 0)), 3, supervise.RestartNow, 3},
		"asked, on the brink":               {asked(crashed(1, 0)), 19, supervise.RestartNow, 19},
		"asked, killed at the stop timeout": {asked(killed), 19, supervise.RestartNow, 19},
		"configuration":                     {crashed(78, 0), 0, supervise.Park, 0},
		"configuration, after a good run":   {crashed(78, time.Hour), 5, supervise.Park, 5},
		"configuration, though asked":       {asked(crashed(78, 0)), 2, supervise.Park, 2},
		"signal 78 is no configuration":     {supervise.Death{Signal: 9, Code: 78}, 1, supervise.RestartAfter, 2},
		"nineteenth":                        {crashed(1, 0), 18, supervise.RestartAfter, 19},
		"twentieth":                         {crashed(1, 0), 19, supervise.Trial, 20},
		"the trial failed":                  {crashed(1, 0), 20, supervise.Trial, 21},
		"the trial ran well":                {crashed(1, minute), 20, supervise.RestartNow, 0},
		"lived long, never ready":           {lived(10 * minute), 19, supervise.RestartAfter, 19},
		"lived a day, never ready":          {lived(24 * time.Hour), 30, supervise.RestartNow, 1},
		"lived not quite long":              {lived(10*minute - 1), 18, supervise.RestartAfter, 19},
		"the trial lived long":              {lived(3 * time.Hour), 25, supervise.RestartAfter, 8},
	} {
		got := supervise.Decide(c.death, deaths(c.short), minute, 0.5)
		if got.Action != c.action || got.Meter.Deaths != c.after {
			t.Errorf("%s: %s with %d deaths, want %s with %d", name, got.Action, got.Meter.Deaths, c.action, c.after)
		}
		if (got.Delay > 0) != (got.Action == supervise.RestartAfter || got.Action == supervise.Trial) {
			t.Errorf("%s: %s after %s", name, got.Action, got.Delay)
		}
		if got.Reason == "" {
			t.Errorf("%s: no reason", name)
		}
	}
}

// The pauses of a crash loop, without jitter: 0, 1, 2, 4 … seconds.
func TestSequence(t *testing.T) {
	for backoffMax, want := range map[time.Duration][]int{
		minute:           {0, 1, 2, 4, 8, 16, 32, 60, 60, 60},
		10 * time.Second: {0, 1, 2, 4, 8, 10, 10, 10, 10, 10},
		time.Second:      {0, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		24 * time.Hour:   {0, 1, 2, 4, 8, 16, 32, 64, 128, 256},
	} {
		m := supervise.Meter{}
		at := time.Unix(1e9, 0)
		for n, seconds := range want {
			death := crashed(1, 0)
			death.At = at
			d := supervise.Decide(death, m, backoffMax, almost)
			if got := d.Delay.Round(time.Millisecond); got != time.Duration(seconds)*time.Second {
				t.Errorf("at most %s: pause %d is %s, want %d s", backoffMax, n+1, got, seconds)
			}
			m, at = d.Meter, at.Add(d.Delay)
		}
	}
}

func TestJitterIsHalfToWhole(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		short := rapid.IntRange(1, supervise.ParkAfter-2).Draw(rt, "short")
		most := time.Duration(rapid.IntRange(1, 86400).Draw(rt, "backoffMax")) * time.Second
		jitter := rapid.Float64Range(0, almost).Draw(rt, "jitter")
		whole := min(time.Second<<(short-1), most)
		got := supervise.Decide(crashed(1, 0), deaths(short), most, jitter).Delay
		if got < whole/2 || got > whole {
			rt.Fatalf("pause %s, want %s to %s", got, whole/2, whole)
		}
	})
}

// The pause doubles up to the cap, also to the longest one there can be.
func TestPauseDoublesUpToTheLongestCap(t *testing.T) {
	for short, want := range map[int]time.Duration{16: 1 << 15 * time.Second, 17: 1 << 16 * time.Second, 18: 24 * time.Hour} {
		if got := supervise.Decide(crashed(1, 0), deaths(short), 24*time.Hour, 1).Delay; got != want {
			t.Errorf("after %d deaths: %s, want %s", short+1, got, want)
		}
	}
}

func TestTwentyDeathsParkWithATrial(t *testing.T) {
	m := supervise.Meter{}
	for n := 1; n <= supervise.ParkAfter+3; n++ {
		d := supervise.Decide(crashed(3, 59*time.Second), m, minute, 0)
		m = d.Meter
		if parked := d.Action == supervise.Trial; parked != (n >= supervise.ParkAfter) {
			t.Fatalf("death %d: %s", n, d.Action)
		}
		if d.Action != supervise.Trial {
			continue
		}
		if want := fmt.Sprintf("%d deaths without a minute of readiness, the last: exit code 3", n); d.Reason != want || d.Delay != 30*minute {
			t.Errorf("death %d: %q, one trial after %s; want %q after 30 min", n, d.Reason, d.Delay, want)
		}
	}
}

// TestStormIsBounded runs services that always crash, on a clock of our own:
// after the third start there are at most ten in any sixty seconds, and the
// service is parked in the end, whatever luck the jitter has and however short
// the pauses were set.
func TestStormIsBounded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var starts []time.Duration // since the first
		began := time.Unix(1e9, 0)
		now := time.Duration(0)
		m := supervise.Meter{}
		most := time.Duration(rapid.IntRange(1, 60).Draw(rt, "backoffMax")) * time.Second
		for len(starts) < 60 {
			starts = append(starts, now)
			d := crashed(rapid.SampledFrom([]int{0, 1, 2, 75, 127}).Draw(rt, "code"), 0)
			if lived := rapid.Int64Range(0, int64(5*time.Second)).Draw(rt, "lived"); rapid.Bool().Draw(rt, "became ready") {
				d.ReadyFor = time.Duration(lived)
				now += d.ReadyFor
			}
			d.At, d.Lived = began.Add(now), d.ReadyFor
			decision := supervise.Decide(d, m, most, rapid.Float64Range(0, almost).Draw(rt, "jitter"))
			if decision.Action == supervise.Park {
				rt.Fatalf("parked for good by %+v", d)
			}
			now += decision.Delay
			m = decision.Meter
		}
		checkRate(rt, starts)
	})
}

// A clock that jumps back costs no more than the usual pause.
func TestClockSetBackDoesNotHoldAStart(t *testing.T) {
	m := supervise.Meter{Deaths: 12}
	for range supervise.RateStarts {
		m.Starts = append(m.Starts, time.Unix(2e9, 0))
	}
	d := crashed(1, 0)
	d.At = time.Unix(1e9, 0)
	if got := supervise.Decide(d, m, time.Second, almost); got.Delay > time.Second {
		t.Errorf("waits %s", got.Delay)
	}
	d.At = time.Unix(2e9, 0)
	if got := supervise.Decide(d, m, time.Second, almost); got.Delay != minute {
		t.Errorf("ten starts just now, and the next after %s", got.Delay)
	}
}

// Nor does it later, when the starts that lie ahead stand beside new ones.
func TestClockSetBackHoldsNoLaterStart(t *testing.T) {
	for _, back := range []time.Duration{5 * time.Second, minute, time.Hour, 24 * time.Hour, 20 * 365 * 24 * time.Hour} {
		m := supervise.Meter{Deaths: 3}
		at := time.Unix(2e9, 0)
		for n := range 60 {
			if n == 11 { // ten starts are known
				at = at.Add(-back)
			}
			d := supervise.Decide(supervise.Death{Code: 1, At: at}, m, time.Second, almost)
			m = d.Meter
			m.Deaths = min(m.Deaths, 10) // never parked
			if at = at.Add(d.Delay); d.Delay > supervise.RateWindow {
				t.Fatalf("set back by %s: after %d deaths it is dark for %s", back, n+1, d.Delay)
			}
		}
	}
}

// A run cannot have lived for less than no time, whatever the clocks say; it is
// one death, not a hundred.
func TestNegativeLifeIsOneDeath(t *testing.T) {
	d := supervise.Decide(supervise.Death{Code: 1, Lived: -24 * time.Hour, ReadyFor: -24 * time.Hour}, supervise.Meter{}, minute, 0)
	if d.Meter.Deaths != 1 || d.Action != supervise.RestartNow {
		t.Errorf("%d deaths, %s", d.Meter.Deaths, d.Action)
	}
}

func checkRate(rt *rapid.T, starts []time.Duration) {
	for first := 3; first < len(starts); first++ {
		within := 0
		for _, at := range starts[first:] {
			if at < starts[first]+minute {
				within++
			}
		}
		if within > 10 {
			rt.Fatalf("%d starts in the 60 s after start %d: %v", within, first+1, starts[first:first+within])
		}
	}
	if span := starts[50] - starts[20]; span < 30*supervise.TrialEvery {
		rt.Fatalf("30 trials of a parked service took %s", span)
	}
}

// Whatever happened before, each rule holds for itself.
func TestRulesHoldInAnyHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := supervise.Meter{}
		for n := range rapid.IntRange(1, 60).Draw(rt, "deaths") {
			d := supervise.Death{
				Code:     rapid.SampledFrom([]int{0, 1, 75, 78, 126}).Draw(rt, "code"),
				Signal:   syscall.Signal(rapid.SampledFrom([]int{0, 0, 9, 11}).Draw(rt, "signal")),
				ReadyFor: time.Duration(rapid.SampledFrom([]int{0, 1, 59, 60, 3600}).Draw(rt, "ready for")) * time.Second,
				Asked:    rapid.Bool().Draw(rt, "asked"),
			}
			got := supervise.Decide(d, m, minute, rapid.Float64Range(0, almost).Draw(rt, "jitter"))
			wrongConfig := d.Signal == 0 && d.Code == 78
			switch {
			case wrongConfig != (got.Action == supervise.Park):
				rt.Fatalf("death %d: %+v: %s", n, d, got.Action)
			case (d.Asked || wrongConfig) && got.Meter.Deaths != m.Deaths:
				rt.Fatalf("death %d: %+v counts: %d after %d", n, d, got.Meter.Deaths, m.Deaths)
			case !d.Asked && !wrongConfig && d.ReadyFor >= supervise.GoodRun && (got.Meter.Deaths != 0 || got.Action != supervise.RestartNow):
				rt.Fatalf("death %d: a good run left %d deaths and %s", n, got.Meter.Deaths, got.Action)
			case !d.Asked && !wrongConfig && d.ReadyFor < supervise.GoodRun && got.Meter.Deaths != m.Deaths+1:
				rt.Fatalf("death %d: %+v does not count", n, d)
			}
			m = got.Meter
		}
	})
}

func TestDescribe(t *testing.T) {
	for want, d := range map[string]supervise.Death{
		"killed by signal KILL": {Signal: syscall.SIGKILL},
		"killed by signal 34":   {Signal: 34},
		"killed by signal KILL while the container was out of memory": {Signal: syscall.SIGKILL, NoMemory: true},
		"killed by signal TERM":                    {Signal: syscall.SIGTERM, NoMemory: true},
		"exit code 78: the configuration is wrong": {Code: 78},
		"exit code 75: asked to be restarted":      {Code: 75},
		"exit code 0":                              {},
		"exit code 42":                             {Code: 42},
	} {
		if got := d.Describe(); got != want {
			t.Errorf("%+v: %q, want %q", d, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{"gateway-default": "default", "gateway-work": "work", "gateway-a-b": "a-b"} {
		if got, ok := supervise.ProfileOf(name); !ok || got != want || supervise.GatewayName(got) != name {
			t.Errorf("ProfileOf(%q) = %q, %v", name, got, ok)
		}
	}
	for _, name := range []string{"dashboard", "gateway-", "gateway", "gateway-UP", "gateway-../x", "agateway-x", ""} {
		if got, ok := supervise.ProfileOf(name); ok {
			t.Errorf("ProfileOf(%q) = %q, want none", name, got)
		}
	}
	if supervise.GatewayName("") != "gateway-default" {
		t.Error("no profile is not the default one")
	}
}

func TestSpecs(t *testing.T) {
	place := supervise.Place{Home: "/opt/data", RunDir: "/run", BootID: "b00", BackoffMax: minute, StopTimeout: time.Second}
	work := place.Gateway("work", []string{"-v"}, true)
	if got := strings.Join(work.Args, " "); got != "-p work gateway run --replace -v" {
		t.Errorf("gateway of work runs %q", got)
	}
	if work.Mark != "HERMES_SLOT=gateway-work@/run#b00" || work.LogDir != "/opt/data/logs/gateways/work" || !work.OwnsEnvironment || work.Prefix != "[work]" {
		t.Errorf("gateway of work: %+v", work)
	}
	if got := strings.Join(place.Gateway("default", nil, false).Args, " "); got != "gateway run --replace" {
		t.Errorf("the default gateway runs %q", got)
	}
	if d := place.Dashboard(); d.Name != "dashboard" || d.Profile != "" || d.OwnsEnvironment || strings.Join(d.Args, " ") != "dashboard" {
		t.Errorf("dashboard: %+v", d)
	}
	if s := place.Service("web", "/etc/services.d/web"); s.Kind != supervise.KindService || s.Source != "/etc/services.d/web" || s.LogDir != "" {
		t.Errorf("service: %+v", s)
	}
	other := supervise.Place{RunDir: "/run", BootID: "b01"}.Gateway("work", nil, false)
	if other.Mark == work.Mark {
		t.Error("two boots mark their processes alike")
	}
}

func TestStatesAreTheContracts(t *testing.T) {
	var words []string
	for _, e := range supervise.States() {
		words = append(words, string(e.State))
		if e.Meaning == "" {
			t.Errorf("%s has no meaning", e.State)
		}
	}
	if got := strings.Join(words, " "); got != "disabled down starting ready degraded draining backoff standby parked stopping" {
		t.Errorf("states: %s", got)
	}
}
