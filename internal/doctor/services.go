package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/supervise"
)

const (
	// startingPatience is how long a service may take to start, as for the
	// health check.
	startingPatience = 60 * time.Second
	// maxNames bounds what one line lists.
	maxNames = 8
)

// run tells which run directory was found, and whose.
func (e *examiner) run() []Finding {
	const check = "run.directory"
	dir := string(e.Found.Dir)
	if e.Found.Refusal != "" {
		fix := "run doctor as root or as the user of the services"
		if m := e.Found.Mark; m != nil {
			fix = fmt.Sprintf("docker exec -u %d CONTAINER hermes doctor", m.UID)
		}
		return []Finding{problem(check, fix, "%s: %s", dir, e.Found.Refusal)}
	}
	switch e.Found.Tree {
	case runmode.TreeOurs:
		return []Finding{good(check, "%s, supervised by hermes's own s6 tree", dir)}
	case runmode.TreeOverlay:
		return []Finding{good(check, "%s, supervised by s6-overlay", dir)}
	case runmode.TreeForeign:
		return []Finding{good(check, "%s; an s6 that hermes did not set up was found and is left alone", dir)}
	}
	return []Finding{good(check, "%s; no supervisor here: gateways run in the foreground", dir)}
}

// services tells what is not as it is wanted; the rest shares a line.
func (e *examiner) services() []Finding {
	const check = "services.state"
	if e.ReportError != nil {
		return []Finding{problem(check, "hermes gateway status --all", "the state of the services cannot be told: %v", e.ReportError)}
	}
	var findings []Finding
	var well []string
	for _, s := range e.Report.Services {
		f, ok := e.service(s)
		switch {
		case ok && s.State != supervise.Disabled && s.State != supervise.Down:
			well = append(well, s.Name+" "+string(s.State))
		case !ok:
			f.Check, f.Profile = check, s.Profile
			findings = append(findings, f)
		}
	}
	switch {
	case len(well) > 0:
		findings = append([]Finding{good(check, "%s", listed(well))}, findings...)
	case len(findings) == 0:
		findings = []Finding{good(check, "nothing is running here")}
	}
	return findings
}

func listed(names []string) string {
	if len(names) > maxNames {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], ", "), len(names)-maxNames)
	}
	return strings.Join(names, ", ")
}

// service returns what is wrong with one; ok means nothing.
func (e *examiner) service(s supervise.Service) (f Finding, ok bool) {
	reason := strings.TrimSuffix(": "+s.Reason, ": ")
	switch s.State {
	case supervise.Parked:
		return problem("", e.restartWith(s, "once that is mended: "), "%s is parked%s%s", s.Name, reason, e.until(s, "; tried again")), false
	case supervise.Backoff:
		return problem("", e.logsOf(s), "%s died too soon%s%s", s.Name, reason, e.until(s, "; next start")), false
	case supervise.Degraded:
		return warning("", e.logsOf(s), "%s is degraded%s", s.Name, reason), false
	case supervise.Standby:
		holder := "another gateway"
		if s.Holder != nil {
			holder = fmt.Sprintf("%s since %s", s.Holder.Host, s.Holder.Since.UTC().Format(time.RFC3339))
		}
		return warning("", "nothing to do if that is meant; else stop one of the two", "%s stands by: its profile is held by %s", s.Name, holder), false
	case supervise.Starting:
		if s.Since != nil && e.began.Sub(*s.Since) >= startingPatience {
			return problem("", e.logsOf(s), "%s has been starting for %s%s", s.Name, e.began.Sub(*s.Since).Round(time.Second), reason), false
		}
	}
	return Finding{}, true
}

func (e *examiner) until(s supervise.Service, what string) string {
	if s.Until == nil {
		return ""
	}
	return fmt.Sprintf("%s in %s", what, max(s.Until.Sub(e.began), 0).Round(time.Second))
}

// restartWith is the command that starts a service anew.
func (e *examiner) restartWith(s supervise.Service, when string) string {
	if s.Profile == nil {
		return when + "start the container anew (docker restart CONTAINER)"
	}
	return when + command(*s.Profile, "gateway start")
}

func (e *examiner) logsOf(s supervise.Service) string {
	if s.Profile == nil {
		return "docker logs CONTAINER"
	}
	return command(*s.Profile, "gateway logs -n 50")
}
