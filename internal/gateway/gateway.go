// Package gateway is the engine of `hermes gateway run`: the HTTP API in the
// shape of OpenAI's, conversations that go on from request to request, and the
// states starting, ready, degraded and draining.
//
// It knows neither which model answers nor where conversations are kept, holds
// no lease and registers with no supervisor; app joins those.
//
// A message that was accepted is answered and stored, also when the client has
// gone; turns of one session run one after the other in the order they came,
// sessions run side by side.
//
//	g, err := gateway.New(gateway.Options{Profile: "default", Model: m, Store: s, Host: "127.0.0.1", Port: 8642, Log: log})
//	err = g.Listen()
//	go func() { <-term; g.Drain(deadline); stop() }()
//	err = g.Run(ctx)
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/secret"
	"github.com/hermesgw/hermes/internal/supervise"
)

const (
	// headerTimeout bounds a client that connects and says nothing.
	headerTimeout = 10 * time.Second
	// idleTimeout is how long an unused connection is kept for the next request.
	idleTimeout = 2 * time.Minute
	// maxHeader is ample for a key, an id and what proxies add.
	maxHeader = 64 << 10
	// goodbye is what answers that are still being written get at the very end.
	goodbye = 400 * time.Millisecond
)

// Store keeps conversations. Its methods block for the disk and are safe for
// concurrent use.
type Store interface {
	// History returns what was said, oldest first; nothing for a new session.
	History(ctx context.Context, session string) ([]chat.Message, error)
	// Append adds messages, all or none; they are on disk when it returns nil.
	Append(ctx context.Context, session string, messages []chat.Message) error
	// Writable makes a small real write.
	Writable(ctx context.Context) error
}

// Options says what a gateway is made of.
type Options struct {
	Profile string
	Model   chat.Model
	Store   Store

	// Host and Port are where the HTTP API listens; port 0 takes any free one.
	Host string
	Port int
	// Key is what clients must bear. Empty: open to loopback only.
	Key secret.String

	// MaxRunning bounds the turns that run at once. Default 64.
	MaxRunning int
	// MaxQueued bounds the turns that wait; more are refused. Default 1024.
	MaxQueued int
	// TurnTimeout bounds one turn of the model. Default 10 minutes.
	TurnTimeout time.Duration

	// Services tells the state of every service, for /metrics. Nil: this gateway
	// tells nothing of others.
	Services supervise.Lister

	// Changed is told how the gateway is at each change, the first readiness
	// included, before anybody can see it. It must return soon and not call the
	// gateway. Default: nobody is told.
	Changed func(Health)

	Log *slog.Logger // default: discards
}

func (o Options) withDefaults() Options {
	if o.MaxRunning <= 0 {
		o.MaxRunning = 64
	}
	if o.MaxQueued <= 0 {
		o.MaxQueued = 1024
	}
	if o.TurnTimeout <= 0 {
		o.TurnTimeout = 10 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Gateway serves one profile. Its methods are safe for concurrent use.
type Gateway struct {
	o       Options
	log     *slog.Logger
	health  *health
	metrics *metrics
	turns   *turns
	api     http.Handler // /v1/, for whoever was let in
	started time.Time

	mu sync.Mutex
	ln net.Listener
}

// New builds a gateway; it opens nothing.
func New(o Options) (*Gateway, error) {
	if o.Model == nil || o.Store == nil {
		return nil, errors.New("cannot build a gateway without a model and a store")
	}
	o = o.withDefaults()
	g := &Gateway{o: o, log: o.Log, health: newHealth(o.Log, o.Changed), started: time.Now()}
	g.turns = newTurns(o)
	g.metrics = newMetrics(o.Profile, g.turns)
	g.turns.observe = g.metrics
	g.turns.storeFailed = g.health.recheck
	g.api = g.routesV1()
	return g, nil
}

// Listen takes the HTTP port. A taken port is an error that names the address.
func (g *Gateway) Listen() error {
	addr := net.JoinHostPort(g.o.Host, strconv.Itoa(g.o.Port))
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return explainListen(addr, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ln = ln
	return nil
}

func explainListen(addr string, err error) error {
	advice := "set API_SERVER_HOST and API_SERVER_PORT to an address of this machine"
	code := exitcode.Failed
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		err, advice = syscall.EADDRINUSE, "stop what listens there, or set API_SERVER_PORT to another port"
	case errors.Is(err, syscall.EACCES):
		err, advice, code = syscall.EACCES, "ports below 1024 need privileges: set API_SERVER_PORT to a higher one", exitcode.Config
	}
	return exitcode.With(code, fmt.Errorf("cannot listen on %s: %w; %s", addr, err, advice))
}

// Address returns host:port as it was bound, or "" before Listen.
func (g *Gateway) Address() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ln == nil {
		return ""
	}
	return g.ln.Addr().String()
}

// Run serves until ctx ends or the listener breaks. Turns that still run when
// ctx ends are cancelled: call Drain before to let them finish.
func (g *Gateway) Run(ctx context.Context) error {
	g.mu.Lock()
	ln := g.ln
	g.mu.Unlock()
	if ln == nil {
		return errors.New("cannot run a gateway that does not listen")
	}
	srv := g.server()
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	checking, stopChecking := context.WithCancel(ctx)
	var checks sync.WaitGroup
	checks.Go(func() { g.health.watch(checking, g.probes(ln.Addr())) })

	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("cannot serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	stopChecking()
	checks.Wait()
	g.turns.abort()
	end(ctx, srv)
	return err
}

func (g *Gateway) server() *http.Server {
	policy := access.Policy{Host: g.o.Host, Key: g.o.Key, Public: []string{"/livez", "/readyz"}}
	return &http.Server{
		Handler:           g.routes(policy),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // clients that hang up are not news
	}
}

// end lets answers finish that have all they need, and hangs up on the rest.
func end(ctx context.Context, srv *http.Server) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if srv.Shutdown(last) != nil {
		srv.Close()
	}
}

// Drain takes no new turns, from the first call on, and waits for those it has.
// When ctx ends first it cancels them and says how many. The HTTP API goes on
// answering, with 503 where a turn is asked for, until Run ends.
func (g *Gateway) Drain(ctx context.Context) error {
	g.StartDraining("finishing what it has")
	if left := g.turns.drain(ctx); left > 0 {
		return fmt.Errorf("cancelled %d unfinished turns at the end of the time given to stop", left)
	}
	return nil
}

// StartDraining takes no new turns and returns at once; reason is shown.
func (g *Gateway) StartDraining(reason string) {
	g.health.drain(reason)
	g.turns.close()
}

// API serves /v1/ without asking who comes: for a socket that knows its peers.
func (g *Gateway) API() http.Handler { return g.api }

// Ready is closed when the gateway is ready for the first time.
func (g *Gateway) Ready() <-chan struct{} { return g.health.first }

// State returns what the gateway is doing, why and since when. It takes the
// locks that a message needs: who cannot get those must not look alive.
func (g *Gateway) State() (supervise.State, string, time.Time) {
	_ = g.turns.isClosed()
	return g.health.state()
}

// Deadlock makes two goroutines wait for each other's lock for ever, as a bug
// would: no message is taken and State does not return. It is for tests of who
// notices, and returns when it is done.
func (g *Gateway) Deadlock() {
	var both sync.WaitGroup
	both.Add(2)
	for _, order := range [][2]*sync.Mutex{{&g.turns.mu, &g.health.mu}, {&g.health.mu, &g.turns.mu}} {
		go func() {
			order[0].Lock()
			both.Done()
			both.Wait()
			order[1].Lock()
		}()
	}
	both.Wait()
}

// Platforms lists what the gateway serves, sorted by name.
func (g *Gateway) Platforms() []supervise.Platform { return g.health.platforms() }

// Report tells the state of one platform; Since is set here, when it changes.
// While any platform is not ready the gateway is degraded.
func (g *Gateway) Report(name string, state supervise.State, reason string) {
	g.health.report(name, state, reason)
}
