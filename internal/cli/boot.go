package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/boot"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/early"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/logging"
	"github.com/hermesgw/hermes/internal/supervise"
)

// newBoot holds the container's own entry points.
func newBoot(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "boot", Short: "The container's own entry points", Hidden: true,
		Example: "  hermes boot main -- gateway run", RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "main -- COMMAND", Short: "Run the container's command and carry its exit code",
			Example: "  hermes boot main -- gateway run",
			RunE:    func(_ *cobra.Command, args []string) error { return early.Main(args) },
		},
		&cobra.Command{
			Use: "foreground -- PROGRAM ARGV", Short: "Take the terminal and become a program",
			Example: "  hermes boot foreground -- /bin/bash bash",
			Args:    cobra.MinimumNArgs(2),
			RunE: func(_ *cobra.Command, args []string) error {
				return boot.Foreground(args[0], args[1:], os.Environ())
			},
		},
		&cobra.Command{
			Use: "try-lock FILE", Short: "Say whether the lock on a file can be had",
			Example: "  hermes boot try-lock FILE",
			Args:    exactly(1, "one FILE"),
			RunE: func(_ *cobra.Command, args []string) error {
				answer, err := app.TryLock(args[0])
				if err == nil {
					fmt.Fprintln(o.out, answer)
				}
				return err
			},
		},
		newGuard(o),
		newDeadlock(o),
	)
	return cmd
}

func newGuard(o *options) *cobra.Command {
	var g app.GuardOptions
	cmd := &cobra.Command{
		Use: "guard", Short: "Watch the gateways of this container", Args: exactly(0, ""),
		Example: "  hermes boot guard --reconcile",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if g.Ready, err = takeNotify(); err != nil {
				return err
			}
			if g.Supervision, err = o.supervision(); err != nil {
				return err
			}
			g.Log = o.guardLog(g.Supervision.Home)
			return app.RunGuard(cmd.Context(), g)
		},
	}
	cmd.Flags().BoolVar(&g.Reconcile, "reconcile", false, "follow what changes on the volume: profiles and intents")
	cmd.Flags().StringVar(&g.Leave, "leave", "", "the profile whose gateway is the main program: leave its slot alone")
	return cmd
}

// guardLog is as the settings have it; settings that are broken are the
// gateway's to complain about, and no reason to leave the others unwatched.
func (o *options) guardLog(home string) *slog.Logger {
	_, log, err := o.settings(config.Options{Home: home, Part: true}, true)
	if err != nil {
		return logging.New(o.err, "text", slog.LevelInfo, logging.WithoutTime())
	}
	return log
}

func newDeadlock(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "deadlock", Short: "Deadlock a gateway that was started with " + app.DeadlockVar + "=1, to see the guard act",
		Example: "  hermes -p work boot deadlock", Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, p, err := o.target()
			if err != nil {
				return err
			}
			return control.Dial(control.SocketPath(string(s.Found.Dir), p.Name)).Deadlock(cmd.Context())
		},
	}
}

// parseMainProgram tells what hermes would make of a container's command, with
// the very flags and commands that would run it.
func parseMainProgram(args []string) boot.MainProgram {
	root := newRoot(&options{})
	m := boot.MainProgram{IsCommand: boot.IsCommand(args)}
	if len(args) > 0 && (args[0] == "hermes" || strings.HasSuffix(args[0], "/hermes")) {
		args = args[1:]
	} else if !m.IsCommand {
		return m
	}
	cmd, rest, err := root.Find(args)
	if err != nil || cmd.CommandPath() != "hermes gateway run" || cmd.ParseFlags(rest) != nil || helpAsked(cmd) {
		return m
	}
	m.GatewayRun = true
	m.Profile, _ = cmd.Flags().GetString("profile")
	m.NoSupervise, _ = cmd.Flags().GetBool("no-supervise")
	m.Forward = forwardedFlags(cmd)
	return m
}

func helpAsked(cmd *cobra.Command) bool {
	help, err := cmd.Flags().GetBool("help")
	return err == nil && help
}

// forwardedFlags are the flags of `gateway run` that its supervised child gets
// too, in the order of their names. The child has --replace of its own, is
// never asked to redirect, and -p stands before the command.
func forwardedFlags(cmd *cobra.Command) []string {
	var args []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch {
		case f.Name == "replace" || f.Name == "no-supervise" || f.Name == "profile":
		case f.Value.Type() == "bool" && f.Value.String() == "true" && f.Shorthand != "":
			args = append(args, "-"+f.Shorthand)
		case f.Value.Type() == "bool":
			args = append(args, "--"+f.Name+"="+f.Value.String())
		default:
			args = append(args, "--"+f.Name, f.Value.String())
		}
	})
	return args
}

// withContenv is the interpreter `#!/command/with-contenv PROGRAM`: it loads
// the container's environment and becomes the program. S6_KEEP_ENV other than
// 0 keeps the present environment alone.
func withContenv(args []string) error {
	if len(args) == 0 {
		return usage("with-contenv wants a program to run; for example: #!/command/with-contenv sh")
	}
	env := os.Environ()
	if keep := os.Getenv("S6_KEEP_ENV"); keep == "" || keep == "0" {
		s, err := app.FindSupervision(os.LookupEnv)
		if err != nil {
			return err
		}
		// The environment is the services' to write: as root it would be theirs
		// to say what root runs (PATH, LD_PRELOAD).
		if notice, err := s.Enter(); err != nil || notice != "" {
			return exitcode.With(exitcode.Failed, errors.Join(err, errors.New("with-contenv cannot become the user of the services, and does not run their environment as root")))
		}
		if env, err = boot.LoadEnvironment(s.Found.Dir.Environment()); err != nil {
			return err
		}
		if mark, ok := os.LookupEnv(supervise.MarkVar); ok { // a slot's process stays marked
			env = append(env, supervise.MarkVar+"="+mark)
		}
	}
	for _, entry := range env {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			os.Setenv("PATH", path) // for the lookup below
		}
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return exitcode.With(exitcode.NotFound, fmt.Errorf("cannot find %q: %w", args[0], errors.Unwrap(err)))
	}
	err = syscall.Exec(path, args, env)
	return exitcode.With(exitcode.CannotExec, fmt.Errorf("cannot run %s: %w", path, err))
}
