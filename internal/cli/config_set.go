package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/early"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/profile"
)

// maxValue bounds a value from a file or stdin, in bytes, as that of a secret
// file is bounded.
const maxValue = 64 << 10

// configSet is `hermes config set`.
type configSet struct {
	*options
	unset bool
	file  string // "-": stdin
}

func newConfigSet(o *options) *cobra.Command {
	c := configSet{options: o}
	cmd := &cobra.Command{
		Use: "set KEY [VALUE]", Short: "Change one setting of a profile, or remove it", Args: oneOrTwo,
		Long: `Write one setting: a secret, and what stands there already, into the profile's
.env (0600), all else into its config.yaml. Comments, order and formatting stay.
Nothing is written unless all settings are right with the change.

A secret is never an argument, which other processes could read: give it with
--from-file, or on stdin with --from-file -. Without -p it is the profile
"default" that is changed, whatever "profile use" chose.`,
		Example: `  hermes config set model.timeout 5m
  hermes -p work config set irc.channels '#help,#talk'
  hermes config set model.api_key --from-file - < key
  hermes config set model.name --unset`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeSetting(args, false)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVar(&c.unset, "unset", false, "remove the setting from the files of the profile")
	cmd.Flags().StringVar(&c.file, "from-file", "", "read the value from `FILE`; - is stdin")
	return cmd
}

func oneOrTwo(cmd *cobra.Command, args []string) error {
	if len(args) == 1 || len(args) == 2 {
		return nil
	}
	return usage("%s wants KEY and VALUE; see: %s --help", cmd.CommandPath(), cmd.CommandPath())
}

func (c *configSet) run(ctx context.Context, args []string) error {
	setting, err := findSetting(args[0])
	if err != nil {
		return err
	}
	value, err := c.value(setting, args[1:])
	if err != nil {
		return err
	}
	s, p, err := c.target()
	if err != nil {
		return err
	}
	if setting.Global() && p.Name != profile.Default {
		return usage("%s belongs to the container and is read from the profile %q; leave out -p", setting.Name(), profile.Default)
	}
	return s.ChangeSettings(ctx, func() error {
		change, err := c.prepare(settingsOf(s, p), setting.Name(), value)
		if err != nil {
			return err
		}
		if err := change.Write(); err != nil {
			return err
		}
		c.report(p, setting, change)
		return nil
	})
}

func (c *configSet) prepare(o config.Options, name, value string) (*config.Change, error) {
	if c.unset {
		return config.Unset(o, name)
	}
	return config.Set(o, name, value)
}

// value is the new value: the argument, a file or stdin.
func (c *configSet) value(s config.Setting, args []string) (string, error) {
	given := len(args) > 0
	switch {
	case c.unset && (given || c.file != ""), given && c.file != "":
		return "", usage("give one of VALUE, --from-file and --unset")
	case c.unset:
		return "", nil
	case given && s.Secret:
		return "", usage("%s is a secret, and other processes can read arguments; give it with: --from-file FILE, or on stdin with: --from-file -", s.Name())
	case given:
		return args[0], nil
	case c.file == "":
		return "", usage("%s: there is no value; give it as an argument, with --from-file, or remove the setting with --unset", s.Name())
	}
	return c.readValue()
}

// readValue reads the file without its last newline.
func (c *configSet) readValue() (string, error) {
	in := c.in
	if c.file != "-" {
		f, err := os.Open(c.file)
		if err != nil {
			return "", fmt.Errorf("cannot read the value: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxValue+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read the value: %w", err)
	case len(data) > maxValue:
		return "", usage("expected a value of at most %d bytes, found more", maxValue)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}

// standing says what a setting is when nobody sets it in the files.
func standing(row settingRow) string {
	if row.Value == "" {
		return "not set"
	}
	return fmt.Sprintf("%q: %s", row.Value, row.Source)
}

// report says what was written, whether it counts, and from when on.
func (c *configSet) report(p profile.Profile, setting config.Setting, change *config.Change) {
	c.warn(change.Config.Warnings)
	row := rowOf(change.Config, setting)
	source := change.Config.Source(setting.Name())
	written := change.Paths()
	switch {
	case len(written) == 0 && c.unset:
		fmt.Fprintf(c.out, "%s is in no file of profile %q; it is %s\n", row.Name, p.Name, standing(row))
	case len(written) == 0:
		fmt.Fprintf(c.out, "%s stands so already\n", row.Name)
	case c.unset:
		fmt.Fprintf(c.out, "removed %s from %s; now it is %s\n", row.Name, strings.Join(written, " and "), standing(row))
	default:
		fmt.Fprintf(c.out, "set %s in %s\n", row.Name, strings.Join(written, " and "))
	}
	if source.Kind == config.FromEnvironment {
		fmt.Fprintf(c.err, "hermes: the environment variable %s overrides what the files say of %s\n", source.Where, row.Name)
	}
	if len(written) > 0 {
		c.saySince(p, setting.Global())
	}
}

// saySince says from when on a change counts: settings are read at the start.
func (o *options) saySince(p profile.Profile, global bool) {
	if global {
		fmt.Fprintln(o.out, "it counts from the next start of the container")
		return
	}
	fmt.Fprintf(o.out, "it counts after: %s\n", commandFor(p, "gateway restart"))
}

func commandFor(p profile.Profile, words string) string {
	if p.Name == profile.Default {
		return "hermes " + words
	}
	return "hermes -p " + p.Name + " " + words
}

func newConfigEdit(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "edit", Short: "Edit config.yaml of a profile, checked before it counts", Args: exactly(0, ""),
		Long: `Open a copy of the profile's config.yaml in $VISUAL or $EDITOR (else vi). When the
editor ends, all settings are checked; only if they are right does the copy take
the place of the file, in one step. If not, you may go on editing, or leave: then
the file stays as it was and your copy is kept. Secrets: hermes config set.`,
		Example: "  hermes config edit\n  EDITOR=nano hermes -p work config edit",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, p, err := o.target()
			if err != nil {
				return err
			}
			return o.edit(cmd.Context(), s, p)
		},
	}
}

func (o *options) edit(ctx context.Context, s *app.Supervision, p profile.Profile) error {
	var before []byte
	err := s.OnVolume(func() (err error) {
		before, err = os.ReadFile(config.Path(p.Home))
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot read settings: %w", err)
	}
	d, err := newDraft(o, before)
	if err != nil {
		return err
	}
	change, err := d.finish(settingsOf(s, p))
	if err != nil || change == nil {
		return err
	}
	if err := s.ChangeSettings(ctx, change.Write); err != nil {
		return fmt.Errorf("%w; what you wrote is in %s", err, d.path)
	}
	d.remove()
	o.warn(change.Config.Warnings)
	fmt.Fprintf(o.out, "wrote %s\n", config.Path(p.Home))
	o.saySince(p, false)
	return nil
}

// finish lets the user edit until the settings are right; nil without an error
// if nothing was changed.
func (d *draft) finish(o config.Options) (*config.Change, error) {
	for {
		data, err := d.open()
		if err != nil {
			return nil, err
		}
		if bytes.Equal(data, d.before) {
			d.remove()
			fmt.Fprintln(d.o.out, "nothing was changed")
			return nil, nil
		}
		change, errs := config.Replace(o, d.before, data)
		if len(errs) == 0 {
			return change, nil
		}
		for _, err := range errs {
			fmt.Fprintln(d.o.err, "hermes: "+early.OneLine(err))
		}
		if !d.again() {
			return nil, exitcode.With(exitcode.Config, fmt.Errorf("%s was not changed; what you wrote is in %s", config.Path(o.Home), d.path))
		}
	}
}
