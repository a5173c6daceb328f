// Package hostunits makes gateways services of a host: systemd units, through a
// library that knows launchd and Windows as well. It writes and removes units
// and starts and stops them; it runs no gateway and decides nothing about
// restarts, which the unit leaves to systemd.
//
//	u := hostunits.Unit{Profile: "default", Home: home, Binary: "/usr/local/bin/hermes", StopTimeout: 9 * time.Second}
//	m, err := hostunits.Find(ctx, u)
//	err = m.Install()
package hostunits

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode"
)

// Unit is one gateway as a service of the host.
type Unit struct {
	Profile string
	Home    string // data directory, absolute
	Binary  string // absolute
	// RunAs is the user of a system service. A service of a user's own has none.
	RunAs string
	// StopTimeout is the stop budget of the gateway (HERMES_STOP_TIMEOUT).
	StopTimeout time.Duration
}

const (
	// watchdog is how long a gateway may be deaf: it says that it lives twice in
	// that time.
	watchdog = 30 * time.Second
	// restartAfter with no limit on the number of starts is at most twelve a
	// minute, and no gateway stays dark for ever.
	restartAfter = 5 * time.Second
	// startTimeout is for a database to be migrated, or a lock to be waited for.
	startTimeout = 5 * time.Minute
)

// Name is the name of the unit, without .service.
func (u Unit) Name() string {
	if u.Profile == "default" {
		return "hermes-gateway"
	}
	return "hermes-gateway-" + u.Profile
}

// RunDir is the run directory of a system service; a user's own has that of the
// user.
func (u Unit) RunDir() string { return filepath.Join("/run", u.Name()) }

// check refuses what cannot stand in a unit.
func (u Unit) check() error {
	for _, text := range []string{u.Home, u.Binary, u.RunAs} {
		if strings.ContainsFunc(text, unicode.IsControl) || strings.Contains(text, "{{") {
			return fmt.Errorf("cannot write a unit with %q in it: no control characters and no {{", text)
		}
	}
	if !filepath.IsAbs(u.Home) || !filepath.IsAbs(u.Binary) {
		return fmt.Errorf("cannot write a unit with relative paths (%q, %q)", u.Home, u.Binary)
	}
	return nil
}

// Text is the unit (systemd.service(5), systemd.exec(5)). Nothing secret is in
// it: settings and keys are read from the home.
func (u Unit) Text() string {
	arguments := []string{u.Binary}
	if u.Profile != "default" {
		arguments = append(arguments, "-p", u.Profile)
	}
	var command []string
	for _, a := range append(arguments, "gateway", "run") {
		command = append(command, quote(strings.ReplaceAll(a, "$", "$$")))
	}
	environment, service, target := quote("HERMES_HOME="+u.Home), "", "default.target"
	if u.RunAs != "" {
		environment += " " + quote("HERMES_RUN_DIR="+u.RunDir())
		service = fmt.Sprintf("User=%s\nRuntimeDirectory=%s\nRuntimeDirectoryMode=0711\n", u.RunAs, u.Name())
		target = "multi-user.target"
	}
	return fmt.Sprintf(`# Written by: hermes gateway install
[Unit]
Description=Hermes gateway, profile %s
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart=%s
Environment=%s
%sRestart=always
RestartSec=%d
RestartPreventExitStatus=78
TimeoutStartSec=%d
TimeoutStopSec=%d
WatchdogSec=%d
WatchdogSignal=SIGQUIT
KillMode=mixed
NoNewPrivileges=yes

[Install]
WantedBy=%s
`, u.Profile, strings.Join(command, " "), environment, service, seconds(restartAfter), seconds(startTimeout),
		seconds(u.StopTimeout)+1, seconds(watchdog), target)
}

func seconds(d time.Duration) int { return int(d.Round(time.Second) / time.Second) }

// quote writes one word of a unit: in double quotes, with % doubled
// (systemd.syntax(7), systemd.unit(5) on specifiers).
func quote(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(word) + `"`
}
