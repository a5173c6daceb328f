package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise"
)

func newProfile(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "profile", Short: "Create, look at, rename and delete profiles",
		Example: "  hermes profile create work", RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newProfileList(o), newProfileCreate(o), newProfileShow(o), newProfileUse(o), newProfileRename(o), newProfileDelete(o))
	return cmd
}

// profileRow is one row of `hermes profile list`.
type profileRow struct {
	Name  string `json:"name"`
	Home  string `json:"home"`
	InUse bool   `json:"in_use"`
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
			inUse, err := profile.InUse(s.Home)
			if err != nil {
				return err
			}
			var rows []profileRow
			for _, p := range profiles {
				rows = append(rows, profileRow{p.Name, p.Home, p.Name == inUse})
			}
			return printAs(o.out, format, rows, func(w io.Writer) error { return printProfiles(w, rows) })
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func printProfiles(w io.Writer, rows []profileRow) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		mark := ""
		if r.InUse {
			mark = "\tin use"
		}
		fmt.Fprintf(tab, "%s\t%s%s\n", r.Name, r.Home, mark)
	}
	return tab.Flush()
}

func newProfileCreate(o *options) *cobra.Command {
	var start bool
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a profile: a home, a port and a slot of its own",
		Long: `Create a profile: a home below the data directory, and in its .env an API port
that no other profile has. In a container its slot is registered at once, wanted
down; --start starts it.`,
		Example: "  hermes profile create work\n  hermes profile create family --start",
		Args:    exactly(1, "one NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := o.supervision()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), app.WaitLimit)
			defer cancel()
			return createProfile(ctx, o.out, s, args[0], start)
		},
	}
	cmd.Flags().BoolVar(&start, "start", false, "start its gateway, and wait until it is ready")
	return cmd
}

func createProfile(ctx context.Context, w io.Writer, s *app.Supervision, name string, start bool) error {
	if start { // refused before anything is made
		if _, err := s.Manager("cli"); err != nil {
			return err
		}
	}
	p, port, slot, err := s.CreateProfile(ctx, "cli", name)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "created profile %q in %s, API port %d\n", p.Name, p.Home, port)
	switch {
	case start:
		m, err := s.Manager("cli")
		if err == nil {
			err = s.StartGateway(ctx, m, p, nil, true)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: ready\n", supervise.GatewayName(p.Name))
	case slot:
		fmt.Fprintf(w, "%s: registered and down; next: hermes -p %s gateway start\n", supervise.GatewayName(p.Name), p.Name)
	default:
		fmt.Fprintf(w, "next: hermes -p %s gateway run\n", p.Name)
	}
	return nil
}

// profileReport is what `hermes profile show` prints. It holds no secret.
type profileReport struct {
	Name   string          `json:"name"`
	Home   string          `json:"home"`
	InUse  bool            `json:"in_use"`
	API    *string         `json:"api"` // address; null before a port is assigned
	State  supervise.State `json:"state"`
	Reason string          `json:"reason"`
	Want   supervise.Want  `json:"want"`
	Intent *intent.Intent  `json:"intent"` // what is kept in intent.json; null when nobody asked yet
	Model  string          `json:"model"`
}

func newProfileShow(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "show [NAME]", Short: "Show a profile's home, API address, state, intent and model",
		Example:           "  hermes profile show\n  hermes profile show work -o json",
		Args:              atMostOne,
		ValidArgsFunction: completeProfile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.profile = args[0]
			}
			s, p, err := o.interactive()
			if err != nil {
				return err
			}
			r, err := reportProfile(cmd.Context(), s, p)
			if err != nil {
				return err
			}
			return printAs(o.out, format, r, func(w io.Writer) error { return printProfile(w, r) })
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage("%s wants at most one NAME; see: %s --help", cmd.CommandPath(), cmd.CommandPath())
	}
	return nil
}

func reportProfile(ctx context.Context, s *app.Supervision, p profile.Profile) (profileReport, error) {
	r := profileReport{Name: p.Name, Home: p.Home}
	cfg, err := config.Load(config.Options{Home: p.Home, Lookup: s.LookupFor(p)})
	if err != nil {
		return r, err
	}
	i, asked, err := intent.Read(p.Home)
	if err != nil {
		return r, err
	}
	if asked {
		r.Intent = &i
	}
	inUse, err := profile.InUse(s.Home)
	if err != nil {
		return r, err
	}
	g, err := s.Gateway(ctx, p)
	if err != nil {
		return r, err
	}
	r.InUse = inUse == p.Name
	r.State, r.Reason, r.Want = g.Service.State, g.Service.Reason, g.Service.Want
	r.API, r.Model = apiAddress(s, p, cfg, g.Address), g.Model
	if r.Model == "" {
		r.Model = strings.TrimSpace(cfg.Model().Provider + " " + cfg.Model().Name)
	}
	return r, nil
}

// apiAddress is where the API listens or would; nil while that is open.
func apiAddress(s *app.Supervision, p profile.Profile, cfg *config.Config, running string) *string {
	if running != "" {
		return &running
	}
	if cfg.Source("api_server.port").Kind == config.FromDefault && !s.OwnsEnvironment(p) {
		return nil
	}
	address := net.JoinHostPort(cfg.API().Host, strconv.Itoa(cfg.API().Port))
	return &address
}

func printProfile(w io.Writer, r profileReport) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	name, api, state, asked := r.Name, "a port is assigned at its first start", string(r.State), "nobody asked yet"
	if r.InUse {
		name += " (in use)"
	}
	if r.API != nil {
		api = "http://" + *r.API
	}
	if r.Reason != "" {
		state += ": " + r.Reason
	}
	if i := r.Intent; i != nil {
		asked = i.String()
	}
	for _, row := range [][2]string{
		{"name", name},
		{"home", r.Home},
		{"API", api},
		{"state", state},
		{"wanted", asked},
		{"model", r.Model},
	} {
		fmt.Fprintf(tab, "%s\t%s\n", row[0], row[1])
	}
	return tab.Flush()
}

func newProfileUse(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Choose the profile that chat, status, logs and show mean without -p",
		Long: `Choose the profile that commands which only look or talk mean without -p: chat,
gateway status, gateway logs, config show, profile show. It never changes what
gateway run, start, stop and restart, a slot or a boot of the container do: those
go by -p alone.`,
		Example: "  hermes profile use work\n  hermes profile use default",
		Args:    exactly(1, "one NAME"), ValidArgsFunction: completeProfile,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := o.supervision()
			if err != nil {
				return err
			}
			p, err := s.UseProfile(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(o.out, "chat, status, logs and show now mean profile %q; start, stop and restart go by -p alone\n", p.Name)
			return nil
		},
	}
}

func newProfileRename(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "rename OLD NEW", Short: "Rename a profile; its gateway is stopped for it and started again",
		Example: "  hermes profile rename work office",
		Args:    exactly(2, "OLD and NEW"), ValidArgsFunction: completeProfile,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := o.supervision()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), app.WaitLimit)
			defer cancel()
			p, note, err := s.RenameProfile(ctx, "cli", args[0], args[1])
			if note != "" {
				fmt.Fprintln(o.err, "hermes: "+note)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(o.out, "profile %q is now %q in %s\n", args[0], p.Name, p.Home)
			return nil
		},
	}
}

func newProfileDelete(o *options) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Stop and remove a profile and all its data, after asking",
		Long: `Stop the gateway of a profile, remove its slot, its home (settings, secrets,
conversations) and its logs. It asks first; without a terminal it wants --yes.`,
		Example: "  hermes profile delete work\n  hermes profile delete work --yes",
		Args:    exactly(1, "one NAME"), ValidArgsFunction: completeProfile,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := o.supervision()
			if err != nil {
				return err
			}
			p, err := s.Deletable(args[0])
			if err != nil {
				return err
			}
			if !yes {
				if err := o.confirmDelete(p); err != nil {
					return err
				}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), app.WaitLimit)
			defer cancel()
			if err := s.DeleteProfile(ctx, "cli", p.Name); err != nil {
				return err
			}
			fmt.Fprintf(o.out, "deleted profile %q\n", p.Name)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// confirmDelete asks whoever sits at the terminal to type the name.
func (o *options) confirmDelete(p profile.Profile) error {
	if f, ok := o.in.(*os.File); !ok || !isTerminal(f) {
		return usage("profile %q is not deleted: there is no terminal to ask on; to delete %s and all that is in it give --yes", p.Name, p.Home)
	}
	fmt.Fprintf(o.out, "This deletes %s with its settings, secrets and conversations, and its logs.\nType the name of the profile to go on: ", p.Home)
	answer, _ := bufio.NewReader(o.in).ReadString('\n') // an end of input is no answer
	if strings.TrimSpace(answer) != p.Name {
		return fmt.Errorf("profile %q is not deleted: its name was not typed", p.Name)
	}
	return nil
}

// completeProfile completes a first argument that names a profile.
func completeProfile(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeProfiles(cmd, args, word)
}
