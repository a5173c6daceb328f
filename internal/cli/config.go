package cli

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/typo"
)

func newConfig(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Look at the settings of a profile, check and change them",
		Example: "  hermes config show --sources\n  hermes config set model.timeout 5m\n  hermes config check", RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newConfigShow(o), newConfigGet(o), newConfigSet(o), newConfigEdit(o), newConfigCheck(o), newConfigSchema(o))
	return cmd
}

// settingsOf is where the gateway of p finds its settings.
func settingsOf(s *app.Supervision, p profile.Profile) config.Options {
	return config.Options{Home: p.Home, Lookup: s.LookupFor(p)}
}

func (o *options) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(o.err, "hermes: "+w)
	}
}

// settingRow is one row of `hermes config show`, and what `get` prints.
type settingRow struct {
	Name   string `json:"name"`
	Value  string `json:"value"` // <redacted> for a secret that is set
	Source string `json:"source"`
}

func newConfigShow(o *options) *cobra.Command {
	var sources bool
	var format string
	cmd := &cobra.Command{
		Use: "show", Short: "Show every setting, and where it came from", Args: exactly(0, ""),
		Example: "  hermes config show --sources\n  hermes -p work config show -o json",
		RunE: func(*cobra.Command, []string) error {
			s, p, err := o.interactive()
			if err != nil {
				return err
			}
			cfg, err := config.Load(settingsOf(s, p))
			if err != nil {
				return err
			}
			o.warn(cfg.Warnings)
			rows := settingRows(cfg)
			return printAs(o.out, format, rows, func(w io.Writer) error { return printSettings(w, rows, sources) })
		},
	}
	cmd.Flags().BoolVar(&sources, "sources", false, "show where each value came from")
	addOutput(cmd, &format)
	return cmd
}

func settingRows(cfg *config.Config) []settingRow {
	var rows []settingRow
	for _, s := range config.Settings() {
		rows = append(rows, rowOf(cfg, s))
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].Name < rows[j].Name })
	return rows
}

func rowOf(cfg *config.Config, s config.Setting) settingRow {
	value, source := cfg.Value(s.Name())
	if s.Secret && value != "" {
		value = "<redacted>"
	}
	return settingRow{s.Name(), value, sourceText(source)}
}

func sourceText(s config.Source) string {
	if s.Where == "" {
		return string(s.Kind)
	}
	return string(s.Kind) + " (" + s.Where + ")"
}

func printSettings(w io.Writer, rows []settingRow, sources bool) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		if sources {
			fmt.Fprintf(tab, "%s\t%s\t%s\n", r.Name, r.Value, r.Source)
		} else {
			fmt.Fprintf(tab, "%s\t%s\n", r.Name, r.Value)
		}
	}
	return tab.Flush()
}

func newConfigGet(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "get KEY", Short: "Print the value of one setting", Args: exactly(1, "one KEY"),
		Long: `Print the value that counts for one setting: an empty line if it has none,
<redacted> for a secret that is set.`,
		Example: "  hermes config get model.name\n  hermes config get api_server.port -o json",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeSetting(args, true)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			setting, err := findSetting(args[0])
			if err != nil {
				return err
			}
			s, p, err := o.interactive()
			if err != nil {
				return err
			}
			cfg, err := config.Load(settingsOf(s, p))
			if err != nil {
				return err
			}
			row := rowOf(cfg, setting)
			return printAs(o.out, format, row, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, row.Value)
				return err
			})
		},
	}
	addOutput(cmd, &format)
	return cmd
}

// findSetting refuses what is no key, and says which one was meant.
func findSetting(name string) (config.Setting, error) {
	s, ok := config.Find(name)
	if ok {
		return s, nil
	}
	var names []string
	for _, s := range config.Settings() {
		if slices.Contains(s.Names(), name) {
			return s, usage("%s is the variable of a setting; its key is: %s", name, s.Name())
		}
		names = append(names, s.Name())
	}
	hint := "list them with: hermes config show"
	if near := typo.Nearest(name, names); near != "" {
		hint = "did you mean: " + near
	}
	return s, usage("there is no setting %q; %s", name, hint)
}

// completeSetting offers keys and, behind one with few values, these.
func completeSetting(args []string, withContainer bool) ([]string, cobra.ShellCompDirective) {
	var offers []string
	switch {
	case len(args) == 0:
		for _, s := range config.Settings() {
			if s.Key != "" || withContainer {
				offers = append(offers, s.Name()+"\t"+s.Doc)
			}
		}
	case len(args) == 1 && !withContainer:
		s, _ := config.Find(args[0])
		offers = slices.Clone(s.Values)
		if s.Kind == config.Bool {
			offers = []string{"true", "false"}
		}
	}
	return offers, cobra.ShellCompDirectiveNoFileComp
}

// verdict is what `hermes config check -o json` prints.
type verdict struct {
	Errors   []string `json:"errors"` // each with its place
	Warnings []string `json:"warnings"`
}

func newConfigCheck(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "check", Short: "Name all that is wrong with the settings of a profile", Args: exactly(0, ""),
		Long: `Read the settings as the gateway would, all of them, and name each error and
warning with its place. Exits 78 if there is an error; warnings are none.`,
		Example: "  hermes config check\n  hermes -p work config check -o json",
		RunE: func(*cobra.Command, []string) error {
			s, p, err := o.interactive()
			if err != nil {
				return err
			}
			c, errs := config.Check(settingsOf(s, p))
			v := verdict{Errors: []string{}, Warnings: append([]string{}, c.Warnings...)}
			for _, err := range errs {
				v.Errors = append(v.Errors, err.Error())
			}
			if err := printAs(o.out, format, v, func(w io.Writer) error { return printVerdict(w, v, p) }); err != nil || len(errs) == 0 {
				return err
			}
			return exitcode.Silent(exitcode.Config) // the lines say it all
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func printVerdict(w io.Writer, v verdict, p profile.Profile) error {
	var b strings.Builder
	for _, line := range v.Errors {
		b.WriteString("error    " + line + "\n")
	}
	for _, line := range v.Warnings {
		b.WriteString("warning  " + line + "\n")
	}
	if len(v.Errors) == 0 {
		fmt.Fprintf(&b, "the settings of profile %q are right\n", p.Name)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func newConfigSchema(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON schema of config.yaml", Args: exactly(0, ""),
		Long: `Print the JSON schema (draft 2020-12) of config.yaml, for editors and pipelines.
It knows each setting by itself; hermes config check knows them as a whole.`,
		Example: "  hermes config schema > config.schema.json",
		RunE: func(*cobra.Command, []string) error {
			_, err := o.out.Write(config.Schema())
			return err
		},
	}
}
