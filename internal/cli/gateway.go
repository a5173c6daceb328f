package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/early"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/logging"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/sdnotify"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/s6slots"
	"github.com/hermesgw/hermes/internal/supervise/slot"
	"github.com/hermesgw/hermes/internal/unix"
)

// maxWhy bounds --why, in bytes: it is a line in a log.
const maxWhy = 500

func newGateway(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "gateway", Short: "Run, start, stop and look at gateways",
		Example: "  hermes gateway status", RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newGatewayRun(o), newGatewayStart(o), newGatewayStop(o), newGatewayRestart(o),
		newGatewayStatus(o), newGatewayList(o), newGatewayLogs(o), newGatewayShowEnv(o), newGatewayInstall(o), newGatewayUninstall(o))
	return cmd
}

// runOptions are the flags of `gateway run`.
type runOptions struct {
	*options
	noSupervise, replace, verbose, quiet bool
	args                                 []string // what a supervised child is given
}

func newGatewayRun(o *options) *cobra.Command {
	r := &runOptions{options: o}
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway: supervised in a container, in the foreground elsewhere",
		Long: `Run the gateway of a profile.

As the main program of a container with s6 it starts the supervised slot
gateway-<profile>, says so in one line on stderr and becomes a heartbeat: the
gateway is restarted when it crashes, the container outlives it, and the
container's exit code is not the gateway's. Everywhere else, with --no-supervise
or with HERMES_GATEWAY_NO_SUPERVISE=1 it runs in the foreground.`,
		Example: `  docker run -d hermes:dev gateway run
  hermes gateway run --no-supervise -v`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.verbose && r.quiet {
				return usage("-v and -q contradict each other; give one of them")
			}
			r.args = forwardedFlags(cmd)
			return r.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&r.noSupervise, "no-supervise", false, "stay in the foreground, also where s6 could supervise")
	f.BoolVar(&r.replace, "replace", false, "ask the gateway of the same profile in the same run directory to hand over")
	f.BoolVarP(&r.verbose, "verbose", "v", false, "log more (level debug)")
	f.BoolVarP(&r.quiet, "quiet", "q", false, "log less (level warn)")
	return cmd
}

func (r *runOptions) run(ctx context.Context) error {
	s, p, err := r.target()
	if err != nil {
		return err
	}
	facts := r.facts(s)
	d := runmode.Decide(facts)
	if d.Mode == runmode.Redirect {
		done, err := runmode.Become(ctx, s.RedirectSlot(p, r.args), r.err, d.Notice, func(argv []string) error { return heartbeat(ctx, argv) })
		if done || err != nil {
			return err
		}
	} else if d.Notice != "" {
		fmt.Fprintln(r.err, d.Notice)
	}
	return r.foreground(ctx, s, p, facts.InSlot)
}

func (r *runOptions) facts(s *app.Supervision) runmode.Facts {
	return runmode.Facts{
		NoSuperviseFlag: r.noSupervise,
		NoSuperviseEnv:  os.Getenv(runmode.EnvNoSupervise),
		Sentinel:        os.Getenv(runmode.EnvSentinel),
		InSlot:          os.Getenv(slot.EnvNotify) != "" && os.Getenv(supervise.MarkVar) != "",
		Tree:            s.Found.Tree,
		TreeRefusal:     s.Found.Refusal,
	}
}

// heartbeat becomes argv; where the program is missing it waits in-process.
func heartbeat(ctx context.Context, argv []string) error {
	if path, err := exec.LookPath(argv[0]); err == nil {
		_ = syscall.Exec(path, argv, os.Environ()) // returns only if it failed
	}
	<-ctx.Done()
	return exitcode.Silent(exitcode.SignalBase + int(syscall.SIGTERM))
}

// foreground is the gateway itself.
func (r *runOptions) foreground(ctx context.Context, s *app.Supervision, p profile.Profile, inSlot bool) error {
	manager := sdnotify.Take(os.LookupEnv, os.Unsetenv, os.Getpid())
	notify, err := takeNotify()
	if err != nil {
		return err
	}
	var stackless error
	if inSlot { // first of all: whatever hangs, the guard can tell where
		stackless = app.KeepStacks(s.Found.Dir, p.Name)
	}
	flags := map[string]string{}
	switch {
	case r.verbose:
		flags["log.level"] = "debug"
	case r.quiet:
		flags["log.level"] = "warn"
	}
	cfg, log, err := r.settings(config.Options{Home: p.Home, Flags: flags}, inSlot)
	if err != nil {
		return err
	}
	if stackless != nil {
		log.Warn("a crash will leave its stacks in the log alone", "error", stackless)
	}
	return app.RunGateway(ctx, app.GatewayOptions{
		Profile: p, RunDir: string(s.Found.Dir), Supervised: inSlot, Replace: r.replace,
		Config: cfg, AssignPort: s.PortAssigner(p), Services: s.MainServices(p), Ready: notify, ServiceManager: manager, Log: log,
		MayDeadlock: os.Getenv(app.DeadlockVar) == "1",
	})
}

// settings reads them with the environment of this process, and makes the logger
// that they ask for: on stderr and, in a slot, without the time, because s6-log
// stamps every line.
func (o *options) settings(from config.Options, inSlot bool) (*config.Config, *slog.Logger, error) {
	from.Lookup = os.LookupEnv
	cfg, err := config.Load(from)
	if err != nil {
		return nil, nil, err
	}
	var look []logging.Option
	if inSlot {
		look = append(look, logging.WithoutTime())
	}
	log, sink := logging.Open(o.err, cfg.Log().Format, cfg.Log().Level, look...)
	o.sinks = append(o.sinks, sink)
	return cfg, log, nil
}

// turnKept is how long a gateway that does not get ready, or stands by, keeps
// others from starting.
const turnKept = 5 * time.Second

// takeNotify returns what says "ready" to s6 on the descriptor that the slot's
// entry named, and lets the next gateway start; outside a slot it does nothing.
// The entry's variables are removed: what this process starts never sees them.
func takeNotify() (func(), error) {
	notify, err := takeDescriptor(slot.EnvNotify)
	if err != nil {
		return nil, err
	}
	turn, err := takeDescriptor(slot.EnvStarting)
	if err != nil {
		return nil, err
	}
	os.Unsetenv(runmode.EnvSentinel)
	if turn != nil {
		time.AfterFunc(turnKept, func() { _ = turn.Close() }) // which may be done already
	}
	return func() {
		if notify != nil {
			_, _ = notify.Write([]byte("\n")) // a supervisor that is gone cannot be told
			_ = notify.Close()
		}
		if turn != nil {
			_ = turn.Close()
		}
	}, nil
}

// takeDescriptor is the open file whose number the variable name has, which is
// removed; nil where it is not set.
func takeDescriptor(name string) (*os.File, error) {
	text := os.Getenv(name)
	os.Unsetenv(name)
	if text == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, usage("%s is %q: it must be the number of a descriptor from 3 up", name, text)
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name), nil
}

// slotOptions are the flags of start, stop and restart.
type slotOptions struct {
	*options
	all    bool
	wait   bool
	noWait bool
	why    string
}

func newSlotCommand(o *options, action supervise.Command, short string) *cobra.Command {
	so := &slotOptions{options: o}
	cmd := &cobra.Command{
		Use: string(action), Short: short, Args: exactly(0, ""),
		Example: fmt.Sprintf("  hermes gateway %[1]s\n  hermes -p work gateway %[1]s --no-wait\n  hermes gateway %[1]s --all --why 'new model'", action),
		RunE:    func(cmd *cobra.Command, _ []string) error { return so.run(cmd.Context(), action) },
	}
	cmd.Flags().BoolVar(&so.all, "all", false, "every profile's gateway; goes on past failures")
	cmd.Flags().BoolVar(&so.wait, "wait", true, "wait until it is done or has failed")
	cmd.Flags().BoolVar(&so.noWait, "no-wait", false, "only ask for it")
	cmd.Flags().StringVar(&so.why, "why", "", "the reason, for intent.json and logs/audit.log")
	return cmd
}

func newGatewayStart(o *options) *cobra.Command {
	return newSlotCommand(o, supervise.CommandStart, "Start a supervised gateway and wait until it is ready")
}

func newGatewayStop(o *options) *cobra.Command {
	return newSlotCommand(o, supervise.CommandStop, "Stop a supervised gateway and keep it down")
}

func newGatewayRestart(o *options) *cobra.Command {
	return newSlotCommand(o, supervise.CommandRestart, "Drain a supervised gateway and start it again")
}

func (so *slotOptions) run(ctx context.Context, action supervise.Command) error {
	if len(so.why) > maxWhy {
		return usage("--why has %d bytes: give %d at most", len(so.why), maxWhy)
	}
	if ok, err := so.hosted(ctx, action); ok {
		return err
	}
	s, p, err := so.target()
	if err != nil {
		return err
	}
	so.sayNotInUse(s, p)
	m, err := s.Manager("cli")
	if err != nil {
		return err
	}
	m.Why = so.why
	targets := []profile.Profile{p}
	if so.all {
		if targets, err = profile.List(s.Home); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, app.WaitLimit)
	defer cancel()
	outcomes := so.each(targets, func(p profile.Profile) error { return s.Operate(ctx, m, action, p, so.waits(m, p)) })
	var errs []error
	for i, p := range targets {
		err := <-outcomes[i]
		errs = append(errs, err)
		if err == nil {
			fmt.Fprintf(so.out, "%s: %s\n", supervise.GatewayName(p.Name), so.outcome(m, p, action))
		} else if so.all {
			fmt.Fprintf(so.out, "%s: failed: %s\n", supervise.GatewayName(p.Name), early.OneLine(err))
		}
	}
	if so.all && errors.Join(errs...) != nil {
		return exitcode.Silent(exitcode.Failed)
	}
	return errors.Join(errs...)
}

// each calls act for every target, a few at a time: all gateways starting at
// once would want all their memory at once. It returns where each one's answer
// will be.
func (so *slotOptions) each(targets []profile.Profile, act func(profile.Profile) error) []chan error {
	outcomes := make([]chan error, len(targets))
	turns := make(chan struct{}, max(2, runtime.NumCPU()))
	for i := range targets {
		outcomes[i] = make(chan error, 1)
	}
	go func() {
		for i, p := range targets {
			turns <- struct{}{}
			go func() {
				defer func() { <-turns }()
				outcomes[i] <- act(p)
			}()
		}
	}()
	return outcomes
}

// waits says whether to wait for the outcome. A turn that stops or restarts its
// own gateway would wait for its own end.
func (so *slotOptions) waits(m *s6slots.Manager, p profile.Profile) bool {
	return so.wait && !so.noWait && !m.Inside(supervise.GatewayName(p.Name))
}

// outcome is what is said of a success.
func (so *slotOptions) outcome(m *s6slots.Manager, p profile.Profile, action supervise.Command) string {
	switch {
	case so.waits(m, p):
		return action.Outcome()
	case m.Inside(supervise.GatewayName(p.Name)):
		return "asked; it is done after this turn"
	}
	return "asked"
}

// sayNotInUse says which gateway is meant where `profile use` chose another:
// what starts or stops something goes by -p alone, so that a script does the
// same whatever somebody looks at.
func (so *slotOptions) sayNotInUse(s *app.Supervision, p profile.Profile) {
	inUse, err := profile.InUse(s.Home)
	if so.all || so.profile != "" || err != nil || inUse == p.Name {
		return
	}
	fmt.Fprintf(so.err, "hermes: this is about %s: start, stop and restart go by -p alone, not by profile use (%s)\n",
		supervise.GatewayName(p.Name), inUse)
}

func newDashboard(o *options) *cobra.Command {
	var host string
	var port int
	cmd := &cobra.Command{
		Use: "dashboard", Short: "Serve the live page of every slot", Args: exactly(0, ""),
		Long: `Serve one live page with every slot's state. Beyond loopback it wants a login:
HERMES_DASHBOARD_USERNAME and HERMES_DASHBOARD_PASSWORD. With a login it also
starts, stops and restarts gateways; without one it only looks. In a container,
HERMES_DASHBOARD=1 has it supervised beside the gateway.`,
		Example: "  hermes dashboard\n  hermes dashboard --host 0.0.0.0 --port 9119",
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags := map[string]string{}
			if cmd.Flags().Changed("host") {
				flags["dashboard.host"] = host
			}
			if cmd.Flags().Changed("port") {
				flags["dashboard.port"] = strconv.Itoa(port)
			}
			return runDashboard(cmd.Context(), o, flags)
		},
	}
	cmd.Flags().StringVar(&host, "host", "127.0.0.1", "address to listen on")
	cmd.Flags().IntVar(&port, "port", 9119, "port to listen on")
	return cmd
}

func runDashboard(ctx context.Context, o *options, flags map[string]string) error {
	s, err := o.supervision()
	if err != nil {
		return err
	}
	inSlot := os.Getenv(slot.EnvNotify) != ""
	notify, err := takeNotify()
	if err != nil {
		return err
	}
	cfg, log, err := o.settings(config.Options{Home: s.Home, Flags: flags, Part: true}, inSlot)
	if err != nil {
		return err
	}
	return app.RunDashboard(ctx, app.DashboardOptions{
		Config: cfg, Lister: s.Lister(), Operator: s.DashboardOperator(), Ready: notify, Log: log,
	})
}

// logFile is where the rotated files of a gateway are.
func logFile(home, profileName string) string {
	return filepath.Join(home, "logs", "gateways", profileName, "current")
}
