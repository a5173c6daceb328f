package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/admin"
	"github.com/hermesgw/hermes/internal/app"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/outbox"
)

// operate runs f at the operator's door of the profile.
func (o *options) operate(ctx context.Context, f func(*app.Operator) error) error {
	s, p, err := o.interactive()
	if err != nil {
		return err
	}
	door, err := s.Operator(ctx, p)
	if err != nil {
		return err
	}
	defer door.Close()
	return f(door)
}

// me is who gives a command, for the audit log.
func me() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}

func newTrace(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "trace MESSAGE-ID", Short: "Show what became of a message: every stage, with times",
		Long: `Show every stage of one message: received, policy, queued, each call of the model
with its retries, stored, each try to deliver. MESSAGE-ID is what the gateway
gave it (msg_…, run_…), the id of a delivery of its answer (dlv_…), the
Idempotency-Key or the platform's own id.`,
		Example: "  hermes trace msg_5kq2…\n  hermes trace run_7hd1… -o json", Args: exactly(1, "one MESSAGE-ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				var t admin.Trace
				if err := door.Call(cmd.Context(), http.MethodGet, "trace/"+url.PathEscape(args[0]), nil, &t); err != nil {
					return err
				}
				return printAs(o.out, format, t, func(w io.Writer) error { return printTrace(w, t) })
			})
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func printTrace(w io.Writer, t admin.Trace) error {
	fmt.Fprintf(w, "%s  %s", t.ID, t.State)
	if t.Reason != "" {
		fmt.Fprintf(w, " (%s)", t.Reason)
	}
	fmt.Fprintf(w, "\nconversation %s, chat %s\nreceived %s\n\n", t.Session, t.Chat, t.Received.Format(time.RFC3339Nano))
	for _, m := range t.Timeline {
		fmt.Fprintf(w, "%+10.3f s  %-9s  %s\n", m.After, m.Stage, m.What)
	}
	switch {
	case t.Waiting != "":
		fmt.Fprintf(w, "\nIt waits %s.\n", t.Waiting)
	case t.State == "failed" && t.Settled == "" && t.Reason != "cancelled":
		fmt.Fprintf(w, "\nTry it again with: hermes deadletter replay %s\n", t.ID)
	}
	return nil
}

func newDeadletter(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "deadletter", Short: "See to messages that were not answered or not delivered",
		Long: `Dead letters are messages that were accepted and could not be answered, and
answers that could not be delivered. Each stays until somebody replays or drops it.`,
		Example: "  hermes deadletter list\n  hermes deadletter replay --all", RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newDeadletterList(o), newDeadletterShow(o),
		newDeadletterDo(o, "replay", "Answer a message again, or deliver an answer again", "replayed"),
		newDeadletterDo(o, "drop", "Take a dead letter off the list", "dropped"))
	return cmd
}

func newDeadletterList(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list", Short: "List the dead letters, the oldest first", Args: exactly(0, ""),
		Example: "  hermes deadletter list\n  hermes -p work deadletter list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				var list []admin.Letter
				if err := door.Call(cmd.Context(), http.MethodGet, "deadletters", nil, &list); err != nil {
					return err
				}
				return printAs(o.out, format, list, func(w io.Writer) error { return printLetters(w, list) })
			})
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func printLetters(w io.Writer, list []admin.Letter) error {
	if len(list) == 0 {
		fmt.Fprintln(w, "There are no dead letters.")
		return nil
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "ID\tGIVEN UP\tTRIES\tCHAT\tWHY")
	for _, l := range list {
		why := l.Error
		if l.Reason != "" {
			why = l.Reason + ": " + why
		}
		fmt.Fprintf(tab, "%s\t%s\t%d\t%s\t%s\n", l.ID, l.At.Format(time.DateTime), l.Tries, l.Chat, brief(why))
	}
	return tab.Flush()
}

// brief makes one line that a table can bear.
func brief(text string) string {
	const most = 80
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

func newDeadletterShow(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show a dead letter whole", Args: exactly(1, "one ID"),
		Example: "  hermes deadletter show msg_5kq2…",
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				var l admin.Letter
				if err := door.Call(cmd.Context(), http.MethodGet, "deadletters/"+url.PathEscape(args[0]), nil, &l); err != nil {
					return err
				}
				return printAs(o.out, format, l, func(w io.Writer) error {
					return printLetter(w, l)
				})
			})
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func printLetter(w io.Writer, l admin.Letter) error {
	fmt.Fprintf(w, "%s (%s), given up %s, tries: %d\n", l.ID, l.Kind, l.At.Format(time.RFC3339), l.Tries)
	for _, f := range [][2]string{
		{"to", l.Message}, {"chat", l.Chat}, {"sender", l.Sender}, {"why", strings.TrimPrefix(l.Reason+": "+l.Error, ": ")},
	} {
		if f[1] != "" {
			fmt.Fprintf(w, "%-6s %s\n", f[0], f[1])
		}
	}
	fmt.Fprintf(w, "\n%s\n", l.Text)
	if l.Kind == "message" || l.Message != "" {
		fmt.Fprintf(w, "\nHow it came to this: hermes trace %s\n", l.ID)
	}
	return nil
}

func newDeadletterDo(o *options, verb, help, done string) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: verb + " [ID…]", Short: help,
		Example: "  hermes deadletter " + verb + " msg_5kq2…\n  hermes deadletter " + verb + " --all", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usage("say which: an ID, or --all; hermes deadletter list shows them")
			}
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				ids := args
				if all {
					var list []admin.Letter
					if err := door.Call(cmd.Context(), http.MethodGet, "deadletters", nil, &list); err != nil {
						return err
					}
					if len(list) == 0 {
						return printLetters(o.out, list)
					}
					for _, l := range list {
						ids = append(ids, l.ID)
					}
				}
				return forEach(o, ids, func(id string) (string, error) {
					var d admin.Done
					err := door.Call(cmd.Context(), http.MethodPost, "deadletters/"+url.PathEscape(id)+"/"+verb, nil, &d)
					if d.New != "" {
						return done + " as " + d.New, err
					}
					return done, err
				})
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all that there are")
	return cmd
}

// forEach does f for every id, goes on past failures, and fails if one failed.
func forEach(o *options, ids []string, f func(id string) (string, error)) error {
	var last error
	failed := 0
	for _, id := range ids {
		said, err := f(id)
		if err != nil {
			failed, last = failed+1, err
			if len(ids) > 1 {
				fmt.Fprintf(o.err, "%s: %v\n", id, err)
			}
			continue
		}
		fmt.Fprintf(o.out, "%s: %s\n", id, said)
	}
	switch {
	case failed == 0:
		return nil
	case len(ids) == 1:
		return last
	default:
		return fmt.Errorf("%d of %d failed", failed, len(ids))
	}
}

func newPairing(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "pairing", Short: "Let people on chat platforms in",
		Long: `Who is not let in by the settings and writes to the bot gets a pairing code of
eight characters, good for an hour. Approving it lets that sender in.`,
		Example: "  hermes pairing list\n  hermes pairing approve 7KX94Y7Q", RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newPairingList(o), newPairingApprove(o), newPairingRevoke(o))
	return cmd
}

func newPairingList(o *options) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "list", Short: "List who waits to be let in, and who was", Args: exactly(0, ""),
		Example: "  hermes pairing list\n  hermes pairing list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				var list []admin.Pairing
				if err := door.Call(cmd.Context(), http.MethodGet, "pairings", nil, &list); err != nil {
					return err
				}
				return printAs(o.out, format, list, func(w io.Writer) error { return printPairings(w, list) })
			})
		},
	}
	addOutput(cmd, &format)
	return cmd
}

func printPairings(w io.Writer, list []admin.Pairing) error {
	if len(list) == 0 {
		fmt.Fprintln(w, "Nobody waits to be let in, and nobody was let in by a code.")
		return nil
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "STATE\tCODE\tSENDER\tNAME\tSINCE\tBY")
	for _, p := range list {
		code := p.Code
		if code == "" {
			code = "-"
		}
		fmt.Fprintf(tab, "%s\t%s\t%s:%s\t%s\t%s\t%s\n", p.State, code, p.Platform, p.Sender, p.Name, p.Since.Format(time.DateTime), p.By)
	}
	return tab.Flush()
}

func newPairingApprove(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "approve CODE", Short: "Let the sender of a code in", Args: exactly(1, "one CODE"),
		Example: "  hermes pairing approve 7KX94Y7Q",
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				var p admin.Pairing
				path := "pairings/" + url.PathEscape(args[0]) + "/approve?by=" + url.QueryEscape(me())
				if err := door.Call(cmd.Context(), http.MethodPost, path, nil, &p); err != nil {
					return err
				}
				_, err := fmt.Fprintf(o.out, "let in: %s:%s (%s)\n", p.Platform, p.Sender, p.Name)
				return err
			})
		},
	}
}

func newPairingRevoke(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "revoke PLATFORM:SENDER", Short: "Take back what a code gave", Args: exactly(1, "one PLATFORM:SENDER"),
		Example: "  hermes pairing revoke irc:account:alice",
		RunE: func(cmd *cobra.Command, args []string) error {
			platform, sender, ok := strings.Cut(args[0], ":")
			if !ok || platform == "" || sender == "" {
				return usage("want PLATFORM:SENDER as hermes pairing list shows it, got %q", args[0])
			}
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				q := url.Values{"platform": {platform}, "sender": {sender}, "by": {me()}}
				if err := door.Call(cmd.Context(), http.MethodPost, "paired/revoke?"+q.Encode(), nil, nil); err != nil {
					return err
				}
				_, err := fmt.Fprintf(o.out, "not let in any more: %s\n", args[0])
				return err
			})
		},
	}
}

func newSessions(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "sessions", Short: "Look at the conversations of a profile, and remove them",
		Example: "  hermes sessions list\n  hermes sessions show notes", RunE: group, Args: cobra.ArbitraryArgs,
	}
	cmd.AddCommand(newSessionsList(o), newSessionsShow(o), newSessionsRemove(o))
	return cmd
}

func newSessionsList(o *options) *cobra.Command {
	var format, after string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List conversations, the last used first", Args: exactly(0, ""),
		Example: "  hermes sessions list\n  hermes sessions list -n 200 -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				var list []admin.SessionInfo
				q := url.Values{"limit": {strconv.Itoa(limit)}, "after": {after}}
				if err := door.Call(cmd.Context(), http.MethodGet, "sessions?"+q.Encode(), nil, &list); err != nil {
					return err
				}
				return printAs(o.out, format, list, func(w io.Writer) error { return printSessions(w, list, limit) })
			})
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", 50, "how many, 1 to 1000")
	cmd.Flags().StringVar(&after, "after", "", "go on after the conversation of this ID")
	addOutput(cmd, &format)
	return cmd
}

func printSessions(w io.Writer, list []admin.SessionInfo, limit int) error {
	if len(list) == 0 {
		fmt.Fprintln(w, "There are no conversations.")
		return nil
	}
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "ID\tLAST\tMESSAGES\tCHAT\tBEGINS")
	for _, s := range list {
		fmt.Fprintf(tab, "%s\t%s\t%d\t%s\t%s\n", s.ID, s.Last.Format(time.DateTime), s.Messages, s.Chat, brief(s.Title))
	}
	if err := tab.Flush(); err != nil || len(list) < limit {
		return err
	}
	_, err := fmt.Fprintf(w, "There may be more: hermes sessions list --after %s\n", list[len(list)-1].ID)
	return err
}

func newSessionsShow(o *options) *cobra.Command {
	var format string
	var limit int
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show what was said in a conversation", Args: exactly(1, "one ID"),
		Example: "  hermes sessions show notes\n  hermes sessions show notes -n 10",
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				var list []admin.Said
				if err := door.Call(cmd.Context(), http.MethodGet, "sessions/"+url.PathEscape(args[0])+"?limit="+strconv.Itoa(limit), nil, &list); err != nil {
					return err
				}
				return printAs(o.out, format, list, func(w io.Writer) error {
					for _, s := range list {
						fmt.Fprintf(w, "%s: %s\n", s.Role, s.Text)
					}
					return nil
				})
			})
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", 1000, "how many messages at most, the last ones, 1 to 1000")
	addOutput(cmd, &format)
	return cmd
}

func newSessionsRemove(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "rm ID…", Short: "Remove conversations, with their messages", Args: cobra.MinimumNArgs(1),
		Example: "  hermes sessions rm notes",
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				return forEach(o, args, func(id string) (string, error) {
					return "removed", door.Call(cmd.Context(), http.MethodDelete, "sessions/"+url.PathEscape(id), nil, nil)
				})
			})
		},
	}
}

// sendPoll is how often a delivery is looked at while one waits for it.
const sendPoll = 100 * time.Millisecond

func newSend(o *options) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "send ACCOUNT CHAT TEXT", Short: "Send a text to a chat, durably",
		Long: `Send TEXT to CHAT as ACCOUNT, or as the one account on a platform (irc). It is
kept until it is sent, also across restarts. TEXT - reads standard input.`,
		Example: "  hermes send irc '#ops' \"the backup is done\"\n  uptime | hermes send irc alice -", Args: exactly(3, "ACCOUNT CHAT TEXT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := args[2]
			if text == "-" {
				data, err := io.ReadAll(io.LimitReader(o.in, 1<<20))
				if err != nil {
					return fmt.Errorf("cannot read standard input: %w", err)
				}
				text = string(data)
			}
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				var d admin.Done
				req := admin.SendRequest{Account: args[0], Chat: args[1], Text: text}
				if err := door.Call(cmd.Context(), http.MethodPost, "send", req, &d); err != nil {
					return err
				}
				return awaitDelivery(cmd.Context(), o, door, d.ID, wait)
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Second, "how long to wait until it is sent; 0: not at all")
	return cmd
}

func awaitDelivery(ctx context.Context, o *options, door *app.Operator, id string, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		var d admin.DeliveryInfo
		if err := door.Call(ctx, http.MethodGet, "deliveries/"+url.PathEscape(id), nil, &d); err != nil {
			return err
		}
		switch {
		case d.State == outbox.Sent:
			_, err := fmt.Fprintf(o.out, "%s: sent\n", id)
			return err
		case d.State == outbox.Dead:
			return exitcode.With(exitcode.Failed, fmt.Errorf("%s was not sent: %s", id, d.Error))
		case time.Now().After(deadline):
			_, err := fmt.Fprintf(o.out, "%s: kept, and sent as soon as that is possible\n", id)
			return err
		}
		select {
		case <-time.After(sendPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func newBackup(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write a copy of the database while the gateway runs", Args: exactly(1, "one FILE"),
		Long: `Write a consistent copy of the profile's database to FILE (0600), checked before it
gets its name. The gateway goes on answering. FILE must not exist; it is written by
the gateway, so it must be a place that the gateway may write to.`,
		Example: "  hermes backup /opt/data/backup-$(date +%F).db",
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("cannot find %q: %w", args[0], err)
			}
			return o.operate(cmd.Context(), func(door *app.Operator) error {
				began := time.Now()
				if err := door.Call(cmd.Context(), http.MethodPost, "backup", map[string]string{"path": path}, nil); err != nil {
					return err
				}
				fi, err := os.Stat(path)
				if err != nil {
					return fmt.Errorf("cannot see the backup from here: %w", err)
				}
				size := fi.Size()
				_, err = fmt.Fprintf(o.out, "%s: %s in %s, checked\n", path, megabytes(&size), time.Since(began).Round(time.Millisecond))
				return err
			})
		},
	}
}

func newRestore(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "restore FILE", Short: "Put a backup in place of the database; the gateway must be stopped", Args: exactly(1, "one FILE"),
		Long: `Check FILE and put a copy of it in place of the profile's database. What was there is
kept beside it. Messages that were open at the backup are answered; deliveries that
were under way may have arrived since, and are labelled when they are sent again.`,
		Example: "  hermes gateway stop\n  hermes restore /opt/data/backup-2026-01-31.db\n  hermes gateway start",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, p, err := o.interactive()
			if err != nil {
				return err
			}
			from, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("cannot find %q: %w", args[0], err)
			}
			kept, err := s.Restore(cmd.Context(), p, from)
			if err != nil {
				return err
			}
			if kept == "" {
				kept = "nowhere: there was none"
			}
			_, err = fmt.Fprintf(o.out, "restored %s; the old database is kept: %s\n", args[0], kept)
			return err
		},
	}
}
