// Package cli is the command line: one file per command noun, each parses into
// an options struct and runs it. It decides nothing about supervision or
// gateways; it asks app and prints what comes back.
//
//	os.Exit(cli.Main(os.Args))
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/buildinfo"
	"github.com/hermesgw/hermes/internal/early"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/logging"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise/slot"
	"github.com/hermesgw/hermes/internal/typo"
)

// Main runs hermes under whatever name it was called and returns the exit
// code.
func Main(argv []string) int {
	lastWords := os.Getenv(slot.EnvLastWords)
	os.Unsetenv(slot.EnvLastWords)
	return early.Exit(dispatch(argv), lastWords)
}

// dispatch looks at the name first: scripts call hermes through links. What s6
// calls has left before main (early), as has /init where its command is plain.
// What becomes another program needs no handler for TERM, and would pay for the
// threads that deliver signals.
func dispatch(argv []string) error {
	switch filepath.Base(argv[0]) {
	case "init":
		return early.Init(argv[1:], parseMainProgram)
	case "with-contenv":
		return withContenv(argv[1:])
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	o := &options{out: os.Stdout, err: os.Stderr, in: os.Stdin}
	defer o.closeLogs()
	root := newRoot(o)
	root.SetArgs(argv[1:])
	return root.ExecuteContext(ctx)
}

// options are the flags every command has, and the streams.
type options struct {
	profile string
	in      io.Reader
	out     io.Writer
	err     io.Writer
	sinks   []*logging.Sink // of the loggers that settings made
}

// closeLogs writes what the loggers still have, before the last words.
func (o *options) closeLogs() {
	for _, s := range o.sinks {
		s.Close()
	}
}

// newRoot builds the whole tree of commands.
func newRoot(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "hermes",
		Short: "A supervised gateway between a model, chats and an HTTP API",
		Long: `hermes runs an AI agent's gateway: in a container supervised by s6, beside a
dashboard and more profiles; on a host in the foreground.`,
		Example: `  hermes gateway run
  hermes gateway status --all
  hermes chat "hello"`,
		Version:       buildinfo.Get().Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          group,
		Args:          cobra.ArbitraryArgs,
	}
	root.SetOut(o.out)
	root.SetErr(o.err)
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().VarP((*profileName)(&o.profile), "profile", "p", "profile to work on (default \"default\")")
	_ = root.RegisterFlagCompletionFunc("profile", completeProfiles) // fails only for a flag that is not there
	root.AddCommand(
		newGateway(o), newProfile(o), newDashboard(o), newChat(o),
		newSend(o), newTrace(o), newDeadletter(o), newPairing(o), newSessions(o), newBackup(o), newRestore(o),
		newHealthcheck(o), newDoctor(o), newVersion(o), newConfig(o), newBoot(o),
	)
	root.InitDefaultCompletionCmd()
	describeCompletion(root)
	root.InitDefaultHelpCmd()
	describeHelp(root)
	return root
}

// describeHelp makes `hermes help WORD` refuse a word that is no command, as
// `hermes WORD` does.
func describeHelp(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() == "help" {
			c.Run, c.RunE = nil, func(_ *cobra.Command, args []string) error {
				cmd, rest, err := root.Find(args)
				if err != nil {
					return usage("%w", err)
				}
				return group(cmd, rest)
			}
		}
	}
}

func describeCompletion(root *cobra.Command) {
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Example = "  source <(hermes completion bash)"
			c.RunE, c.Run, c.Args = group, nil, cobra.ArbitraryArgs
			for _, shell := range c.Commands() {
				shell.Example = "  hermes completion " + shell.Name()
			}
		}
	}
}

// group is what a command with subcommands does by itself: show its help, or
// refuse a word that is none of them.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	hint := "see: " + cmd.CommandPath() + " --help"
	if s := typo.Nearest(args[0], commandNames(cmd)); s != "" {
		hint = "did you mean: " + cmd.CommandPath() + " " + s
	}
	return usage("unknown command %q for %s; %s", args[0], cmd.CommandPath(), hint)
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

// flagError makes cobra's complaint ours: one line, a suggestion, exit code 2.
func flagError(cmd *cobra.Command, err error) error {
	hint := "see: " + cmd.CommandPath() + " --help"
	if name, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		if s := typo.Nearest(name, flagNames(cmd)); s != "" {
			hint = "did you mean: --" + s
		}
	}
	var wrong *pflag.InvalidValueError
	if errors.As(err, &wrong) {
		return usage("--%s is %q: %s; %s", wrong.GetFlag().Name, wrong.GetValue(), wrongValue(wrong), hint)
	}
	return usage("%w; %s", err, hint)
}

// wrongValue says in words what the flag wants.
func wrongValue(e *pflag.InvalidValueError) string {
	switch e.GetFlag().Value.Type() {
	case "int":
		return "expected a whole number"
	case "bool":
		return "expected true or false"
	case "duration":
		return "expected a duration such as 250ms or 1m30s"
	}
	return e.Unwrap().Error()
}

func usage(format string, args ...any) error {
	return exitcode.With(exitcode.Usage, fmt.Errorf(format, args...))
}

// exactly refuses any number of arguments but n, saying what they are.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		if n == 0 {
			return usage("%s takes no arguments, got %q; see: %s --help", cmd.CommandPath(), args, cmd.CommandPath())
		}
		return usage("%s wants %s; see: %s --help", cmd.CommandPath(), what, cmd.CommandPath())
	}
}

// supervision finds the tree, becomes its user, and returns it.
func (o *options) supervision() (*app.Supervision, error) {
	s, err := app.FindSupervision(os.LookupEnv)
	if err != nil {
		return nil, err
	}
	notice, err := s.Enter()
	if notice != "" {
		fmt.Fprintln(o.err, notice)
	}
	return s, err
}

// profileName is a flag that must not be empty: a script whose variable is unset
// would command another gateway than it means.
type profileName string

func (*profileName) Type() string     { return "string" }
func (n *profileName) String() string { return string(*n) }

func (n *profileName) Set(s string) error {
	if s == "" {
		return errors.New("a profile has a name; leave the flag out for default")
	}
	*n = profileName(s)
	return nil
}

// target is the profile that -p names, and the tree around it.
func (o *options) target() (*app.Supervision, profile.Profile, error) {
	s, err := o.supervision()
	if err != nil {
		return nil, profile.Profile{}, err
	}
	p, err := profile.Find(s.Home, o.profile)
	return s, p, err
}

// interactive is target for a command that only looks or talks: without -p it
// means the profile that `profile use` chose.
func (o *options) interactive() (*app.Supervision, profile.Profile, error) {
	if o.profile != "" {
		return o.target()
	}
	s, err := o.supervision()
	if err != nil {
		return nil, profile.Profile{}, err
	}
	name, err := profile.InUse(s.Home)
	if err != nil {
		return nil, profile.Profile{}, err
	}
	p, err := profile.Find(s.Home, name)
	if err != nil {
		err = exitcode.With(exitcode.NoSuch, fmt.Errorf("%w (profile %q is in use); choose another with: hermes profile use default", err, name))
	}
	return s, p, err
}

func completeProfiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	s, err := app.FindSupervision(os.LookupEnv)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	profiles, err := profile.List(s.Home)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, p := range profiles {
		names = append(names, p.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
