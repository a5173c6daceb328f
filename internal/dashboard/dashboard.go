// Package dashboard serves one live web page with the state of every service:
// server-sent events, a login where it is needed, nothing to install. It holds
// no secret that a page could show.
//
// Beyond loopback it demands a user name and a password; on loopback without
// them it is open to this machine, as package access describes.
//
// Who has logged in may start, stop and restart gateways, and nothing else; an
// Operator does it. Without a login, or without an Operator, the dashboard only
// looks.
//
//	d, err := dashboard.New(dashboard.Options{Host: "127.0.0.1", Port: 9119, Lister: slots, Log: log})
//	err = d.Run(ctx) // until ctx ends
package dashboard

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/access"
	"github.com/hermesgw/hermes/internal/buildinfo"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/secret"
	"github.com/hermesgw/hermes/internal/supervise"
)

const (
	// headerTimeout and idleTimeout free connections of clients that stall.
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
	// stopGrace is what open requests get at a stop; streams end at once, so
	// only a page on a slow line ever uses it.
	stopGrace = time.Second
)

// Options says what to serve and where.
type Options struct {
	// Host is the address to bind, without a port. Beyond loopback both
	// Username and Password are required.
	Host string
	// Port is 0..65535; 0 means any free port.
	Port int
	// Username and Password are the login; give both or neither.
	Username string
	Password secret.String
	// Lister tells the state of the services; it is asked once a second while
	// somebody watches. Required.
	Lister supervise.Lister
	// Operator starts and stops gateways for who has logged in. Nil: nobody does.
	Operator Operator
	// Log takes logins, commands and troubles. Required.
	Log *slog.Logger
	// Ready is called once when requests are accepted. Nil: nobody waits.
	Ready func()
}

// Dashboard is one server. Listen and Run may each be called once.
type Dashboard struct {
	options  Options
	pages    *template.Template
	watcher  *watcher
	sessions *sessions
	failures *limiter
	commands chan struct{} // one for each command under way
	closing  chan struct{} // closed when streams and commands must end
	listener net.Listener
}

// New checks the options; it opens nothing. A bind beyond loopback without a
// login carries exit code 78.
func New(o Options) (*Dashboard, error) {
	if err := checkLogin(o); err != nil {
		return nil, exitcode.With(exitcode.Config, err)
	}
	pages, err := template.ParseFS(files, "page/*.html")
	if err != nil {
		return nil, fmt.Errorf("cannot read the built-in pages: %w", err)
	}
	return &Dashboard{
		options:  o,
		pages:    pages,
		watcher:  newWatcher(o.Lister, o.Log),
		sessions: newSessions(),
		failures: newLimiter(),
		commands: make(chan struct{}, maxCommands),
		closing:  make(chan struct{}),
	}, nil
}

func checkLogin(o Options) error {
	user, password := o.Username != "", o.Password.IsSet()
	switch {
	case user != password:
		return errors.New("the dashboard's login is incomplete: set both HERMES_DASHBOARD_USERNAME and HERMES_DASHBOARD_PASSWORD, or neither")
	case !user && !access.LoopbackBind(o.Host):
		return fmt.Errorf("cannot open the dashboard on %q: other machines could reach it without a login; set HERMES_DASHBOARD_USERNAME and HERMES_DASHBOARD_PASSWORD, or bind it to 127.0.0.1", address(o))
	}
	return nil
}

// address is what to listen on; a host in brackets is as good as one without.
func address(o Options) string {
	host := o.Host
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	return net.JoinHostPort(host, strconv.Itoa(o.Port))
}

// Listen binds the address and returns it with the port that it got.
func (d *Dashboard) Listen() (net.Addr, error) {
	l, err := net.Listen("tcp", address(d.options))
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address(d.options), listenCause(err))
	}
	d.listener = l
	return l.Addr(), nil
}

// listenCause leaves out what net repeats of the address, and says what to do.
func listenCause(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return errors.New("the port is in use; stop what uses it, or choose another with --port or HERMES_DASHBOARD_PORT")
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

// Run serves until ctx ends and returns when everything it started has ended.
// It calls Listen if nobody did.
func (d *Dashboard) Run(ctx context.Context) error {
	if d.listener == nil {
		if _, err := d.Listen(); err != nil {
			return err
		}
	}
	server := &http.Server{
		Handler:           d.Handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(d.options.Log.Handler(), slog.LevelDebug),
	}
	server.RegisterOnShutdown(func() { close(d.closing) })

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { d.watcher.run(ctx) })
	served := make(chan error, 1)
	wg.Go(func() { served <- server.Serve(d.listener) })

	d.options.Log.Info("dashboard listens", "addr", d.listener.Addr().String(), "login", d.needsLogin())
	if d.options.Ready != nil {
		d.options.Ready()
	}
	select {
	case err := <-served:
		cancel()
		return fmt.Errorf("cannot serve the dashboard: %w", err)
	case <-ctx.Done():
		return d.stop(context.WithoutCancel(ctx), server)
	}
}

// stop lets open requests end, within stopGrace.
func (d *Dashboard) stop(ctx context.Context, server *http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		d.options.Log.Warn("open requests were cut at the stop", "after", stopGrace)
		return server.Close()
	}
	return nil
}

func (d *Dashboard) needsLogin() bool { return d.options.Password.IsSet() }

// Handler returns the whole site.
func (d *Dashboard) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", livez)
	for _, name := range []string{"app.css", "app.js", "icon.svg"} {
		mux.Handle("GET /"+name, d.guard(asset(name)))
	}
	mux.Handle("GET /login", d.guard(d.loginPage))
	mux.Handle("POST /login", d.guard(d.login))
	mux.Handle("POST /logout", d.guard(d.private(d.logout)))
	mux.Handle("GET /{$}", d.guard(d.private(d.overview)))
	mux.Handle("GET /api/services", d.guard(d.private(d.services)))
	mux.Handle("POST /api/services/{name}/{action}", d.guard(d.private(d.operate)))
	mux.Handle("GET /events", d.guard(d.private(d.events)))
	return secure(mux)
}

// livez says that the process serves; it needs no login and tells nothing.
func livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n")
}

// view is what the pages know.
type view struct {
	Version string
	Login   bool   // there is a login, so there is a way out
	Acts    bool   // gateways can be started and stopped
	Token   string // against forged forms
	Trouble string // why a login was refused
}

func (d *Dashboard) overview(w http.ResponseWriter, r *http.Request) {
	v := view{Version: buildinfo.Get().Version, Login: d.needsLogin(), Acts: d.acts()}
	if s := sessionOf(r); s != nil {
		v.Token = s.csrf
	}
	d.render(w, http.StatusOK, "overview.html", v)
}

// render sends a page; a client that went away is nobody's error.
func (d *Dashboard) render(w http.ResponseWriter, status int, page string, v view) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if err := d.pages.ExecuteTemplate(w, page, v); err != nil {
		d.options.Log.Debug("page not sent", "page", page, "error", err)
	}
}
