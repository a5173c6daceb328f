package cli

import (
	"fmt"
	"io"
	"os/exec"
	"sort"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/buildinfo"
	"github.com/hermesgw/hermes/internal/config"
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
			s, p, err := o.interactive()
			if err != nil {
				return err
			}
			cfg, err := config.Load(config.Options{Home: p.Home, Lookup: s.LookupFor(p)})
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
