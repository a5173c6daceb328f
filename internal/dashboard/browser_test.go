package dashboard_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/hermesgw/hermes/internal/dashboard"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/testenv"
)

// browser opens a tab of a real Chromium. A script that fails, or anything the
// policy blocks, fails the test.
func browser(t *testing.T) context.Context {
	t.Helper()
	testenv.Need(t, "chromium")
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox) // the sandbox refuses root
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			t.Errorf("script failed: %s", e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError && e.Entry.Source == log.EntrySourceSecurity {
				t.Errorf("page logged: %s", e.Entry.Text)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

func run(t *testing.T, ctx context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// holds waits until a JavaScript condition does; while the page changes it may
// fail, too.
func holds(t *testing.T, ctx context.Context, condition string) {
	t.Helper()
	ask, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for {
		if ok, err := chromedp.Run(ask, chromedp.Evaluate[bool](condition)); ok && err == nil {
			return
		} else if ask.Err() != nil {
			body, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
			t.Fatalf("never held: %s: %v\nthe page says:\n%s", condition, err, body)
		}
		time.Sleep(20 * time.Millisecond) // between two looks at the condition
	}
}

// shot keeps a picture; `go test -artifacts` leaves it for people to look at.
func shot(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name+".png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
}

// look sets the theme, stills animations and sizes the window.
func look(scheme string, width, height int64) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}
		if _, err := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: features}); err != nil {
			return err
		}
		_, err := chromedp.EmulateViewport(width, height)(ctx, tab)
		return err
	})
}

func TestBrowserLogsInAndSeesAStateChange(t *testing.T) {
	ctx := browser(t)
	s := start(t, withLogin())
	login := func(password string) {
		run(t, ctx, chromedp.WaitVisible(chromedp.CSS("#password")), chromedp.SetValue(chromedp.CSS("#username"), "ada"), chromedp.SendKeys(chromedp.CSS("#password"), password+"\r"))
	}
	run(t, ctx, look("light", 1280, 720), chromedp.Navigate(s.url+"/"))
	holds(t, ctx, `location.pathname === "/login"`)
	login("wrong")
	holds(t, ctx, `document.querySelector("[role=alert]")?.textContent === "Wrong user name or password."`)
	shot(t, ctx, "login")
	login("correct horse")
	holds(t, ctx, `document.querySelector("[data-service=gateway-default] .badge")?.textContent === "ready"`)
	holds(t, ctx, `document.querySelector("#connection-text").textContent === "Live"`)
	holds(t, ctx, `document.querySelector("#headline").textContent === "Everything is serving"`)

	// A mark that a reload would lose.
	run(t, ctx, chromedp.Evaluate[chromedp.Void](`void (window.mark = "same page")`))
	s.lister.set(reportOf(gateway(supervise.Backoff, "died: killed by SIGKILL")), nil)
	holds(t, ctx, `document.querySelector("[data-service=gateway-default] .badge").textContent === "backoff"`)
	holds(t, ctx, `document.querySelector("#log .what").textContent === "ready → backoff: died: killed by SIGKILL"`)
	holds(t, ctx, `document.querySelector("#headline").textContent === "gateway-default is in backoff" && document.title.startsWith("(1)")`)
	shot(t, ctx, "changed")
	s.lister.set(reportOf(gateway(supervise.Ready, "")), nil)
	holds(t, ctx, `document.querySelector("[data-service=gateway-default] .badge").textContent === "ready" && window.mark === "same page"`)

	run(t, ctx, chromedp.Click(chromedp.CSS("header button")))
	holds(t, ctx, `location.pathname === "/login"`)
	run(t, ctx, chromedp.Navigate(s.url+"/"))
	holds(t, ctx, `location.pathname === "/login"`)
}

// What a service says about itself is text, whatever it looks like.
func TestBrowserShowsMarkupAsText(t *testing.T) {
	ctx := browser(t)
	s := start(t, dashboard.Options{})
	evil := `<img src=x onerror="window.evil=1"><script>window.evil=1</script>`
	s.lister.set(reportOf(gateway(supervise.Parked, evil)), nil)
	run(t, ctx, chromedp.Navigate(s.url+"/"))
	holds(t, ctx, `document.querySelector("td.state .sub")?.textContent === `+"`"+evil+"`")
	holds(t, ctx, `window.evil === undefined && document.querySelector("#rows img, #rows script") === null`)
}

func TestBrowserSaysThatTheConnectionIsLostAndComesBack(t *testing.T) {
	ctx := browser(t)
	s := start(t, dashboard.Options{})
	run(t, ctx, look("light", 1280, 720), chromedp.Navigate(s.url+"/"))
	holds(t, ctx, `document.querySelector("#connection-text").textContent === "Live"`)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	holds(t, ctx, `document.querySelector("#connection-text").textContent.startsWith("Connection lost, retrying")`)
	shot(t, ctx, "lost")
	run(t, ctx, look("light", 390, 700))
	holds(t, ctx, `document.documentElement.scrollWidth <= document.documentElement.clientWidth`)
	shot(t, ctx, "phone-lost")

	u, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	again := startOn(t, u.Port())
	again.lister.set(reportOf(gateway(supervise.Draining, "")), nil)
	holds(t, ctx, `document.querySelector("#connection-text").textContent === "Live"`)
	holds(t, ctx, `document.querySelector("[data-service=gateway-default] .badge").textContent === "draining"`)
}

// Every state at once, in every look: nothing overflows and every state has
// its word and its own shape.
func TestBrowserLooks(t *testing.T) {
	ctx := browser(t)
	s := start(t, dashboard.Options{})
	s.lister.set(everyState(), nil)
	for name, l := range map[string]struct {
		scheme        string
		width, height int64
	}{"light": {"light", 1280, 900}, "dark": {"dark", 1280, 900}, "phone-light": {"light", 390, 844}, "phone-dark": {"dark", 390, 844}, "tablet": {"light", 820, 1100}} {
		run(t, ctx, look(l.scheme, l.width, l.height), chromedp.Navigate(s.url+"/"))
		holds(t, ctx, `document.querySelectorAll(".badge").length === 10`)
		holds(t, ctx, `document.documentElement.scrollWidth <= document.documentElement.clientWidth`)
		holds(t, ctx, `[...document.querySelectorAll("tr[data-state]")].every(r => r.querySelector(".badge").textContent === r.dataset.state && r.querySelector(".badge use"))`)
		shot(t, ctx, name)
	}
	s.lister.set(reportOf(gateway(supervise.Ready, ""), dashboardService()), nil)
	run(t, ctx, look("light", 1280, 720), chromedp.Navigate(s.url+"/"))
	holds(t, ctx, `document.querySelectorAll(".badge").length === 2`)
	shot(t, ctx, "calm")
	s.lister.set(reportOf(), nil)
	holds(t, ctx, `document.querySelector(".nothing") !== null && document.querySelector("#log .what").textContent === "is gone"`)
}

func dashboardService() supervise.Service {
	return supervise.Service{Name: "dashboard", Kind: supervise.KindDashboard, State: supervise.Ready, Want: supervise.WantUp, Since: ptr(time.Now().UTC().Add(-26 * time.Hour)), PID: ptr(51), MemoryBytes: ptr(int64(14_500_000))}
}

func everyState() supervise.Report {
	now := time.Now().UTC()
	var list []supervise.Service
	for i, e := range supervise.States() {
		one := gateway(e.State, "")
		one.Name, one.Profile = "gateway-"+string(e.State), ptr(string(e.State))
		one.Since = ptr(now.Add(-time.Duration(i*i*i) * 7 * time.Minute))
		one.Restarts, one.RequestedRestarts = i, i%3
		switch e.State {
		case supervise.Disabled, supervise.Down:
			one.PID, one.MemoryBytes, one.Platforms, one.Want = nil, nil, nil, supervise.WantDown
		case supervise.Degraded:
			one.Platforms = append(one.Platforms, supervise.Platform{Name: "telegram", State: supervise.Degraded, Reason: "409: another poller uses this token", Since: now.Add(-6 * time.Minute)})
		case supervise.Backoff:
			one.PID, one.MemoryBytes, one.Platforms = nil, nil, nil
			one.Reason, one.Until = "died after 3 s of readiness", ptr(now.Add(12*time.Second))
			one.LastExit = &supervise.Exit{Signal: ptr("KILL"), Reason: "out of memory", At: now.Add(-4 * time.Second)}
		case supervise.Parked:
			one.PID, one.MemoryBytes, one.Platforms = nil, nil, nil
			one.Reason = "/opt/data/profiles/parked/config.yaml:3:9: api_server.port: expected a port from 0 to 65535, got \"eight\""
			one.LastExit = &supervise.Exit{Code: ptr(78), Reason: "configuration is wrong", At: now.Add(-3 * time.Hour)}
		case supervise.Standby:
			one.Holder = &supervise.Holder{Host: "node-b", PID: 7, Since: now.Add(-90 * time.Minute)}
		case supervise.Ready:
			one.LastExit = &supervise.Exit{Code: ptr(0), Asked: true, At: now.Add(-time.Hour)}
		case supervise.Starting, supervise.Draining, supervise.Stopping:
		}
		list = append(list, one)
	}
	return reportOf(list...)
}
