package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/buildinfo"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/gateway"
	"github.com/hermesgw/hermes/internal/lease"
	"github.com/hermesgw/hermes/internal/meter"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/sdnotify"
	"github.com/hermesgw/hermes/internal/secret"
	"github.com/hermesgw/hermes/internal/store"
	"github.com/hermesgw/hermes/internal/supervise"
)

const (
	// closeReserve is the part of the stop budget that is kept for closing what
	// the turns used (two servers say goodbye for at most 0.4 s each); a drain
	// may take the rest.
	closeReserve = time.Second
	// askTimeout bounds one question to a holder: a living one answers at once.
	askTimeout = 2 * time.Second
	// socketPatience is how long a control socket may stay taken after its
	// owner gave the lease back: it closes the one right before the other.
	socketPatience = 2 * time.Second
)

// GatewayOptions says how one gateway process runs.
type GatewayOptions struct {
	Profile profile.Profile
	RunDir  string
	// Supervised: a slot started this process, so it may wait in standby.
	Supervised bool
	// Replace asks the gateway of this profile in this run directory to hand
	// over.
	Replace bool
	// Config is that of the profile's home, flags merged in. Required. Reading
	// settings changes nothing, so it may come before the lease: a broken file
	// must park the slot, not wait in standby.
	Config *config.Config
	// StopTimeout is the whole stop budget. Default: the setting
	// HERMES_STOP_TIMEOUT.
	StopTimeout time.Duration
	// AssignPort returns the API's port where no setting gives one; it is called
	// with the lease held. Default: the setting's default.
	AssignPort func(context.Context) (int, error)
	// Services tells the state of every service, for /metrics. Default: nothing.
	Services supervise.Lister
	// Ready is called once, when the gateway serves. Default: nothing.
	Ready func()
	// ServiceManager is told when the gateway is ready, stops and lives. Default:
	// there is none.
	ServiceManager *sdnotify.Manager
	// MayDeadlock lets a request on the control socket deadlock the gateway, for
	// tests of the guard.
	MayDeadlock bool
	Log         *slog.Logger // default: discards
}

// DeadlockVar is the variable that allows Deadlock, with 1. No user needs it.
const DeadlockVar = "HERMES_TEST_DEADLOCK"

// RunGateway runs the gateway of one profile until ctx ends (nil, after a
// drain), another process asks it to leave (exit code 75), or it cannot go on.
// Everything it opened is closed in reverse order; the lease goes last.
func RunGateway(ctx context.Context, o GatewayOptions) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, w := range o.Config.Warnings {
		o.Log.Warn("look at this setting", "where", w) // ignored, or dangerous: w says which
	}
	if o.StopTimeout <= 0 {
		o.StopTimeout = time.Duration(o.Config.Int("HERMES_STOP_TIMEOUT")) * time.Second
	}
	ctx, asked := context.WithCancelCause(ctx)
	defer asked(nil)
	p := newGatewayProcess(o, asked)
	err := p.run(ctx)
	if err == nil && errors.Is(context.Cause(ctx), errAskedToLeave) {
		return exitcode.Silent(exitcode.Restart)
	}
	return err
}

// errAskedToLeave ends a process that another one replaces.
var errAskedToLeave = errors.New("another process asked this one to leave")

// gatewayProcess is one run of a gateway; it answers on the control socket from
// standby to the end.
type gatewayProcess struct {
	o       GatewayOptions
	leave   context.CancelCauseFunc
	started time.Time
	// cleanup and control belong to the goroutine of run; standby lends them
	// to one other and waits for it.
	cleanup []func()
	control *control.Listener // nil until it listens; the gateway's own from build on

	checking sync.Mutex // held for the time of a check of the database

	mu      sync.Mutex
	gateway *gateway.Gateway // nil until it is built
	model   string
	holder  *supervise.Holder // in standby
	since   time.Time         // of the state before the gateway is built
}

func newGatewayProcess(o GatewayOptions, leave context.CancelCauseFunc) *gatewayProcess {
	now := time.Now().UTC()
	return &gatewayProcess{o: o, leave: leave, started: now, since: now}
}

// run takes the parts in order and gives them back in reverse.
func (p *gatewayProcess) run(ctx context.Context) error {
	defer func() {
		for i := len(p.cleanup) - 1; i >= 0; i-- {
			p.cleanup[i]()
		}
	}()
	if err := os.MkdirAll(p.o.Profile.Home, 0o700); err != nil {
		return fmt.Errorf("cannot make the home of profile %q: %w", p.o.Profile.Name, err)
	}
	for _, step := range []func(context.Context) error{p.takeLease, p.openSocket, p.build, p.serve} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil // told to stop while starting: nothing to finish
			}
			return err
		}
	}
	return nil
}

func (p *gatewayProcess) onExit(f func()) { p.cleanup = append(p.cleanup, f) }

// build makes the store, the model and the engine, and takes the port.
func (p *gatewayProcess) build(ctx context.Context) error {
	home := p.o.Profile.Home
	db, err := store.Open(ctx, filepath.Join(home, store.FileName))
	if err != nil {
		return err
	}
	p.onExit(func() { p.warn("cannot close the database", db.Close()) })
	o, err := p.engine(db)
	if err != nil {
		return exitcode.With(exitcode.Config, err)
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	o.Host, o.Port, o.Key, o.MaxRequests = api.Host, api.Port, api.Key, api.Requests
	o.Changed = p.publish
	g, err := gateway.New(o)
	if err != nil {
		return err
	}
	if err := g.Listen(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gateway, p.model = g, o.Model.Name()
	return nil
}

// api is where the API listens, with the port and the key that had to be made.
func (p *gatewayProcess) api(ctx context.Context) (api config.APIServer, err error) {
	api = p.o.Config.API()
	if p.o.AssignPort != nil && p.o.Config.Source("api_server.port").Kind == config.FromDefault {
		if api.Port, err = p.o.AssignPort(ctx); err != nil {
			return api, err
		}
		p.o.Log.Info("API port assigned", "port", api.Port, "file", config.GeneratedPath(p.o.Profile.Home))
	}
	api.Key, err = p.apiKey(api)
	return api, err
}

// apiKey makes sure that an API beyond loopback has a key.
func (p *gatewayProcess) apiKey(api config.APIServer) (key secret.String, err error) {
	if api.Key.IsSet() || access.LoopbackBind(api.Host) {
		return api.Key, nil
	}
	key, created, err := config.EnsureAPIKey(p.o.Profile.Home)
	if err == nil && created {
		p.o.Log.Info("API key generated", "setting", "API_SERVER_KEY", "file", config.GeneratedPath(p.o.Profile.Home))
	}
	return key, err
}

// serve runs the engine until ctx ends, then drains it within the stop budget.
func (p *gatewayProcess) serve(ctx context.Context) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	broken := make(chan error, 1)
	go func() { broken <- p.gateway.Run(running) }()
	var telling sync.WaitGroup
	defer telling.Wait()
	telling.Go(func() { p.keepTelling(running) })
	telling.Go(func() { p.keepBeating(running) })
	defer stop()
	ready := p.gateway.Ready()
	var good <-chan time.Time
	for {
		select {
		case err := <-broken:
			return err
		case <-ready:
			ready = nil
			p.o.Log.Info("gateway ready", "profile", p.o.Profile.Name, "addr", p.gateway.Address(), "model", p.model)
			if p.o.Ready != nil {
				p.o.Ready()
			}
			p.tell(sdnotify.Ready, sdnotify.Status(statusText(p.Status())))
			good = time.After(supervise.GoodRun)
		case <-good:
			p.forgive()
		case <-ctx.Done():
			p.tell(sdnotify.Stopping, sdnotify.Status("draining"))
			p.drain(ctx)
			stop()
			return <-broken
		}
	}
}

// publish leaves a note of how the gateway is, for who need not ask.
func (p *gatewayProcess) publish(h gateway.Health) {
	p.warn("cannot leave a note beside the control socket", p.control.Publish(control.Note{
		State: h.State, Reason: h.Reason, Since: h.Since, Platforms: h.Platforms,
	}))
}

// keepBeating keeps the note believed for as long as the gateway can answer: to
// tell its status it needs every lock that a message does.
func (p *gatewayProcess) keepBeating(ctx context.Context) {
	every(ctx, control.Heartbeat, func() {
		p.Status()
		p.control.Beat()
	})
}

// forgive clears the crash meter on the volume: this run is a good one. Its own
// death would say so too, but a container that is killed leaves nobody to ask.
func (p *gatewayProcess) forgive() {
	if p.o.Supervised {
		p.warn("cannot clear the crash meter", meter.Clear(p.o.Profile.Home))
	}
}

func (p *gatewayProcess) drain(ctx context.Context) {
	budget := max(p.o.StopTimeout-closeReserve, p.o.StopTimeout/2)
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), budget)
	defer cancel()
	if err := p.gateway.Drain(limited); err != nil {
		p.o.Log.Warn("drain was cut short", "budget", budget, "error", err)
	}
}

// openSocket listens on the control socket, if standby has not done so yet.
func (p *gatewayProcess) openSocket(ctx context.Context) error {
	path := control.SocketPath(p.o.RunDir, p.o.Profile.Name)
	limited, cancel := context.WithTimeout(ctx, socketPatience)
	defer cancel()
	tick := time.NewTicker(lease.RetryEvery)
	defer tick.Stop()
	for {
		err := p.listenControl(ctx)
		if !errors.Is(err, control.ErrInUse) {
			return err
		}
		select {
		case <-tick.C:
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%w: %q; two data directories need two run directories: set HERMES_RUN_DIR", err, path)
		}
	}
}

// listenControl starts to serve the control socket; a second call does nothing.
func (p *gatewayProcess) listenControl(ctx context.Context) error {
	if p.control != nil {
		return nil
	}
	ln, err := control.Listen(control.SocketPath(p.o.RunDir, p.o.Profile.Name))
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		p.warn("cannot serve the control socket", control.Serve(serving, ln, p, http.HandlerFunc(p.serveAPI)))
	})
	p.onExit(func() { stop(); wg.Wait() })
	p.control = ln
	return nil
}

func (p *gatewayProcess) warn(what string, err error) {
	if err != nil {
		p.o.Log.Error(what, "error", err)
	}
}

// serveAPI is /v1/ and /admin/ on the control socket, from standby on.
func (p *gatewayProcess) serveAPI(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	g := p.gateway
	p.mu.Unlock()
	if g != nil {
		h := g.API()
		if strings.HasPrefix(r.URL.Path, "/admin/") {
			h = g.Admin()
		}
		h.ServeHTTP(w, r)
		return
	}
	s := p.Status()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, fmt.Sprintf(`{"error":{"message":%q,"type":"server_error","code":%q}}`+"\n",
		"the gateway is in state "+string(s.State)+" and does not serve yet", s.State))
}

// Status implements control.Handler.
func (p *gatewayProcess) Status() control.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := control.Status{
		Schema: control.Schema, Profile: p.o.Profile.Name, Home: p.o.Profile.Home, PID: os.Getpid(),
		State: supervise.Starting, Since: p.since, Started: p.started, Version: buildinfo.Get().Version,
		Supervised: p.o.Supervised, Model: p.model, Platforms: []supervise.Platform{},
	}
	switch {
	case p.gateway != nil:
		s.State, s.Reason, s.Since = p.gateway.State()
		s.Address, s.Platforms = p.gateway.Address(), p.gateway.Platforms()
	case p.holder != nil:
		s.State, s.Holder = supervise.Standby, p.holder
		s.Reason = fmt.Sprintf("profile %q is held by %s", p.o.Profile.Name, p.holder.Host)
	}
	return s
}

// Drain implements control.Handler.
func (p *gatewayProcess) Drain(req control.DrainRequest) error {
	p.o.Log.Info("asked to drain", "by", req.By, "reason", req.Reason)
	p.mu.Lock()
	g := p.gateway
	p.mu.Unlock()
	if g != nil {
		g.StartDraining("asked to by " + req.By)
	}
	p.leave(errAskedToLeave)
	return nil
}

// CheckDatabase implements control.Checker; one check at a time is enough.
func (p *gatewayProcess) CheckDatabase(ctx context.Context) ([]string, error) {
	p.mu.Lock()
	built := p.gateway != nil
	p.mu.Unlock()
	if !built {
		return nil, errors.New("the gateway has not opened its database")
	}
	p.checking.Lock()
	defer p.checking.Unlock()
	return store.Check(ctx, filepath.Join(p.o.Profile.Home, store.FileName), false)
}

// Deadlock implements control.Deadlocker.
func (p *gatewayProcess) Deadlock() error {
	if !p.o.MayDeadlock {
		return errors.New("the gateway deadlocks for tests only: start it with " + DeadlockVar + "=1")
	}
	p.mu.Lock()
	g := p.gateway
	p.mu.Unlock()
	if g == nil {
		return errors.New("the gateway is not built yet")
	}
	g.Deadlock()
	return nil
}

// Stacks implements control.Handler.
func (p *gatewayProcess) Stacks() []byte {
	const start, limit = 256 << 10, 32 << 20 // bytes; a stack has about one KiB
	for size := start; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size || size >= limit {
			return buf[:n]
		}
	}
}
