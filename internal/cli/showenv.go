package cli

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/app"
)

func newGatewayShowEnv(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "show-env", Short: "Show which variables and settings a gateway sees, and from where", Args: exactly(0, ""),
		Long: `Show the names of the variables and settings that the gateway of the profile
sees at its next start, and where each value comes from: container, slot, .env,
config.yaml, _FILE or default. Then the names that are withheld from it, and why.
Values are never shown.`,
		Example: "  hermes gateway show-env\n  hermes -p work gateway show-env -o json",
		RunE: func(*cobra.Command, []string) error {
			s, p, err := o.target()
			if err != nil {
				return err
			}
			e, err := s.Environment(p)
			if err != nil {
				return err
			}
			return printAs(o.out, format, e, func(w io.Writer) error { return printEnvironment(w, e) })
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func printEnvironment(w io.Writer, e app.GatewayEnvironment) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, v := range e.Variables {
		source := v.Source
		if v.Where != "" {
			source += " (" + visible(v.Where) + ")"
		}
		fmt.Fprintf(tab, "%s\t%s\n", visible(v.Name), source)
	}
	for _, v := range e.Withheld {
		fmt.Fprintf(tab, "%s\twithheld: %s\n", visible(v.Name), v.Reason)
	}
	return tab.Flush()
}
