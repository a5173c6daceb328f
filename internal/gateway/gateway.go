// Package gateway is the engine of `hermes gateway run`: the HTTP API in the
// shape of OpenAI's, conversations that go on from request to request, and the
// states starting, ready, degraded and draining.
//
// It knows neither which model answers nor where conversations are kept, holds
// no lease and registers with no supervisor; app joins those.
//
// A message that was accepted is answered, also when the client has gone and
// when the process ends in between; turns of one session run one after the
// other in the order they came, sessions run side by side.
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
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/admin"
	"github.com/hermesgw/hermes/internal/agent"
	"github.com/hermesgw/hermes/internal/chat"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/inbound"
	"github.com/hermesgw/hermes/internal/outbox"
	"github.com/hermesgw/hermes/internal/platform"
	"github.com/hermesgw/hermes/internal/secret"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/turn"
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

// Store is the memory that outlives the process.
type Store interface {
	turn.Journal
	inbound.Store
	outbox.Store
	// Drop takes off what waits to be sent to a chat, see store.Store.
	Drop(ctx context.Context, to outbox.Address, at time.Time) (n int, upto int64, err error)
	admin.Store
	// Prune removes old conversations, see store.Store.
	Prune(ctx context.Context, before time.Time, maxBytes int64) (int64, error)
	// Writable makes a small real write.
	Writable(ctx context.Context) error
	// Runs lists what came through /v1/runs, newest first.
	Runs(ctx context.Context, f turn.Filter) ([]turn.Message, error)
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

	// WebhookSecret signs what comes in on /webhooks/. Empty: webhooks are off.
	WebhookSecret secret.String
	// WebhookWindow is how far the signed time may be from ours. Default 5 minutes.
	WebhookWindow time.Duration

	// MaxRunning bounds the turns that run at once. Default 512.
	MaxRunning int
	// MaxQueued bounds the messages that wait; more are refused. Default 10000.
	MaxQueued int
	// TurnTimeout bounds one turn of the model. Default 10 minutes.
	TurnTimeout time.Duration
	// Fallback answers when Model does not. Nil: nothing does.
	Fallback chat.Model
	// Retries, ContextTokens and MaxAnswer are as in agent.Options.
	Retries, ContextTokens, MaxAnswer int
	// MaxRequests bounds the requests of the API that are served at once, and by
	// itself those of webhooks; more are refused. Default 1024.
	MaxRequests int
	// BodyTimeout is how long a client may take to send its request after the
	// header. Default 1 minute.
	BodyTimeout time.Duration

	// Adapters are the accounts on chat platforms. Senders says who may talk
	// there: by default nobody.
	Adapters []platform.Adapter
	Senders  access.Senders
	// Pairing lets strangers ask an operator to be let in.
	Pairing bool
	// Busy is what a new message in a chat does while a turn runs there:
	// inbound.Queue (default) or inbound.Interrupt.
	Busy string
	// Merge is how long a message in a chat waits for more of its sender. Default
	// 0: not at all.
	Merge time.Duration
	// PreviewAfter and PreviewEvery are as in turn.Options.
	PreviewAfter, PreviewEvery time.Duration
	// MaxMessage bounds one message in bytes, wherever it comes from. Default 1 MiB.
	MaxMessage int
	// KeepFor and KeepBytes say when old conversations are removed: by their age,
	// and by the size of the database. 0: never.
	KeepFor   time.Duration
	KeepBytes int64
	// Audit writes a line of the audit log. Default: nothing.
	Audit func(pairs ...string)

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
	if o.MaxRequests <= 0 {
		o.MaxRequests = 1024
	}
	if o.BodyTimeout <= 0 {
		o.BodyTimeout = time.Minute
	}
	if o.MaxMessage <= 0 {
		o.MaxMessage = 1 << 20
	}
	if o.WebhookWindow <= 0 {
		o.WebhookWindow = 5 * time.Minute
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
	turns   *turn.Engine
	refused atomic.Int64 // messages that were not accepted
	chats   *chats
	admin   http.Handler
	// A place for each request that is served at once: of the API, and of webhooks.
	serving, hooks chan struct{}
	api            http.Handler // /v1/, for whoever was let in
	started        time.Time

	mu sync.Mutex
	ln net.Listener
}

// New builds a gateway; it opens nothing.
func New(o Options) (*Gateway, error) {
	if o.Model == nil || o.Store == nil {
		return nil, errors.New("cannot build a gateway without a model and a store")
	}
	o = o.withDefaults()
	g := &Gateway{o: o, log: o.Log, health: newHealth(o.Log, o.Changed), started: time.Now(), serving: make(chan struct{}, o.MaxRequests), hooks: make(chan struct{}, o.MaxRequests)}
	g.metrics = newMetrics(o.Profile, g.counts, newStoreCollector(g))
	if err := g.buildTurns(); err != nil {
		return nil, err
	}
	g.api = g.routesV1()
	var err error
	g.admin, err = admin.New(admin.Options{
		Store: o.Store, Wake: g.chats.wake, Accounts: g.chats.accounts, Audit: o.Audit, KeepBytes: o.KeepBytes,
		Accept: func(ctx context.Context, m turn.Message) error { _, _, _, err := g.turns.Accept(ctx, m); return err },
	})
	return g, err
}

// buildTurns joins the model, the agent and the journal.
func (g *Gateway) buildTurns() error {
	a, err := agent.New(agent.Options{
		Model: g.o.Model, Fallback: g.o.Fallback, Retries: g.o.Retries, ContextTokens: g.o.ContextTokens,
		Timeout: g.o.TurnTimeout, MaxAnswer: g.o.MaxAnswer, Log: g.log,
	})
	if err != nil {
		return err
	}
	if g.chats, err = newChats(g); err != nil {
		return err
	}
	g.turns, err = turn.New(turn.Options{
		Journal: g.o.Store, Agent: a, Observe: newResting(g.metrics, debug.FreeOSMemory), Broken: g.health.recheck,
		Parts: g.chats.parts, Queued: g.chats.wake, Merge: g.o.Merge,
		Preview: g.chats.preview, PreviewAfter: g.o.PreviewAfter, PreviewEvery: g.o.PreviewEvery,
		MaxRunning: g.o.MaxRunning, MaxQueued: g.o.MaxQueued, Log: g.log,
	})
	if err != nil {
		return err
	}
	return g.chats.open()
}

// counts are the messages by where they are, at one moment.
func (g *Gateway) counts() counts {
	return counts{Tally: g.turns.Tally(), refused: g.refused.Load()}
}

// refuse counts a message that was not accepted.
func (g *Gateway) refuse() { g.refused.Add(1) }

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
	if err := g.turns.Resume(ctx); err != nil {
		ln.Close()
		return fmt.Errorf("cannot resume the messages of the last run: %w", err)
	}
	srv := g.server()
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	stopChats := g.chats.run(ctx)
	checking, stopChecking := context.WithCancel(ctx)
	var checks sync.WaitGroup
	checks.Go(func() { g.health.watch(checking, g.probes(ln.Addr())) })
	checks.Go(func() { g.prune(checking) })

	var err error
	select {
	case err = <-failed:
		err = fmt.Errorf("cannot serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	stopChecking()
	checks.Wait()
	g.turns.Abort()
	stopChats()
	end(ctx, srv)
	return err
}

// pruneEvery is how often old conversations are removed, and pruneFirst how long
// after the start: that has better things to do.
const (
	pruneEvery = time.Hour
	pruneFirst = time.Minute
)

// prune removes old conversations now and then until ctx ends.
func (g *Gateway) prune(ctx context.Context) {
	timer := time.NewTimer(pruneFirst)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		timer.Reset(pruneEvery)
		var before time.Time
		if g.o.KeepFor > 0 {
			before = time.Now().Add(-g.o.KeepFor)
		}
		n, err := g.o.Store.Prune(ctx, before, g.o.KeepBytes)
		switch {
		case err != nil && ctx.Err() == nil:
			g.log.Error("cannot remove old conversations", "error", err)
		case n > 0:
			g.log.Info("old conversations removed", "count", n)
		}
	}
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

// Drain takes no new messages, from the first call on, and waits for the turns
// that run or that somebody waits for. When ctx ends first it leaves them to the
// next start and says how many. The HTTP API goes on
// answering, with 503 where a turn is asked for, until Run ends.
func (g *Gateway) Drain(ctx context.Context) error {
	g.StartDraining("finishing what it has")
	left := g.turns.Drain(ctx)
	g.chats.flush(ctx)
	if left > 0 {
		return fmt.Errorf("left %d unfinished turns to the next start at the end of the time given to stop", left)
	}
	return nil
}

// StartDraining takes no new turns and returns at once; reason is shown.
func (g *Gateway) StartDraining(reason string) {
	g.health.drain(reason)
	g.turns.Close()
}

// API serves /v1/ without asking who comes: for a socket that knows its peers.
func (g *Gateway) API() http.Handler { return g.api }

// Admin serves /admin/ without asking who comes: for a socket that knows its
// peers.
func (g *Gateway) Admin() http.Handler { return g.admin }

// Ready is closed when the gateway is ready for the first time.
func (g *Gateway) Ready() <-chan struct{} { return g.health.first }

// State returns what the gateway is doing, why and since when. It takes the
// locks that a message needs: who cannot get those must not look alive.
func (g *Gateway) State() (supervise.State, string, time.Time) {
	_ = g.turns.Closed()
	return g.health.state()
}

// Deadlock makes two goroutines wait for each other's lock for ever, as a bug
// would: no message is taken and State does not return. It is for tests of who
// notices, and returns when it is done.
func (g *Gateway) Deadlock() {
	var both sync.WaitGroup
	both.Add(2)
	for _, order := range [][2]sync.Locker{{g.turns.Lock(), &g.health.mu}, {&g.health.mu, g.turns.Lock()}} {
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
// While any platform is degraded the gateway is, and one that is degraded and
// starts again stays so until it is ready.
func (g *Gateway) Report(name string, state supervise.State, reason string) {
	g.health.report(name, state, reason)
}
