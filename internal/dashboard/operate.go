package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/supervise"
)

// maxCommands bounds the commands under way: each holds a connection and waits
// for its turn, for minutes at worst.
const maxCommands = 16

// Operator starts, stops and restarts gateways.
type Operator interface {
	// Operate does action to the gateway of a profile, in its turn, and blocks
	// until that is ready or down, or has failed: the error is one line that says
	// why, a supervise.ErrConflict where another command came between, and with
	// exitcode.NoSuch where the profile is gone. It bounds its own time. why is
	// for the record. Safe for concurrent use.
	Operate(ctx context.Context, action supervise.Command, profile, why string) error
}

// answer is what a command came to. Outcome is that of the action, or "failed".
type answer struct {
	Service string            `json:"service"`
	Action  supervise.Command `json:"action"`
	Outcome string            `json:"outcome"`
	Error   map[string]string `json:"error"`
}

// acts says whether this dashboard starts and stops anything: never without a
// login.
func (d *Dashboard) acts() bool { return d.needsLogin() && d.options.Operator != nil }

// operate starts, stops or restarts a gateway and answers when that is done or
// has failed.
func (d *Dashboard) operate(w http.ResponseWriter, r *http.Request) {
	s := sessionOf(r)
	switch {
	case s == nil: // there is no login
		refuse(w, http.StatusForbidden, "login_required",
			"without a login the dashboard only looks: set HERMES_DASHBOARD_USERNAME and HERMES_DASHBOARD_PASSWORD to start and stop gateways here")
		return
	case !genuine(w, r, s):
		return
	case !d.acts():
		refuse(w, http.StatusForbidden, "only_looks",
			"this dashboard only looks: it found no supervisor here that it may command; use hermes gateway start, stop and restart")
		return
	}
	action := supervise.Command(r.PathValue("action"))
	if action.Outcome() == "" {
		refuse(w, http.StatusBadRequest, "unknown_action", "there is start, stop and restart, not "+strconv.Quote(string(action)))
		return
	}
	service, ok := d.find(w, r)
	if !ok {
		return
	}
	select {
	case d.commands <- struct{}{}:
		defer func() { <-d.commands }()
	default:
		refuse(w, http.StatusServiceUnavailable, "too_many_commands", "too many commands are under way; wait until some are done")
		return
	}
	d.tell(w, service.Name, action, d.command(r, action, *service.Profile))
}

// find returns the gateway that r names; if there is none it says so.
func (d *Dashboard) find(w http.ResponseWriter, r *http.Request) (service supervise.Service, ok bool) {
	name := r.PathValue("name")
	report, err := list(r.Context(), d.options.Lister)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, "services_unknown", err.Error())
		return service, false
	}
	i := slices.IndexFunc(report.Services, func(s supervise.Service) bool { return s.Name == name })
	if i < 0 {
		refuse(w, http.StatusNotFound, "no_such_service", "there is no service "+strconv.Quote(name))
		return service, false
	}
	service = report.Services[i]
	if service.Kind != supervise.KindGateway || service.Profile == nil {
		refuse(w, http.StatusForbidden, "not_a_gateway", name+" is not a gateway: only those are started and stopped here")
		return service, false
	}
	return service, true
}

// command has the operator do action. A reader who leaves does not cut it
// short, the end of the dashboard does.
func (d *Dashboard) command(r *http.Request, action supervise.Command, profile string) error {
	from := r.RemoteAddr
	if host, _, err := net.SplitHostPort(from); err == nil {
		from = host
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.options.Operator.Operate(ctx, action, profile, "from "+from) }()
	var err error
	select {
	case err = <-done:
	case <-d.closing:
		cancel()
		err = <-done
	}
	log := d.options.Log.With("action", string(action), "profile", profile, "from", from)
	if err != nil {
		log.Warn("dashboard command failed", "error", err)
	} else {
		log.Info("dashboard command done")
	}
	return err
}

// tell answers with what a command came to.
func (d *Dashboard) tell(w http.ResponseWriter, service string, action supervise.Command, err error) {
	a, status := answer{Service: service, Action: action, Outcome: action.Outcome()}, http.StatusOK
	if err != nil {
		var code string
		status, code = failure(err)
		a.Outcome, a.Error = "failed", errorBody(status, code, err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a)
}

func failure(err error) (status int, code string) {
	switch {
	case errors.Is(err, supervise.ErrConflict):
		return http.StatusConflict, "conflict"
	case exitcode.Of(err) == exitcode.NoSuch:
		return http.StatusNotFound, "no_such_service"
	case errors.Is(err, supervise.ErrStopping):
		return http.StatusServiceUnavailable, "stopping"
	}
	return http.StatusInternalServerError, "failed"
}

// genuine says whether a form came from a page that this session was given; if
// not, it is refused.
func genuine(w http.ResponseWriter, r *http.Request, s *session) bool {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(formTimeout))
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	ok := same(r.PostFormValue(tokenField), s.csrf)
	_ = control.SetReadDeadline(time.Time{}) // what follows may take longer than a form
	if !ok {
		refuse(w, http.StatusForbidden, "stale_form", "this form was out of date; reload the page and try again")
	}
	return ok
}
