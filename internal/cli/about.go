package cli

import (
	"fmt"
	"io"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/buildinfo"
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
