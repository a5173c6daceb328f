package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/doctor"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/profile"
)

// diagnosis is what `hermes doctor -o json` prints.
type diagnosis struct {
	Schema   int              `json:"schema"` // 1
	Healthy  bool             `json:"healthy"`
	Findings []doctor.Finding `json:"findings"`
}

const diagnosisSchema = 1

func newDoctor(o *options) *cobra.Command {
	var all, fix bool
	var format string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Find what is wrong, and what mends it", Args: exactly(0, ""),
		Long: `Look at everything that has to be right for a gateway to work: the supervisor,
the services, the volume (writable, filesystem, locks, free space), settings,
credentials, ports, the database, the clock. Each finding that is not well comes
with what mends it. Exits 1 if anything is a problem; warnings are not.

Without -p every profile is looked at: of the default one all is shown, of the
others what is not well. -p NAME looks at that profile alone, --all shows all of
every one.

--fix does what is safe: it takes the secrets in .env away from other users, and
removes temporary files that killed processes left.`,
		Example: "  hermes doctor\n  hermes doctor --all --fix\n  docker run --rm -v hermes-data:/opt/data hermes:dev doctor",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, p, err := o.target()
			if err != nil {
				return err
			}
			profiles, brief := []profile.Profile{p}, !all && o.profile == ""
			if all || brief {
				if profiles, err = profile.List(s.Home); err != nil {
					return err
				}
			}
			findings, err := s.Doctor(cmd.Context(), profiles)
			if err != nil {
				return err
			}
			if brief {
				findings = doctor.Brief(findings, p)
			}
			if fix {
				findings = mend(s, findings)
			}
			d := diagnosis{diagnosisSchema, doctor.Healthy(findings), findings}
			if err := printAs(o.out, format, d, func(w io.Writer) error { return printDiagnosis(w, d, marksFor(os.LookupEnv)) }); err != nil {
				return err
			}
			if !d.Healthy {
				return exitcode.Silent(exitcode.Failed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every profile, also what is well with it")
	cmd.Flags().BoolVar(&fix, "fix", false, "do what is safe to do about it")
	addOutput(cmd, &format)
	return cmd
}

// mend works with the rights of the volume's owner, as everything there does.
func mend(s *app.Supervision, findings []doctor.Finding) []doctor.Finding {
	_ = s.OnVolume(func() error { // it can fail only before it calls, and then nothing was mended
		findings = doctor.Mend(findings)
		return nil
	})
	return findings
}

// marks are how the severities look.
type marks struct {
	of    map[doctor.Severity]string
	arrow string
}

// marksFor uses signs where the locale has them, else words.
func marksFor(lookup func(string) (string, bool)) marks {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		locale, _ := lookup(name)
		if locale == "" {
			continue
		}
		if upper := strings.ToUpper(locale); strings.Contains(upper, "UTF-8") || strings.Contains(upper, "UTF8") {
			return marks{map[doctor.Severity]string{doctor.OK: "✓", doctor.Warning: "!", doctor.Problem: "✗"}, "→"}
		}
		break
	}
	return marks{map[doctor.Severity]string{doctor.OK: "ok  ", doctor.Warning: "warn", doctor.Problem: "FAIL"}, "->"}
}

// printDiagnosis prints a block for each group, a line for each finding.
func printDiagnosis(w io.Writer, d diagnosis, m marks) error {
	width := 0
	for _, f := range d.Findings {
		width = max(width, len(f.Name()))
	}
	group := ""
	count := map[doctor.Severity]int{}
	for _, f := range d.Findings {
		if f.Group() != group {
			if group != "" {
				fmt.Fprintln(w)
			}
			group = f.Group()
			fmt.Fprintln(w, group)
		}
		count[f.Severity]++
		fmt.Fprintf(w, "  %s %-*s  %s\n", m.of[f.Severity], width, f.Name(), findingLine(f, m))
	}
	_, err := fmt.Fprintf(w, "\n%s, %s\n", counted(count[doctor.Problem], "problem"), counted(count[doctor.Warning], "warning"))
	return err
}

func findingLine(f doctor.Finding, m marks) string {
	text := f.What
	if f.Profile != nil && *f.Profile != profile.Default {
		text = *f.Profile + ": " + text
	}
	switch {
	case f.Fixed:
		return text + " " + m.arrow + " mended"
	case f.Fix != "":
		return text + " " + m.arrow + " " + f.Fix
	}
	return text
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
