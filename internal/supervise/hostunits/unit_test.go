package hostunits_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/supervise/hostunits"
	"github.com/hermesgw/hermes/internal/testenv"
)

func unit() hostunits.Unit {
	return hostunits.Unit{Profile: "work", Home: "/srv/hermes data/100%", Binary: `/opt/a "b"/her$mes`, RunAs: "hermes", StopTimeout: 9 * time.Second}
}

func TestUnit(t *testing.T) {
	text := unit().Text()
	for _, want := range []string{
		"Description=Hermes gateway, profile work\n", "Type=notify\n", "User=hermes\n", "RestartPreventExitStatus=78\n",
		`ExecStart="/opt/a \"b\"/her$$mes" "-p" "work" "gateway" "run"` + "\n",
		`Environment="HERMES_HOME=/srv/hermes data/100%%" "HERMES_RUN_DIR=/run/hermes-gateway-work"` + "\n",
		"RuntimeDirectory=hermes-gateway-work\n", "TimeoutStopSec=10\n", "WatchdogSec=30\n", "WantedBy=multi-user.target\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the unit lacks %q:\n%s", want, text)
		}
	}
	own := unit()
	own.Profile, own.RunAs = "default", ""
	if text := own.Text(); own.Name() != "hermes-gateway" || strings.Contains(text, "User=") || strings.Contains(text, "RuntimeDirectory") ||
		strings.Contains(text, `"-p"`) || !strings.Contains(text, "WantedBy=default.target\n") {
		t.Errorf("a user's own:\n%s", text)
	}
}

// systemd itself reads it without a complaint.
func TestSystemdTakesTheUnit(t *testing.T) {
	testenv.Need(t, "systemd-analyze")
	u := unit()
	u.RunAs = "root"
	u.Binary = filepath.Join(t.TempDir(), "her mes")
	if err := os.WriteFile(u.Binary, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), u.Name()+".service")
	if err := os.WriteFile(path, []byte(u.Text()), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput()
	if err != nil || strings.Contains(string(out), filepath.Base(path)+":") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestUnitsThatCannotBe(t *testing.T) {
	for name, change := range map[string]func(*hostunits.Unit){
		"a line end":      func(u *hostunits.Unit) { u.Home = "/a\nUser=root" },
		"a template":      func(u *hostunits.Unit) { u.Home = "/a{{b" },
		"a relative path": func(u *hostunits.Unit) { u.Binary = "hermes" },
	} {
		u := unit()
		change(&u)
		if _, err := hostunits.Find(t.Context(), u); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
