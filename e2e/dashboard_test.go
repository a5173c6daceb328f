package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// visitor is a browser that has logged in to a dashboard.
type visitor struct {
	t      *testing.T
	client http.Client
	base   string
	token  string
}

var hiddenToken = regexp.MustCompile(`name="token" value="([^"]+)"`)

// visit logs in to the dashboard of c, which has the login of withDashboard.
func visit(t *testing.T, c *container) *visitor {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	address, _, _ := strings.Cut(mustDocker(t, "port", c.name, "9119"), "\n")
	v := &visitor{t: t, base: "http://" + address, client: http.Client{Jar: jar, Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}}
	code, page := v.send(http.MethodGet, "/login", nil)
	v.token = v.tokenOf(code, page)
	code, page = v.send(http.MethodPost, "/login", url.Values{"token": {v.token}, "username": {"admin"}, "password": {"correct horse"}})
	v.token = v.tokenOf(code, page)
	return v
}

func (v *visitor) tokenOf(code int, page string) string {
	v.t.Helper()
	m := hiddenToken.FindStringSubmatch(page)
	if code != http.StatusOK || m == nil {
		v.t.Fatalf("the dashboard answers %d and no token: %s", code, page)
	}
	return m[1]
}

// send sends a form and follows where it leads.
func (v *visitor) send(method, path string, form url.Values) (int, string) {
	v.t.Helper()
	req, err := http.NewRequest(method, v.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := v.client.Do(req)
	if err != nil {
		v.t.Errorf("%s %s: %v", method, path, err)
		return 0, ""
	}
	defer res.Body.Close()
	var body strings.Builder
	if _, err := io.Copy(&body, res.Body); err != nil {
		v.t.Errorf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, body.String()
}

// commanded is the answer to a command.
type commanded struct {
	code    int
	Outcome string
	Error   *struct{ Message string }
}

func (v *visitor) command(service, action string) commanded {
	v.t.Helper()
	code, body := v.send(http.MethodPost, "/api/services/"+service+"/"+action, url.Values{"token": {v.token}})
	got := commanded{code: code}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		v.t.Errorf("%s of %s: %d %q: %v", action, service, code, body, err)
	}
	return got
}

// mustCommand fails unless the command succeeds with outcome.
func (v *visitor) mustCommand(service, action, outcome string) {
	v.t.Helper()
	if got := v.command(service, action); got.code != http.StatusOK || got.Outcome != outcome || got.Error != nil {
		v.t.Errorf("%s of %s: %+v %+v, want %s", action, service, got, got.Error, outcome)
	}
}

func withDashboard(flags ...string) spec {
	return spec{
		flags: append(flags, "-p", "127.0.0.1::9119"),
		env: []string{
			"HERMES_DASHBOARD=1", "HERMES_DASHBOARD_HOST=0.0.0.0",
			"HERMES_DASHBOARD_USERNAME=admin", "HERMES_DASHBOARD_PASSWORD=correct horse",
		},
	}
}

// Who has logged in to the dashboard does what the command line does: in the
// slot's turn, waited for, noted as the wish and in the audit log.
func TestDashboardStartsAndStops(t *testing.T) {
	for name, flags := range map[string][]string{"root at first": nil, "another user": {"-u", "4711:0"}} {
		t.Run(name, func(t *testing.T) {
			parallel(t)
			c := gateway(t, withDashboard(flags...))
			c.waitState("dashboard", "ready")
			v := visit(t, c)

			v.mustCommand("gateway-default", "stop", "down")
			c.wantService("gateway-default", "down", "down")
			if wish := c.mustExec("cat", "/opt/data/intent.json"); !strings.Contains(wish, `"want":"down","by":"dashboard"`) {
				t.Errorf("after a stop the intent is %s", wish)
			}
			v.mustCommand("gateway-default", "start", "ready")
			c.wantService("gateway-default", "ready", "up")
			if got := v.command("dashboard", "restart"); got.code != http.StatusForbidden {
				t.Errorf("the dashboard restarts itself: %+v", got)
			}

			// Two at once: one after the other, and both are told the truth.
			before := c.only("hermes", "gateway", "run")
			cli := make(chan result, 1)
			go func() { cli <- c.exec("hermes", "gateway", "restart") }()
			v.mustCommand("gateway-default", "restart", "ready again")
			if r := <-cli; r.code != 0 || !strings.Contains(r.stdout, "gateway-default: ready again") {
				t.Errorf("the command line's restart beside it exits %d: %s", r.code, r.both())
			}
			row := c.waitState("gateway-default", "ready")
			if after := c.only("hermes", "gateway", "run"); after.pid == before.pid || row.Restarts != 0 {
				t.Errorf("after two restarts pid %d is %d, and the row is %s", before.pid, after.pid, row)
			}

			// One that cannot get ready says why.
			c.mustExec("sh", "-c", `echo 'log: {format: loud}' >/opt/data/config.yaml`)
			if got := v.command("gateway-default", "restart"); got.code != http.StatusInternalServerError || got.Outcome != "failed" ||
				got.Error == nil || !strings.Contains(got.Error.Message, "gateway-default is parked: ") {
				t.Errorf("a restart into a wrong configuration: %+v %+v", got, got.Error)
			}

			log := c.mustExec("cat", "/opt/data/logs/audit.log")
			for _, want := range []string{"ask=stop by=dashboard", "ask=start by=dashboard", "ask=restart by=dashboard", "ask=restart by=cli"} {
				if !strings.Contains(log, "slot=gateway-default "+want+" ") {
					t.Errorf("no %q in the audit log:\n%s", want, log)
				}
			}
			if !regexp.MustCompile(`ask=stop by=dashboard uid=\d+ pid=\d+ signal=TERM why="from [0-9a-f.:]+"`).MatchString(log) {
				t.Errorf("the audit log does not say from where:\n%s", log)
			}
		})
	}
}

// As a guest of s6-overlay, whose supervisors are root, a dashboard that runs as
// the service user has nobody to command: it looks, and says so.
func TestDashboardOfAGuestOnlyLooks(t *testing.T) {
	parallel(t)
	s := withDashboard("--entrypoint", "sh")
	s.cmd = []string{"-c", "mkdir -p /run/s6/basedir; " + svscan + "hermes gateway run & wait"}
	c := start(t, s)
	c.waitState("gateway-default", "ready")
	mustDocker(t, "exec", "-d", "-u", "10000:10000", c.name, "hermes", "dashboard")
	until(t, "the dashboard serves", func() error {
		_, err := c.ask(9119, request{method: "GET", path: "/livez"})
		return err
	})
	v := visit(t, c)
	if _, page := v.send(http.MethodGet, "/", nil); strings.Contains(page, `id="commands"`) {
		t.Error("the page offers what it cannot do")
	}
	got := v.command("gateway-default", "stop")
	if got.code != http.StatusForbidden || got.Error == nil || !strings.Contains(got.Error.Message, "this dashboard only looks") {
		t.Errorf("a stop: %+v %+v", got, got.Error)
	}
	c.wantService("gateway-default", "ready", "up")
}
