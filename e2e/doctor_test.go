package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// finding is one row of `hermes doctor -o json`.
type finding struct {
	Check    string  `json:"check"`
	Profile  *string `json:"profile"`
	Severity string  `json:"severity"`
	What     string  `json:"what"`
	Fix      string  `json:"fix"`
	Fixed    bool    `json:"fixed"`
}

// findings are what doctor says, and whether it is healthy; the exit code must
// say the same.
func findings(t *testing.T, r result) ([]finding, bool) {
	t.Helper()
	var d struct {
		Schema   int       `json:"schema"`
		Healthy  bool      `json:"healthy"`
		Findings []finding `json:"findings"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil || d.Schema != 1 {
		t.Fatalf("doctor is not JSON of schema 1 (%v): %s", err, r.both())
	}
	if d.Healthy != (r.code == 0) || r.code > 1 {
		t.Errorf("healthy is %v and the exit code %d", d.Healthy, r.code)
	}
	return d.Findings, d.Healthy
}

// wantFinding returns the finding of a check with this severity and these words.
func wantFinding(t *testing.T, list []finding, check, severity string, words ...string) finding {
	t.Helper()
	for _, f := range list {
		if f.Check != check || f.Severity != severity {
			continue
		}
		for _, word := range words {
			if !strings.Contains(f.What+" -> "+f.Fix, word) {
				t.Errorf("%s says %q -> %q and not %q", check, f.What, f.Fix, word)
			}
		}
		return f
	}
	t.Errorf("no %s of %s among %+v", severity, check, list)
	return finding{}
}

func doctor(t *testing.T, c *container, args ...string) ([]finding, bool) {
	t.Helper()
	return findings(t, c.exec(append([]string{"hermes", "doctor", "-o", "json"}, args...)...))
}

// A parked slot, two profiles on one port and secrets for everybody: doctor
// names each with what mends it, and when that is done it is content.
func TestDoctorNamesWhatMendsIt(t *testing.T) {
	parallel(t)
	data := volume(t)
	prepare(t, data, `mkdir -p profiles/work && echo 'API_SERVER_PORT=8642' >profiles/work/.env && chmod 644 profiles/work/.env &&
		echo '{"want":"up","by":"cli"}' >profiles/work/intent.json && printf 'log:\n  level: loud\n' >profiles/work/config.yaml &&
		chown -R 10000:10000 .`)
	c := gateway(t, spec{flags: []string{"-v", data + ":/opt/data"}, env: []string{"HERMES_DASHBORD=1"}})
	c.waitState("gateway-work", "parked")

	list, healthy := doctor(t, c, "--all")
	if healthy {
		t.Error("it is content with a parked slot")
	}
	wantFinding(t, list, "run.directory", "ok", "/run")
	wantFinding(t, list, "services.state", "problem", "gateway-work is parked", "config.yaml:2:10: log.level", "hermes -p work gateway start")
	wantFinding(t, list, "settings.values", "problem", "profiles/work/config.yaml:2:10: log.level", "hermes -p work gateway start")
	wantFinding(t, list, "network.port", "problem", "both want port 8642", "API_SERVER_PORT")
	wantFinding(t, list, "credentials.file", "warning", "mode 0644", "chmod 600 /opt/data/profiles/work/.env")
	wantFinding(t, list, "settings.variables", "warning", "HERMES_DASHBORD", "HERMES_DASHBOARD?")
	wantFinding(t, list, "network.reach", "warning", "loopback", "-e API_SERVER_HOST=0.0.0.0")
	wantFinding(t, list, "database.integrity", "ok", "whole")
	wantFinding(t, list, "volume.locks", "ok", "two processes")

	c.mustExec("sh", "-c", `cd /opt/data/profiles/work && rm config.yaml && sed -i s/8642/8643/ .env`)
	c.mustExec("hermes", "-p", "work", "gateway", "start")
	list, healthy = doctor(t, c, "--all", "--fix")
	if !healthy {
		t.Errorf("after the fixes: %+v", list)
	}
	if f := wantFinding(t, list, "credentials.file", "ok"); !f.Fixed {
		t.Errorf("--fix left %+v", f)
	}
	if mode := c.mustExec("stat", "-c", "%a %u", "/opt/data/profiles/work/.env"); mode != "600 10000" {
		t.Errorf(".env is %s, want 600 10000", mode)
	}
	c.wantScraped("gateway-work")
}

// wantScraped fails unless the scrape of the main gateway says that a service is
// ready.
func (c *container) wantScraped(name string) {
	c.t.Helper()
	const scrape = `exec 3<>/dev/tcp/127.0.0.1/8642 && printf 'GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3 && cat <&3`
	page := c.mustExec("bash", "-c", scrape)
	for _, line := range []string{
		fmt.Sprintf(`hermes_service_state{service=%q,state="ready"} 1`, name),
		fmt.Sprintf(`hermes_service_state{service=%q,state="parked"} 0`, name),
		fmt.Sprintf(`hermes_service_restarts_total{asked="false",service=%q} `, name),
	} {
		if !strings.Contains(page, line) {
			c.t.Errorf("no line %s in\n%s", line, page)
		}
	}
}

// Without a gateway, beside a volume that nobody can use: doctor works, and
// says why.
func TestDoctorOnABrokenVolume(t *testing.T) {
	for _, tc := range []struct {
		name, prepare, mode string
		check               string
		words               []string
	}{
		{"read-only", "true", ":ro", "volume.writable", []string{"read-only", ":ro"}},
		{"of another user", "touch note && chown 4242:4242 . && chmod 700 .", "", "", nil},
		{"damaged", "printf 'no database, and long enough to be one: %0512d' 0 >hermes.db && chown 10000:10000 . hermes.db", "", "database.integrity", []string{"damaged", "backup"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			parallel(t)
			data := volume(t)
			prepare(t, data, tc.prepare)
			r := runToEnd(t, spec{flags: []string{"-v", data + ":/opt/data" + tc.mode}, cmd: []string{"doctor", "-o", "json"}})
			list, healthy := findings(t, r)
			if tc.check == "" { // the services become the volume's owner
				wantFinding(t, list, "volume.writable", "ok", "uid 4242")
				return
			}
			if healthy {
				t.Error("it is content")
			}
			wantFinding(t, list, tc.check, "problem", tc.words...)
		})
	}
}
