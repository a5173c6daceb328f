package dashboard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/hermesgw/hermes/internal/dashboard"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/supervise"
)

// order is one command that reached the operator; its answer is awaited.
type order struct {
	action  supervise.Command
	profile string
	why     string
	ctx     context.Context
	answer  chan error
}

// operator is a dashboard.Operator that a test holds in its hand.
type operator struct{ orders chan order }

func newOperator() *operator { return &operator{orders: make(chan order, 100)} }

func (o *operator) Operate(ctx context.Context, action supervise.Command, profile, why string) error {
	one := order{action, profile, why, ctx, make(chan error, 1)}
	o.orders <- one
	select {
	case err := <-one.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// next waits for an order.
func (o *operator) next(t *testing.T) order {
	t.Helper()
	var one order
	got := make(chan struct{})
	go func() { one = <-o.orders; close(got) }()
	await(t, got)
	return one
}

// answers gives every order the same answer.
func (o *operator) answers(t *testing.T, err error) {
	t.Helper()
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case one := <-o.orders:
				one.answer <- err
			case <-done:
				return
			}
		}
	}()
}

// nobody is a dashboard.Operator that must not be asked.
type nobody struct{ t *testing.T }

func (n nobody) Operate(_ context.Context, action supervise.Command, profile, _ string) error {
	n.t.Errorf("the operator was asked to %s %s", action, profile)
	return nil
}

// outcome is the answer to a command.
type outcome struct {
	Service, Action, Outcome string
	Error                    *struct{ Message, Code, Type string }
}

func (s *site) command(t *testing.T, path, token string, edit func(*http.Request)) (int, outcome) {
	t.Helper()
	resp, body := s.do(t, http.MethodPost, path, url.Values{"token": {token}}, edit)
	var got outcome
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("POST %s = %s %q: %v", path, resp.Status, body, err)
	}
	return resp.StatusCode, got
}

// loggedIn starts a dashboard that acts, logs in, and returns the token of its page.
func loggedIn(t *testing.T, op dashboard.Operator) (s *site, page string) {
	t.Helper()
	o := withLogin()
	o.Operator = op
	s = start(t, o)
	s.lister.set(reportOf(gateway(supervise.Ready, ""), dashboardService(),
		supervise.Service{Name: "guard", Kind: supervise.KindGuard}, supervise.Service{Name: "mine", Kind: supervise.KindService, Profile: ptr("default")}), nil)
	s.login(t, "ada", "correct horse")
	_, page = s.get(t, "/")
	return s, page
}

func TestCommandsReachTheOperator(t *testing.T) {
	op := newOperator()
	s, page := loggedIn(t, op)
	for action, want := range map[supervise.Command]string{"start": "ready", "stop": "down", "restart": "ready again"} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			one := <-op.orders
			if one.action != action || one.profile != "default" || one.why != "from 127.0.0.1" {
				t.Errorf("the operator was told %+v", one)
			}
			one.answer <- nil
		}()
		code, got := s.command(t, "/api/services/gateway-default/"+string(action), token(t, page), nil)
		await(t, done)
		if code != http.StatusOK || got != (outcome{"gateway-default", string(action), want, nil}) {
			t.Errorf("%s = %d %+v", action, code, got)
		}
	}
}

// Each failure has its status, and the operator's own line.
func TestCommandsThatFail(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want int
		code string
	}{
		"did not get ready": {exitcode.With(exitcode.Failed, errors.New("gateway-default is parked: no port")), http.StatusInternalServerError, "failed"},
		"another command":   {fmt.Errorf("stop by cli is at work: %w", supervise.ErrConflict), http.StatusConflict, "conflict"},
		"profile is gone":   {exitcode.With(exitcode.NoSuch, errors.New("no profile")), http.StatusNotFound, "no_such_service"},
		"container stops":   {fmt.Errorf("cannot start: %w", supervise.ErrStopping), http.StatusServiceUnavailable, "stopping"},
	} {
		t.Run(name, func(t *testing.T) {
			op := newOperator()
			s, page := loggedIn(t, op)
			op.answers(t, tc.err)
			code, got := s.command(t, "/api/services/gateway-default/start", token(t, page), nil)
			if code != tc.want || got.Outcome != "failed" || got.Error == nil || got.Error.Code != tc.code || got.Error.Message != tc.err.Error() {
				t.Errorf("start = %d %+v %+v", code, got, got.Error)
			}
		})
	}
}

// Without a login nobody acts, whoever asks and however.
func TestWithoutALoginItOnlyLooks(t *testing.T) {
	s := start(t, dashboard.Options{Operator: nobody{t}})
	_, page := s.get(t, "/")
	if strings.Contains(page, `id="commands"`) || strings.Contains(page, `name="token"`) {
		t.Errorf("the page has commands or a token:\n%s", page)
	}
	for _, edit := range []func(*http.Request){nil, func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "hermes_session"}) }} {
		code, got := s.command(t, "/api/services/gateway-default/stop", "", edit)
		if code != http.StatusForbidden || got.Error == nil || !strings.Contains(got.Error.Message, "HERMES_DASHBOARD_USERNAME and HERMES_DASHBOARD_PASSWORD") {
			t.Errorf("stop without a login = %d %+v", code, got.Error)
		}
	}
}

func TestWithoutAnOperatorItOnlyLooks(t *testing.T) {
	s, page := loggedIn(t, nil)
	if strings.Contains(page, `id="commands"`) {
		t.Error("the page has commands")
	}
	if code, got := s.command(t, "/api/services/gateway-default/stop", token(t, page), nil); code != http.StatusForbidden || got.Error.Code != "only_looks" {
		t.Errorf("stop = %d %+v", code, got.Error)
	}
}

func TestCommandsThatAreRefused(t *testing.T) {
	s, page := loggedIn(t, nobody{t})
	right := token(t, page)
	const stop = "/api/services/gateway-default/stop"
	for name, tc := range map[string]struct {
		path, token string
		edit        func(*http.Request)
		want        int
		code        string
	}{
		"no token":       {stop, "", nil, http.StatusForbidden, "stale_form"},
		"a wrong token":  {stop, "x" + right, nil, http.StatusForbidden, "stale_form"},
		"token in a URL": {stop + "?token=" + right, "", nil, http.StatusForbidden, "stale_form"},
		"foreign origin": {stop, right, origin("https://evil.example"), http.StatusForbidden, "foreign_origin"},
		"cross-site":     {stop, right, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, http.StatusForbidden, "foreign_origin"},
		"no session":     {stop, right, func(r *http.Request) { r.Header.Del("Cookie") }, http.StatusUnauthorized, "login_required"},
		"unknown":        {"/api/services/gateway-nobody/stop", right, nil, http.StatusNotFound, "no_such_service"},
		"traversal":      {"/api/services/..%2F..%2Fgateway-default/stop", right, nil, http.StatusNotFound, "no_such_service"},
		"unknown action": {"/api/services/gateway-default/kill", right, nil, http.StatusBadRequest, "unknown_action"},
		"dashboard":      {"/api/services/dashboard/restart", right, nil, http.StatusForbidden, "not_a_gateway"},
		"guard":          {"/api/services/guard/stop", right, nil, http.StatusForbidden, "not_a_gateway"},
		"a user's own":   {"/api/services/mine/stop", right, nil, http.StatusForbidden, "not_a_gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			from := *s
			if name == "no session" {
				from.client = newClient(t)
			}
			code, got := from.command(t, tc.path, tc.token, tc.edit)
			if code != tc.want || got.Error == nil || got.Error.Code != tc.code {
				t.Errorf("POST %s = %d %+v", tc.path, code, got.Error)
			}
		})
	}
	if resp, _ := s.get(t, stop); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET = %s", resp.Status)
	}
}

// A tab that is closed does not cut a command short; the dashboard's end does.
func TestCommandOutlivesItsReader(t *testing.T) {
	op := newOperator()
	s, page := loggedIn(t, op)
	ctx, leave := context.WithCancel(t.Context())
	form := url.Values{"token": {token(t, page)}}
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, s.url+"/api/services/gateway-default/stop", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for _, c := range s.client.Jar.Cookies(r.URL) {
		r.AddCookie(c)
	}
	answered := make(chan struct{})
	go func() { s.handler.ServeHTTP(httptest.NewRecorder(), r); close(answered) }()
	one := op.next(t)
	leave()
	if err := one.ctx.Err(); err != nil {
		t.Errorf("the command was cut: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	await(t, one.ctx.Done())
	await(t, answered)
}

func TestCommandsAreBounded(t *testing.T) {
	op := newOperator()
	s, page := loggedIn(t, op)
	right := token(t, page)
	codes := make(chan int, 16)
	for range 16 {
		go func() {
			code, _ := s.command(t, "/api/services/gateway-default/start", right, nil)
			codes <- code
		}()
	}
	var open []order
	for range 16 {
		open = append(open, op.next(t))
	}
	if code, got := s.command(t, "/api/services/gateway-default/stop", right, nil); code != http.StatusServiceUnavailable || got.Error.Code != "too_many_commands" {
		t.Errorf("command 17 = %d %+v", code, got.Error)
	}
	for _, one := range open {
		one.answer <- nil
	}
	for range open {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("one of 16 = %d", code)
		}
	}
}

func TestBrowserStopsAndStarts(t *testing.T) {
	ctx := browser(t)
	op := newOperator()
	o := withLogin()
	o.Operator = op
	s := start(t, o)
	s.lister.set(reportOf(gateway(supervise.Ready, ""), dashboardService()), nil)
	run(t, ctx, look("light", 1280, 720), chromedp.Navigate(s.url+"/login"), chromedp.WaitVisible(chromedp.CSS("#password")),
		chromedp.SetValue(chromedp.CSS("#username"), "ada"), chromedp.SendKeys(chromedp.CSS("#password"), "correct horse\r"))
	const row = `[data-service=gateway-default]`
	offers := func(want string) {
		t.Helper()
		holds(t, ctx, `[...document.querySelectorAll("`+row+` button")].map(b => b.textContent).join() === "`+want+`"`)
	}
	says := func(want string) {
		t.Helper()
		holds(t, ctx, `document.querySelector("#outcome[aria-live]").textContent === "`+want+`"`)
	}
	offers("Restart,Stop")
	holds(t, ctx, `document.querySelector("[data-service=dashboard] button") === null`)
	shot(t, ctx, "commands")

	run(t, ctx, chromedp.Click(chromedp.CSS(row+` [data-command=stop]`)))
	one := op.next(t)
	says("gateway-default: stop is under way…")
	holds(t, ctx, `[...document.querySelectorAll("`+row+` button")].every(b => b.getAttribute("aria-disabled") === "true")`)
	shot(t, ctx, "under-way")
	// A second click while one is under way is none.
	run(t, ctx, chromedp.Click(chromedp.CSS(row+` [data-command=restart]`)))
	down := gateway(supervise.Down, "")
	down.Want, down.PID, down.MemoryBytes, down.Platforms = supervise.WantDown, nil, nil, nil
	s.lister.set(reportOf(down, dashboardService()), nil)
	one.answer <- nil
	says("gateway-default: down")
	if one.action != supervise.CommandStop {
		t.Errorf("the operator was told to %s", one.action)
	}
	offers("Start")
	shot(t, ctx, "stopped")

	// By keyboard, and it fails.
	run(t, ctx, chromedp.Focus(chromedp.CSS(row+` [data-command=start]`)), chromedp.SendKeys(chromedp.CSS(row+` [data-command=start]`), "\r"))
	one = op.next(t)
	if one.action != supervise.CommandStart {
		t.Errorf("the operator was told to %s", one.action)
	}
	one.answer <- errors.New("gateway-default is parked: <b>no port</b>; see: hermes gateway logs")
	says("gateway-default: failed: gateway-default is parked: <b>no port</b>; see: hermes gateway logs")
	holds(t, ctx, `document.activeElement.dataset.command === "start" && document.activeElement.getAttribute("aria-disabled") === "false"`)
	shot(t, ctx, "failed")
	if len(op.orders) != 0 {
		t.Errorf("%d commands that nobody gave", len(op.orders))
	}
	s.lister.set(everyState(), nil)
	for _, width := range []int64{1280, 1024, 390} {
		run(t, ctx, look("dark", width, 900))
		holds(t, ctx, `document.querySelectorAll(".badge").length === 10`)
		holds(t, ctx, `document.documentElement.scrollWidth <= document.documentElement.clientWidth`)
		holds(t, ctx, `[...document.querySelectorAll("td.commands button")].every(b => b.getBoundingClientRect().right < innerWidth)`)
		shot(t, ctx, fmt.Sprintf("commands-%d", width))
	}
}
