package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/s6slots"
)

// addOutput adds -o to a command that prints a table.
func addOutput(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "output", "o", "text", "output format: text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// printAs prints v as JSON or lets text print it.
func printAs(w io.Writer, format string, v any, text func(io.Writer) error) error {
	switch format {
	case "text":
		return text(w)
	case "json":
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	return usage("unknown output format %q; use -o text or -o json", format)
}

func newGatewayStatus(o *options) *cobra.Command {
	var all bool
	var format string
	cmd := &cobra.Command{
		Use: "status", Short: "Show state, restarts, last exit and memory", Args: exactly(0, ""),
		Long: `Show the gateway of the profile: state, since when, restarts, last exit and
its reason, pid, memory, platforms. --all shows every slot: other profiles, the
dashboard and services of your own. Exits 0 whenever it could tell.`,
		Example: "  hermes gateway status\n  hermes gateway status --all -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, p, err := o.interactive()
			if err != nil {
				return err
			}
			var report supervise.Report
			if all {
				report, err = s.Report(cmd.Context(), true)
			} else {
				report, err = s.ReportOf(cmd.Context(), p)
			}
			if err != nil {
				return err
			}
			return printAs(o.out, format, report, func(w io.Writer) error { return printReport(w, report, s.Where(), time.Now()) })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every slot")
	addOutput(cmd, &format)
	return cmd
}

func newGatewayList(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list", Short: "List the gateways of all profiles", Args: exactly(0, ""),
		Example: "  hermes gateway list\n  hermes gateway list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.supervision()
			if err != nil {
				return err
			}
			report, err := s.Report(cmd.Context(), false)
			if err != nil {
				return err
			}
			return printAs(o.out, format, report, func(w io.Writer) error { return printList(w, report) })
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func printList(w io.Writer, report supervise.Report) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "PROFILE\tSTATE\tWANT")
	for _, s := range report.Services {
		fmt.Fprintf(tab, "%s\t%s\t%s\n", *s.Profile, s.State, s.Want)
	}
	return tab.Flush()
}

// printReport prints one line per slot and, below it, what needs words.
func printReport(out io.Writer, report supervise.Report, where string, now time.Time) error {
	w := bufio.NewWriter(out) // a table of 200 rows is 4,000 writes
	fmt.Fprintf(w, "manager: %s%s\n\n", report.Manager, where)
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "NAME\tSTATE\tSINCE\tWANT\tRESTARTS\tPID\tMEMORY\tPLATFORMS\tLAST EXIT")
	for _, s := range report.Services {
		fmt.Fprintln(tab, strings.Join([]string{
			s.Name, string(s.State), ago(s.Since, now), string(s.Want), restarts(s), number(s.PID), megabytes(s.MemoryBytes),
			platforms(s.Platforms), lastExit(s.LastExit, now),
		}, "\t"))
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for _, s := range report.Services {
		if note := explain(s, now); note != "" {
			fmt.Fprintf(w, "\n%s: %s\n", s.Name, note)
		}
	}
	return w.Flush()
}

// explain is what a table cannot hold: the reason, until when, who holds it.
func explain(s supervise.Service, now time.Time) string {
	var parts []string
	if s.Reason != "" && s.Holder == nil { // of a standby it is the holder, which follows
		parts = append(parts, s.Reason)
	}
	if s.Until != nil {
		parts = append(parts, "next start in "+short(s.Until.Sub(now)))
	}
	if s.Holder != nil {
		parts = append(parts, fmt.Sprintf("held by %s since %s; this one takes over when that ends", s.Holder.Host, s.Holder.Since.UTC().Format(time.RFC3339)))
	}
	return strings.Join(parts, "; ")
}

const none = "-"

func ago(t *time.Time, now time.Time) string {
	if t == nil {
		return none
	}
	return short(now.Sub(*t)) + " ago"
}

// short is a duration in its one or two largest units.
func short(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

func restarts(s supervise.Service) string {
	if s.RequestedRestarts == 0 {
		return strconv.Itoa(s.Restarts)
	}
	return fmt.Sprintf("%d (+%d asked)", s.Restarts, s.RequestedRestarts)
}

func number(n *int) string {
	if n == nil {
		return none
	}
	return strconv.Itoa(*n)
}

func megabytes(n *int64) string {
	if n == nil {
		return none
	}
	return fmt.Sprintf("%.1f MB", float64(*n)/1e6)
}

func platforms(list []supervise.Platform) string {
	if len(list) == 0 {
		return none
	}
	var parts []string
	for _, p := range list {
		parts = append(parts, fmt.Sprintf("%s %s", p.Name, p.State))
	}
	return strings.Join(parts, ", ")
}

func lastExit(x *supervise.Exit, now time.Time) string {
	if x == nil {
		return none
	}
	asked := ""
	if x.Asked {
		asked = ", asked for"
	}
	return fmt.Sprintf("%s (%s%s)", x.Reason, ago(&x.At, now), asked)
}

// startingPatience is how long liveness lets a service start.
const startingPatience = 60 * time.Second

func newHealthcheck(o *options) *cobra.Command {
	var ready bool
	var format string
	cmd := &cobra.Command{
		Use: "healthcheck", Short: "Exit 0 if every wanted service is well, else name the culprits",
		Long: `Exit 0 if every wanted service is well. Plain (liveness, the image's
HEALTHCHECK): ready, degraded, standby, draining, stopping, or starting for less
than 60 s. With --ready (readiness): only ready and degraded count. Else exit 1
and one line per culprit. It speaks for the container; whether one gateway would
answer a message now, its own /readyz says.`,
		Example: "  hermes healthcheck\n  hermes healthcheck --ready\n  hermes healthcheck -o json",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.supervision()
			if err != nil {
				return err
			}
			report, err := s.Report(cmd.Context(), true)
			if err != nil {
				return err
			}
			h := health{Schema: healthSchema, Culprits: s6slots.Culprits(report, ready, startingPatience, time.Now())}
			if !s.Live() && !anyProcess(report) {
				h.Reason = "nothing is running here: no supervisor and no gateway; start one with: hermes gateway run"
			}
			h.Well = len(h.Culprits) == 0 && h.Reason == ""
			if err := printAs(o.out, format, h, func(io.Writer) error { return printHealth(o.err, h) }); err != nil || h.Well {
				return err
			}
			return exitcode.Silent(exitcode.Failed)
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "readiness: only what serves counts")
	addOutput(cmd, &format)
	return cmd
}

// health is what `hermes healthcheck -o json` prints.
type health struct {
	Schema   int               `json:"schema"` // 1
	Well     bool              `json:"well"`
	Reason   string            `json:"reason"` // where it is no service's fault
	Culprits []s6slots.Culprit `json:"culprits"`
}

const healthSchema = 1

// printHealth writes a line for each culprit, to where errors go.
func printHealth(w io.Writer, h health) error {
	for _, c := range h.Culprits {
		fmt.Fprintln(w, "hermes: "+c.String())
	}
	if h.Reason != "" {
		fmt.Fprintln(w, "hermes: "+h.Reason)
	}
	return nil
}

func anyProcess(report supervise.Report) bool {
	for _, s := range report.Services {
		if s.PID != nil {
			return true
		}
	}
	return false
}
