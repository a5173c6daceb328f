package dashboard

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hermesgw/hermes/internal/supervise"
)

func TestSessionsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		token := s.create()
		for range 6 { // used: goes on
			time.Sleep(idleExpiry - time.Second)
			if s.find(token) == nil {
				t.Fatal("a used session expired")
			}
		}
		one := s.find(token)
		time.Sleep(idleExpiry)
		if s.find(token) != nil || s.keep(one) {
			t.Error("an idle session goes on")
		}
		select {
		case <-one.ended:
		default:
			t.Error("nobody tells its streams")
		}

		token = s.create()
		one = s.find(token)
		for range int(maxSession / time.Hour) {
			time.Sleep(time.Hour)
			s.keep(one)
		}
		if s.find(token) != nil {
			t.Error("a session outlives the longest time there is")
		}
	})
}

func TestSessionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSessions()
		first := s.create()
		for range maxSessions {
			time.Sleep(time.Second)
			s.create()
		}
		if len(s.byToken) != maxSessions || s.find(first) != nil {
			t.Errorf("%d sessions; the oldest is there: %v", len(s.byToken), s.find(first) != nil)
		}
	})
}

func TestLimiter(t *testing.T) {
	l, now := newLimiter(), time.Now()
	for i := range burst {
		if wait := l.take("a", now); wait != 0 {
			t.Fatalf("attempt %d waits %v", i+1, wait)
		}
	}
	if wait := l.take("a", now); wait != refill {
		t.Errorf("wait %v after the burst, want %v", wait, refill)
	}
	if l.take("b", now) != 0 {
		t.Error("another address waits as well")
	}
	now = now.Add(refill)
	if l.take("a", now) != 0 || l.take("a", now) == 0 {
		t.Error("not exactly one attempt after one refill")
	}
	now = now.Add(time.Hour)
	for range burst * 3 { // right passwords cost nothing
		if l.take("a", now) != 0 {
			t.Fatal("a right password was counted")
		}
		l.giveBack("a", now)
	}
}

func TestLimiterIsBounded(t *testing.T) {
	l, now := newLimiter(), time.Now()
	for i := range maxAddresses + 100 {
		l.take(fmt.Sprint(i), now)
	}
	if len(l.spent) > maxAddresses {
		t.Errorf("%d addresses kept", len(l.spent))
	}
	if l.take("new", now) == 0 {
		t.Error("a flood of addresses opens the way for one more")
	}
	l.take("later", now.Add(time.Hour))
	if len(l.spent) != 1 {
		t.Errorf("%d addresses kept after an hour", len(l.spent))
	}
}

func TestRemote(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.1:80": "10.0.0.1", "[::ffff:10.0.0.1]:80": "10.0.0.1", "[2001:db8:1:2:3:4:5:6]:80": "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::]:1": "2001:db8:1:2::/64", "[fe80::1%eth0]:80": "fe80::/64", "@": "@",
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = address
		if got := remote(r); got != want {
			t.Errorf("remote(%s) = %s, want %s", address, got, want)
		}
	}
}

// The next watcher sees the present, not what the last one saw.
func TestWatcherForgets(t *testing.T) {
	w := newWatcher(nil, slog.New(slog.DiscardHandler))
	leave, _ := w.join()
	w.now = snapshot{version: 1, event: "services", data: []byte(supervise.Ready)}
	leave()
	if now, _ := w.current(); now.version != 0 {
		t.Errorf("left behind: %+v", now)
	}
}
