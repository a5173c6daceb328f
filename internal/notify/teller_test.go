package notify

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hermesgw/hermes/internal/supervise"
)

// life drives a teller through the life of services, by a clock of its own.
type life struct {
	teller   *Teller
	now      time.Time
	services map[string]*supervise.Service
	deaf     bool // nothing reaches the operator
	told     []string
}

func newLife() *life {
	return &life{
		teller: NewTeller("box", nil), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		services: map[string]*supervise.Service{},
	}
}

// is puts a service into a state, for which it has a reason.
func (l *life) is(name string, s supervise.State, reason string) *life {
	if l.services[name] == nil {
		l.services[name] = &supervise.Service{Name: name}
	}
	since := l.now
	l.services[name].State, l.services[name].Reason, l.services[name].Since = s, reason, &since
	return l
}

// dies counts a death of a service that is well again at once.
func (l *life) dies(name, reason string) *life {
	l.services[name].Restarts++
	l.services[name].LastExit = &supervise.Exit{Reason: reason}
	return l
}

// passes lets time pass, with a look every five seconds.
func (l *life) passes(d time.Duration) *life {
	for end := l.now.Add(d); l.now.Before(end); l.now = l.now.Add(lookEvery) {
		var all []supervise.Service
		for _, s := range l.services {
			all = append(all, *s)
		}
		l.teller.See(l.now, all)
		for {
			e, ok := l.teller.Next(l.now)
			if !ok {
				break
			}
			if !l.deaf {
				l.teller.Done(e)
			}
			from := "nothing"
			if e.From != nil {
				from = string(*e.From)
			}
			l.told = append(l.told, fmt.Sprintf("%s %s→%s %s", e.Service, from, e.To, e.Reason))
		}
	}
	return l
}

func (l *life) want(t *testing.T, lines ...string) {
	t.Helper()
	if got := strings.Join(l.told, "\n"); got != strings.Join(lines, "\n") {
		t.Errorf("told\n%s\nwant\n%s", got, strings.Join(lines, "\n"))
	}
	l.told = nil
}

const minute = time.Minute

// A crash loop of days is told of when it begins, once an hour, and at its end.
func TestFirstAndLastOnly(t *testing.T) {
	l := newLife().is("a", supervise.Ready, "").passes(minute)
	l.want(t)
	began := l.now
	for range 3 * 60 * 2 { // three hours of deaths, two a minute
		l.dies("a", "killed by signal KILL").is("a", supervise.Starting, "").passes(10*time.Second).
			is("a", supervise.Ready, "").passes(10*time.Second).
			is("a", supervise.Backoff, "killed by signal KILL").passes(10 * time.Second)
	}
	still := " still failing, since " + began.Format(time.RFC3339) + ": killed by signal KILL"
	if len(l.told) != 3 || l.told[0] != "a ready→starting killed by signal KILL" || !strings.HasSuffix(l.told[1], still) || !strings.HasSuffix(l.told[2], still) {
		t.Errorf("told %q", l.told)
	}
	l.told = nil
	l.is("a", supervise.Ready, "").passes(50 * time.Second)
	if len(l.told) > 1 { // a reminder may fall into it
		t.Errorf("recovered too soon: %q", l.told)
	}
	l.told = nil
	l.passes(5 * time.Hour)
	if len(l.told) != 1 || !strings.HasSuffix(l.told[0], "→ready recovered; it failed for 3h0m0s") {
		t.Errorf("told %q", l.told)
	}
}

// What each state means, and from which state it is news.
func TestWhatIsNews(t *testing.T) {
	degraded := func(l *life, platform string) *life {
		l.is("a", supervise.Degraded, "the disk is full")
		l.services["a"].Platforms = []supervise.Platform{{Name: platform, State: supervise.Degraded}}
		return l.passes(2 * minute)
	}
	for name, c := range map[string]struct {
		first, then supervise.State
		want        string
	}{
		"parked":            {supervise.Ready, supervise.Parked, "a ready→parked why"},
		"backoff":           {supervise.Ready, supervise.Backoff, "a ready→backoff why"},
		"stopped":           {supervise.Ready, supervise.Down, "a ready→down why"},
		"started":           {supervise.Down, supervise.Ready, "a down→ready why"},
		"a start that ends": {supervise.Ready, supervise.Starting, "a ready→starting why"},
		"took over":         {supervise.Standby, supervise.Ready, "a standby→ready why"},
		"draining":          {supervise.Ready, supervise.Draining, ""},
		"parked, stopped":   {supervise.Parked, supervise.Down, "a nothing→parked why\na parked→down why"},
		"down":              {supervise.Down, supervise.Disabled, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife().is("a", c.first, "why").passes(minute).is("a", c.then, "why").passes(2 * minute)
			if got := strings.Join(l.told, "\n"); got != c.want {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
	degraded(newLife().is("a", supervise.Ready, "").passes(minute), "telegram").want(t)
	degraded(newLife().is("a", supervise.Ready, "").passes(minute), supervise.OwnPlatform).want(t, "a ready→degraded the disk is full")
	newLife().is("a", supervise.Ready, "").passes(minute).is("a", supervise.Stopping, "").passes(10*time.Second).
		is("a", supervise.Starting, "").passes(10*time.Second).is("a", supervise.Ready, "").passes(minute).want(t) // a restart that was asked for
}

// A container that starts again and again tells the same once, and what it told
// last is what the next one goes on from.
func TestMemorySurvivesTheContainer(t *testing.T) {
	l := newLife().is("a", supervise.Parked, "no key").passes(10 * time.Second)
	l.want(t, "a nothing→parked no key")
	for range 100 {
		l.teller = NewTeller("box", l.teller.Memory())
		l.passes(20 * time.Second)
	}
	l.want(t)
	l.teller = NewTeller("box", l.teller.Memory())
	l.is("a", supervise.Ready, "").passes(2 * minute)
	if len(l.told) != 1 || !strings.HasPrefix(l.told[0], "a parked→ready recovered; it failed for ") {
		t.Errorf("told %q", l.told)
	}
	for _, garbage := range []string{"", "null", "[]", `{"a":null}`, `{"a":{"told":`, "\x00"} {
		l.teller, l.told = NewTeller("box", []byte(garbage)), nil
		l.is("a", supervise.Parked, "no key").passes(10 * time.Second)
		l.want(t, "a nothing→parked no key")
	}
}

// What did not reach the operator comes again.
func TestUndeliveredComesAgain(t *testing.T) {
	l := newLife().is("a", supervise.Ready, "").passes(minute)
	l.deaf = true
	l.is("a", supervise.Parked, "no key").passes(4 * time.Hour)
	if n := len(l.told); n < burst || n > burst+8 {
		t.Errorf("%d attempts in four hours", n)
	}
	l.deaf, l.told = false, nil
	l.passes(refill)
	l.want(t, "a ready→parked no key")
}

// Whatever services do, in whatever order: no more messages than the budget
// allows; never the same news twice in a row; and an hour after the last change
// the operator knows how it is.
func TestAnyLifeIsTold(t *testing.T) {
	states := []supervise.State{
		supervise.Ready, supervise.Backoff, supervise.Parked, supervise.Down, supervise.Starting,
		supervise.Draining, supervise.Standby, supervise.Stopping, supervise.Degraded,
	}
	rapid.Check(t, func(rt *rapid.T) {
		l := newLife()
		names := []string{"a", "b", "c"}
		began := l.now
		for range rapid.IntRange(1, 120).Draw(rt, "steps") {
			name := rapid.SampledFrom(names).Draw(rt, "name")
			l.is(name, rapid.SampledFrom(states).Draw(rt, "state"), "why")
			if rapid.Bool().Draw(rt, "dies") {
				l.dies(name, "died")
			}
			l.passes(time.Duration(rapid.IntRange(1, 200).Draw(rt, "seconds")) * time.Second)
		}
		allowed := float64(burst) + l.now.Sub(began).Seconds()/refill.Seconds()
		of := map[string]int{}
		for _, line := range l.told {
			name, _, _ := strings.Cut(line, " ")
			of[name]++
		}
		for name, n := range of {
			if float64(n) > allowed+1 {
				rt.Fatalf("%d messages of %s in %s", n, name, l.now.Sub(began))
			}
		}
		l.passes(65 * minute)
		for name, e := range l.teller.entries {
			if e.now.Opinion != e.Told.Opinion {
				rt.Fatalf("%s is %+v, and the operator knows %+v", name, e.now, e.Told)
			}
		}
	})
}

// Two hundred services that fail at once are no flood.
func TestFleetIsNoFlood(t *testing.T) {
	l := newLife()
	for i := range 200 {
		l.is(fmt.Sprintf("s%03d", i), supervise.Ready, "")
	}
	l.passes(minute)
	for i := range 200 {
		l.is(fmt.Sprintf("s%03d", i), supervise.Backoff, "no network")
	}
	l.passes(time.Second)
	if len(l.told) != allBurst {
		t.Errorf("%d messages at once", len(l.told))
	}
	l.passes(10 * minute)
	if len(l.told) > allBurst+10 {
		t.Errorf("%d messages in ten minutes", len(l.told))
	}
}

// A clock that jumps neither floods nor silences.
func TestClockJumps(t *testing.T) {
	l := newLife().is("a", supervise.Parked, "no key").passes(minute)
	l.want(t, "a nothing→parked no key")
	for _, jump := range []time.Duration{-100 * 24 * time.Hour, 200 * 24 * time.Hour} {
		l.now = l.now.Add(jump)
		l.passes(10 * minute)
		if len(l.told) > 1 {
			t.Errorf("after %s: told %q", jump, l.told)
		}
		l.told = nil
	}
	l.passes(2 * time.Hour)
	if n := len(l.told); n < 1 || n > 2 {
		t.Errorf("told %q", l.told)
	}
}
