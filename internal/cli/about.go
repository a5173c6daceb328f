package cli

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/buildinfo"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/profile"
)

// versionReport is what `hermes version -o json` prints.
type versionReport struct {
	buildinfo.Info
	S6 *string `json:"s6"` // path of s6-svscan, null where there is none
}

func newVersion(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "version", Short: "Show version, commit, toolchain and the s6 that was found", Args: exactly(0, ""),
		Example: "  hermes version\n  hermes version -o json",
		RunE: func(*cobra.Command, []string) error {
			r := versionReport{Info: buildinfo.Get()}
			if path, err := exec.LookPath("s6-svscan"); err == nil {
				r.S6 = &path
			}
			return printAs(o.out, format, r, func(w io.Writer) error { return printVersion(w, r) })
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func printVersion(w io.Writer, r versionReport) error {
	commit, s6 := "unknown", "none"
	if r.Commit != "" {
		commit = r.Commit
	}
	if r.Dirty {
		commit += " (with changes)"
	}
	if r.S6 != nil {
		s6 = *r.S6
	}
	_, err := fmt.Fprintf(w, "hermes %s\ncommit %s\n%s %s/%s\ns6     %s\n", r.Version, commit, r.Go, r.OS, r.Arch, s6)
	return err
}

func newConfig(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Look at the settings of a profile",
		Example: "  hermes config show --sources", RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newConfigShow(o))
	return cmd
}

// settingRow is one row of `hermes config show`.
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
			_, p, err := o.target()
			if err != nil {
				return err
			}
			cfg, err := config.Load(config.Options{Home: p.Home, Lookup: os.LookupEnv})
			if err != nil {
				return err
			}
			for _, w := range cfg.Warnings {
				fmt.Fprintln(o.err, "hermes: "+w)
			}
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
		value, source := cfg.Value(s.Name())
		if s.Secret && value != "" {
			value = "<redacted>"
		}
		rows = append(rows, settingRow{s.Name(), value, sourceText(source)})
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].Name < rows[j].Name })
	return rows
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

func newProfile(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "profile", Short: "List and create profiles",
		Example: "  hermes profile create work", RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newProfileList(o), newProfileCreate(o))
	return cmd
}

// profileRow is one row of `hermes profile list`.
type profileRow struct {
	Name string `json:"name"`
	Home string `json:"home"`
}

func newProfileList(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list", Short: "List the profiles and their homes", Args: exactly(0, ""),
		Example: "  hermes profile list\n  hermes profile list -o json",
		RunE: func(*cobra.Command, []string) error {
			s, err := o.supervision()
			if err != nil {
				return err
			}
			profiles, err := profile.List(s.Home)
			if err != nil {
				return err
			}
			var rows []profileRow
			for _, p := range profiles {
				rows = append(rows, profileRow(p))
			}
			return printAs(o.out, format, rows, func(w io.Writer) error {
				tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				for _, r := range rows {
					fmt.Fprintf(tab, "%s\t%s\n", r.Name, r.Home)
				}
				return tab.Flush()
			})
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func newProfileCreate(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "create NAME", Short: "Create a profile: a home of its own below the data directory",
		Example: "  hermes profile create work && hermes -p work gateway start",
		Args:    exactly(1, "one NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := o.supervision()
			if err != nil {
				return err
			}
			var p profile.Profile
			err = s.OnVolume(func() (err error) {
				p, err = profile.Create(s.Home, args[0])
				return err
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(o.out, "created profile %q in %s; give it a port of its own (API_SERVER_PORT in %s/.env), then: hermes -p %s gateway start\n",
				p.Name, p.Home, p.Home, p.Name)
			return nil
		},
	}
}
