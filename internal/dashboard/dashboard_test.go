package dashboard_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/dashboard"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/secret"
	"github.com/hermesgw/hermes/internal/supervise"
)

// deadline bounds every wait; a healthy run needs a small part of it.
const deadline = 20 * time.Second

// services is a supervise.Lister that a test holds in its hand.
type services struct {
	mu     sync.Mutex
	report supervise.Report
	err    error
	asked  atomic.Int64
}

func (s *services) List(_ context.Context, all bool) (supervise.Report, error) {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !all {
		return supervise.Report{}, errors.New("asked for a part only")
	}
	return s.report, s.err
}

func (s *services) set(report supervise.Report, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report, s.err = report, err
}

func ptr[T any](v T) *T { return &v }

func gateway(state supervise.State, reason string) supervise.Service {
	return supervise.Service{
		Name: "gateway-default", Kind: supervise.KindGateway, Profile: ptr("default"), State: state, Want: supervise.WantUp,
		Since: ptr(time.Now().UTC().Add(-time.Hour)), PID: ptr(42), MemoryBytes: ptr(int64(20 << 20)), Reason: reason,
		Platforms: []supervise.Platform{{Name: "http", State: supervise.Ready, Since: time.Now().UTC()}},
	}
}

func reportOf(list ...supervise.Service) supervise.Report {
	return supervise.Report{Schema: supervise.SchemaVersion, Manager: "s6", Services: list}
}

// site is a running dashboard.
type site struct {
	url     string
	handler http.Handler
	lister  *services
	client  *http.Client
	log     strings.Builder // to be read after stop
	stop    func() error    // ends it and returns what Run returned
}

func start(t *testing.T, o dashboard.Options) *site {
	t.Helper()
	s := &site{lister: &services{}}
	s.lister.set(reportOf(gateway(supervise.Ready, "")), nil)
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	ready := make(chan struct{})
	o.Lister, o.Log, o.Ready = s.lister, slog.New(slog.NewTextHandler(&s.log, nil)), func() { close(ready) }
	d, err := dashboard.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.handler = d.Handler()
	addr, err := d.Listen()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr.String())
	s.url = "http://" + net.JoinHostPort("127.0.0.1", port)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	s.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = s.stop() })
	s.client = newClient(t)
	await(t, ready)
	return s
}

// startOn starts one on a port that was in use a moment ago.
func startOn(t *testing.T, port string) *site {
	t.Helper()
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, dashboard.Options{Port: n})
}

func newClient(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Jar: jar, Transport: transport, Timeout: deadline,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func await(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(deadline):
		t.Fatal("waited too long")
	}
}

func withLogin() dashboard.Options {
	return dashboard.Options{Username: "ada", Password: secret.New("correct horse")}
}

// do sends a request; edit may change it. The body is read and closed.
func (s *site) do(t *testing.T, method, path string, form url.Values, edit func(*http.Request)) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if edit != nil {
		edit(r)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func (s *site) get(t *testing.T, path string) (*http.Response, string) {
	t.Helper()
	return s.do(t, http.MethodGet, path, nil, nil)
}

// token reads the hidden field of a page's form.
func token(t *testing.T, page string) string {
	t.Helper()
	m := regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(page)
	if m == nil {
		t.Fatalf("no token in %s", page)
	}
	return m[1]
}

func (s *site) login(t *testing.T, username, password string) *http.Response {
	t.Helper()
	_, page := s.get(t, "/login")
	resp, _ := s.do(t, http.MethodPost, "/login", url.Values{"token": {token(t, page)}, "username": {username}, "password": {password}}, nil)
	return resp
}

func TestBeyondLoopbackNeedsBothCredentials(t *testing.T) {
	half := "set both"
	for name, tc := range map[string]struct {
		o    dashboard.Options
		want string // empty: allowed
	}{
		"every interface":          {dashboard.Options{Host: "0.0.0.0"}, `cannot open the dashboard on "0.0.0.0:9119"`},
		"every interface, empty":   {dashboard.Options{Host: ""}, `cannot open the dashboard on ":9119"`},
		"every interface, IPv6":    {dashboard.Options{Host: "::"}, `cannot open the dashboard on "[::]:9119"`},
		"a name":                   {dashboard.Options{Host: "gw.example"}, `cannot open the dashboard on "gw.example:9119"`},
		"user name only":           {dashboard.Options{Host: "0.0.0.0", Username: "ada"}, half},
		"password only":            {dashboard.Options{Host: "0.0.0.0", Password: secret.New("p")}, half},
		"half a login on loopback": {dashboard.Options{Host: "127.0.0.1", Username: "ada"}, half},
		"both":                     {dashboard.Options{Host: "0.0.0.0", Username: "ada", Password: secret.New("p")}, ""},
		"loopback":                 {dashboard.Options{Host: "127.0.0.1"}, ""},
		"loopback, IPv6":           {dashboard.Options{Host: "[::1]"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tc.o.Port, tc.o.Lister, tc.o.Log = 9119, &services{}, slog.New(slog.DiscardHandler)
			_, err := dashboard.New(tc.o)
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if exitcode.Of(err) != exitcode.Config {
				t.Fatalf("exit code %d of %v", exitcode.Of(err), err)
			}
			for _, want := range []string{tc.want, "HERMES_DASHBOARD_USERNAME", "HERMES_DASHBOARD_PASSWORD"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

func TestPortTakenNamesTheAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := dashboard.New(dashboard.Options{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Lister: &services{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	err = d.Run(t.Context())
	want := "cannot listen on " + l.Addr().String() + ": the port is in use; stop what uses it"
	if err == nil || !strings.HasPrefix(err.Error(), want) || exitcode.Of(err) != exitcode.Failed {
		t.Errorf("Run = %v, want %s", err, want)
	}
}

func TestOpenOnLoopback(t *testing.T) {
	s := start(t, dashboard.Options{})
	resp, page := s.get(t, "/")
	if resp.StatusCode != http.StatusOK || !strings.Contains(page, "no login is configured") || strings.Contains(page, "Log out") {
		t.Errorf("GET / = %s\n%s", resp.Status, page)
	}
	resp, body := s.get(t, "/api/services")
	var got supervise.Report
	if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET /api/services = %s: %v", resp.Status, err)
	}
	if want, _ := s.lister.List(t.Context(), true); !reflect.DeepEqual(roundTrip(t, want), got) {
		t.Errorf("report %+v, want %+v", got, want)
	}
	if resp, _ := s.get(t, "/login"); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/" {
		t.Errorf("GET /login without a login = %s", resp.Status)
	}
}

func roundTrip(t *testing.T, r supervise.Report) supervise.Report {
	t.Helper()
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var out supervise.Report
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestForeignHostsAndOriginsAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		edit          func(*http.Request)
		method, path  string
		login, passes bool
	}{
		"rebound name":              {edit: func(r *http.Request) { r.Host = "evil.example" }, path: "/api/services"},
		"rebound name, events":      {edit: func(r *http.Request) { r.Host = "evil.example" }, path: "/events"},
		"rebound name, page":        {edit: func(r *http.Request) { r.Host = "evil.example" }, path: "/"},
		"rebound name, script":      {edit: func(r *http.Request) { r.Host = "evil.example" }, path: "/app.js"},
		"foreign origin":            {edit: origin("https://evil.example"), path: "/api/services"},
		"foreign origin, events":    {edit: origin("https://evil.example"), path: "/events"},
		"null origin":               {edit: origin("null"), path: "/api/services"},
		"liveness from anywhere":    {edit: func(r *http.Request) { r.Host = "evil.example" }, path: "/livez", passes: true},
		"login: any name":           {edit: func(r *http.Request) { r.Host = "gw.example" }, path: "/login", login: true, passes: true},
		"login: foreign origin":     {edit: origin("https://evil.example"), path: "/login", method: http.MethodPost, login: true},
		"login: cross-site form":    {edit: func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, path: "/login", method: http.MethodPost, login: true},
		"logout: foreign origin":    {edit: origin("https://evil.example"), path: "/logout", method: http.MethodPost, login: true},
		"login: liveness, no login": {path: "/livez", login: true, passes: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := dashboard.Options{}
			if tc.login {
				o = withLogin()
			}
			s := start(t, o)
			if tc.method == "" {
				tc.method = http.MethodGet
			}
			resp, body := s.do(t, tc.method, tc.path, nil, tc.edit)
			if tc.passes != (resp.StatusCode == http.StatusOK) || !tc.passes && resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s %s = %s: %s", tc.method, tc.path, resp.Status, body)
			}
		})
	}
}

func origin(o string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Origin", o) }
}

func TestLogin(t *testing.T) {
	s := start(t, withLogin())
	for path, want := range map[string]int{"/": http.StatusSeeOther, "/api/services": http.StatusUnauthorized, "/events": http.StatusUnauthorized, "/livez": http.StatusOK, "/app.css": http.StatusOK} {
		if resp, body := s.get(t, path); resp.StatusCode != want || strings.Contains(body, "gateway-default") {
			t.Errorf("GET %s without a session = %s, want %d", path, resp.Status, want)
		}
	}
	for _, wrong := range [][2]string{{"ada", "wrong"}, {"eve", "correct horse"}, {"", ""}} {
		if resp := s.login(t, wrong[0], wrong[1]); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("login as %q = %s", wrong, resp.Status)
		}
	}
	resp := s.login(t, "ada", "correct horse")
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/" {
		t.Fatalf("login = %s", resp.Status)
	}
	session := checkCookie(t, resp, false)
	resp, page := s.get(t, "/")
	if resp.StatusCode != http.StatusOK || !strings.Contains(page, "Log out") {
		t.Fatalf("GET / with a session = %s", resp.Status)
	}
	if resp, _ := s.do(t, http.MethodPost, "/logout", url.Values{"token": {"forged"}}, nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("logout with a forged token = %s", resp.Status)
	}
	if resp, _ := s.do(t, http.MethodPost, "/logout", url.Values{"token": {token(t, page)}}, nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("logout = %s", resp.Status)
	}
	if resp, _ := s.get(t, "/api/services"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("after logout: %s", resp.Status)
	}
	stolen := func(r *http.Request) { r.AddCookie(session) }
	if resp, _ := s.do(t, http.MethodGet, "/api/services", nil, stolen); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("after logout, with the old cookie: %s", resp.Status)
	}
}

// checkCookie demands that scripts, other sites and URLs never see a session.
func checkCookie(t *testing.T, resp *http.Response, secure bool) *http.Cookie {
	t.Helper()
	for _, c := range resp.Cookies() {
		if c.Name != "hermes_session" {
			continue
		}
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure != secure || len(c.Value) < 40 {
			t.Errorf("session cookie %+v", c)
		}
		return c
	}
	t.Fatal("no session cookie")
	return nil
}

func TestCookieIsSecureBehindTLS(t *testing.T) {
	s := start(t, withLogin())
	_, page := s.get(t, "/login")
	form := url.Values{"token": {token(t, page)}, "username": {"ada"}, "password": {"correct horse"}}
	resp, _ := s.do(t, http.MethodPost, "/login", form, func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", "https") })
	checkCookie(t, resp, true)
}

func TestLoginFormsCannotBeForged(t *testing.T) {
	s := start(t, withLogin())
	right := url.Values{"username": {"ada"}, "password": {"correct horse"}}
	if resp, _ := s.do(t, http.MethodPost, "/login", right, nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("without a token: %s", resp.Status)
	}
	other := start(t, withLogin())
	_, page := other.get(t, "/login")
	right.Set("token", token(t, page))
	if resp, _ := s.do(t, http.MethodPost, "/login", right, nil); resp.StatusCode != http.StatusForbidden {
		t.Errorf("with a token of another form: %s", resp.Status)
	}
	huge := url.Values{"username": {strings.Repeat("a", 1<<20)}}
	if resp, _ := s.do(t, http.MethodPost, "/login", huge, nil); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a huge form: %s", resp.Status)
	}
}

// Every session that ever was is useless for the next browser.
func TestSessionsAreFreshAndCannotBeGuessed(t *testing.T) {
	s := start(t, withLogin())
	seen := map[string]bool{}
	for range 3 {
		s.client = newClient(t)
		for _, c := range s.login(t, "ada", "correct horse").Cookies() {
			if c.Name == "hermes_session" && seen[c.Value] {
				t.Error("a session was given twice")
			}
			seen[c.Value] = true
		}
	}
	for _, guess := range []string{"", "x", "hermes"} {
		s.client = newClient(t)
		resp, _ := s.do(t, http.MethodGet, "/api/services", nil, func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "hermes_session", Value: guess})
		})
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("cookie %q: %s", guess, resp.Status)
		}
	}
}

func TestFailedLoginsAreLimited(t *testing.T) {
	s := start(t, withLogin())
	for i := range 5 {
		if resp := s.login(t, "ada", "guess"); resp.StatusCode != http.StatusUnauthorized {
			t.Fatalf("guess %d: %s", i+1, resp.Status)
		}
	}
	resp := s.login(t, "ada", "correct horse")
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("after five wrong guesses: %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
}

func TestSuccessfulLoginsAreNotLimited(t *testing.T) {
	s := start(t, withLogin())
	for i := range 12 {
		s.client = newClient(t)
		if resp := s.login(t, "ada", "correct horse"); resp.StatusCode != http.StatusSeeOther {
			t.Fatalf("login %d: %s", i+1, resp.Status)
		}
	}
}

func TestEveryAnswerIsLockedDown(t *testing.T) {
	s := start(t, withLogin())
	for _, path := range []string{"/", "/login", "/app.js", "/app.css", "/icon.svg", "/api/services", "/events", "/nonexistent", "/livez"} {
		resp, body := s.get(t, path)
		h := resp.Header
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: %q is not in the policy %q", path, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || h.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: headers %v", path, h)
		}
		if inline := regexp.MustCompile(`(?i)<style|style=|<script[^>]*>[^<]|\son[a-z]+=`).FindString(body); strings.HasPrefix(h.Get("Content-Type"), "text/html") && inline != "" {
			t.Errorf("%s: inline %q, which the policy forbids", path, inline)
		}
	}
	for path, want := range map[string]string{"/app.js": "text/javascript; charset=utf-8", "/app.css": "text/css; charset=utf-8", "/icon.svg": "image/svg+xml"} {
		if resp, body := s.get(t, path); resp.Header.Get("Content-Type") != want || body == "" {
			t.Errorf("%s: %s, %d bytes", path, resp.Header.Get("Content-Type"), len(body))
		}
	}
}

// stream reads server-sent events.
type stream struct {
	t      *testing.T
	events chan [2]string // name, data
	closed chan struct{}
}

func (s *site) follow(t *testing.T) *stream {
	t.Helper()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/events", nil)
	client := *s.client
	client.Timeout = 0 // it would end the stream
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("GET /events = %s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	st := &stream{t: t, events: make(chan [2]string, 100), closed: make(chan struct{})}
	go func() {
		defer close(st.closed)
		defer resp.Body.Close()
		lines, name := bufio.NewScanner(resp.Body), ""
		for lines.Scan() {
			if v, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				name = v
			}
			if v, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				st.events <- [2]string{name, v}
			}
		}
	}()
	return st
}

// next returns the data of the next event called name; pings are passed over.
func (st *stream) next(name string) string {
	st.t.Helper()
	for {
		select {
		case e := <-st.events:
			if e[0] == name {
				return e[1]
			}
			if e[0] != "ping" {
				st.t.Fatalf("event %s: %s, want %s", e[0], e[1], name)
			}
		case <-time.After(deadline):
			st.t.Fatalf("no event %s", name)
		}
	}
}

func TestEventsFollowTheServices(t *testing.T) {
	s := start(t, dashboard.Options{})
	st := s.follow(t)
	st.next("ping")
	var first supervise.Report
	if err := json.Unmarshal([]byte(st.next("services")), &first); err != nil || first.Services[0].State != supervise.Ready || first.Schema != 1 {
		t.Fatalf("first report %+v, %v", first, err)
	}
	// The same again, but for a few bytes of memory: not worth a message.
	same := reportOf(first.Services...)
	same.Services[0].MemoryBytes = ptr(*same.Services[0].MemoryBytes + 10)
	s.lister.set(same, nil)
	polls := s.lister.asked.Load()
	until(t, func() bool { return s.lister.asked.Load() > polls+1 })
	s.lister.set(reportOf(gateway(supervise.Backoff, "killed by signal KILL")), nil)
	if got := st.next("services"); !strings.Contains(got, `"state":"backoff"`) {
		t.Errorf("after the change: %s", got)
	}
	s.lister.set(supervise.Report{}, errors.New("no live run directory"))
	if got := st.next("trouble"); got != `{"message":"no live run directory"}` {
		t.Errorf("trouble: %s", got)
	}
	if resp, body := s.get(t, "/api/services"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "no live run directory") {
		t.Errorf("GET /api/services = %s %s", resp.Status, body)
	}
	s.lister.set(reportOf(), nil)
	if got := st.next("services"); got != `{"schema":1,"manager":"s6","services":[]}` {
		t.Errorf("no services: %s", got)
	}
}

func until(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !condition(); {
		if time.Now().After(end) {
			t.Fatal("waited too long")
		}
		time.Sleep(10 * time.Millisecond) // between two looks at the condition
	}
}

func TestNobodyIsAskedWhileNobodyWatches(t *testing.T) {
	s := start(t, dashboard.Options{})
	if n := s.lister.asked.Load(); n != 0 {
		t.Errorf("asked %d times before anybody watched", n)
	}
	s.follow(t).next("services")
	if s.lister.asked.Load() == 0 {
		t.Error("not asked with a watcher")
	}
}

func TestStopEndsStreamsAtOnce(t *testing.T) {
	s := start(t, dashboard.Options{})
	st := s.follow(t)
	st.next("services")
	if err := s.stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	await(t, st.closed)
	if strings.Contains(s.log.String(), "cut") {
		t.Errorf("the stream did not end by itself: %s", s.log.String())
	}
}

func TestLogoutEndsStreams(t *testing.T) {
	s := start(t, withLogin())
	s.login(t, "ada", "correct horse")
	st := s.follow(t)
	st.next("services")
	_, page := s.get(t, "/")
	s.do(t, http.MethodPost, "/logout", url.Values{"token": {token(t, page)}}, nil)
	await(t, st.closed)
}

func TestStreamsAreBounded(t *testing.T) {
	s := start(t, dashboard.Options{})
	for range 64 {
		s.follow(t).next("ping")
	}
	if resp, _ := s.get(t, "/events"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("stream 65 = %s", resp.Status)
	}
	if resp, _ := s.get(t, "/livez"); resp.StatusCode != http.StatusOK {
		t.Errorf("liveness beside them = %s", resp.Status)
	}
}
