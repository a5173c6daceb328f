package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/slotlog"
	"github.com/hermesgw/hermes/internal/supervise"
)

const (
	// followPoll is how often a followed file is looked at. s6-log writes a line
	// at a time; a fifth of a second is live to a reader.
	followPoll = 200 * time.Millisecond
	// relistEvery is after how many looks new profiles are looked for: a second.
	relistEvery = 5
)

// logServices are the slots beside the gateways that have rotated files.
var logServices = [...]string{"dashboard", "guard"}

// logOptions are the flags of gateway logs.
type logOptions struct {
	*options
	home    string
	profile profile.Profile
	service string
	format  string
	lines   int
	follow  bool
	all     bool
}

func newGatewayLogs(o *options) *cobra.Command {
	l := &logOptions{options: o}
	cmd := &cobra.Command{
		Use: "logs", Short: "Show a gateway's log, and follow it across rotation", Args: exactly(0, ""),
		Long: `Show the last lines of the rotated files of a gateway. --all merges those of
every profile by their time. -f goes on across rotation, also with profiles and
logs that are not there yet. With -o json every line is an object; what our own
log handler wrote is taken apart in it. Times are UTC.`,
		Example: "  hermes gateway logs -n 100\n  hermes -p work gateway logs -f\n  hermes gateway logs -f --all -o json\n  hermes gateway logs --service dashboard",
		RunE:    func(cmd *cobra.Command, _ []string) error { return l.run(cmd.Context()) },
	}
	cmd.Flags().BoolVarP(&l.follow, "follow", "f", false, "go on with new lines until interrupted")
	cmd.Flags().IntVarP(&l.lines, "lines", "n", 50, "how many past lines to show, of all profiles together")
	cmd.Flags().BoolVar(&l.all, "all", false, "every profile's, with its name before each line")
	cmd.Flags().StringVar(&l.service, "service", "", "the log of another service: dashboard or guard")
	cmd.MarkFlagsMutuallyExclusive("all", "service")
	_ = cmd.RegisterFlagCompletionFunc("service", cobra.FixedCompletions(logServices[:], cobra.ShellCompDirectiveNoFileComp))
	addOutput(cmd, &l.format)
	return cmd
}

func (l *logOptions) run(ctx context.Context) error {
	if l.lines < 0 {
		return usage("-n is %d: give 0 or more lines", l.lines)
	}
	if l.service != "" && !slices.Contains(logServices[:], l.service) {
		return usage("unknown service %q; use --service %s", l.service, strings.Join(logServices[:], " or "))
	}
	show, err := l.printer()
	if err != nil {
		return err
	}
	s, p, err := l.interactive()
	if err != nil {
		return err
	}
	l.home, l.profile = s.Home, p
	sources, err := l.sources()
	if err != nil {
		return err
	}
	r := slotlog.New()
	defer r.Close()
	r.Watch(sources)
	lines, err := r.Last(l.lines)
	if errors.Is(err, fs.ErrNotExist) && l.follow {
		err = nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return exitcode.With(exitcode.Failed, fmt.Errorf(
			"no log in %s: only a supervised service writes one, a foreground gateway logs to its own stderr", sources[0].Dir))
	}
	if err != nil {
		return err
	}
	if err := show(lines); err != nil || !l.follow {
		return err
	}
	return l.goOn(ctx, r, show)
}

// sources are the logs that were asked for, as they are now.
func (l *logOptions) sources() ([]slotlog.Source, error) {
	if l.service != "" {
		return []slotlog.Source{{Service: l.service, Dir: filepath.Join(l.home, "logs", l.service)}}, nil
	}
	targets := []profile.Profile{l.profile}
	if l.all {
		var err error
		if targets, err = profile.List(l.home); err != nil {
			return nil, err
		}
	}
	var sources []slotlog.Source
	for _, p := range targets {
		sources = append(sources, slotlog.Source{Profile: p.Name, Service: supervise.GatewayName(p.Name), Dir: filepath.Dir(logFile(l.home, p.Name))})
	}
	return sources, nil
}

// goOn shows what comes, until ctx ends: Ctrl-C is how one leaves.
func (l *logOptions) goOn(ctx context.Context, r *slotlog.Reader, show func([]slotlog.Line) error) error {
	tick := time.NewTicker(followPoll)
	defer tick.Stop()
	for looks := 1; ; looks++ {
		lines, missed, err := r.Next()
		if err != nil {
			return err
		}
		for _, s := range missed {
			fmt.Fprintf(l.err, "hermes: the log of %s was rotated away faster than it was read: lines are missing here\n", s.Service)
		}
		if err := show(lines); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !l.all || looks%relistEvery != 0 {
			continue
		}
		sources, err := l.sources()
		if err != nil {
			return err
		}
		r.Watch(sources)
	}
}

// printer returns what prints lines in the format that was asked for.
func (l *logOptions) printer() (func([]slotlog.Line) error, error) {
	var one func(io.Writer, slotlog.Line) error
	switch l.format {
	case "text":
		one = l.printText
	case "json":
		one = printLogJSON
	default:
		return nil, usage("unknown output format %q; use -o text or -o json", l.format)
	}
	return func(lines []slotlog.Line) error {
		w := bufio.NewWriter(l.out)
		for _, line := range lines {
			if err := one(w, line); err != nil {
				return err
			}
		}
		return w.Flush()
	}, nil
}

func (l *logOptions) printText(w io.Writer, line slotlog.Line) error {
	text := visible(line.Raw)
	if line.Cut > 0 {
		text += fmt.Sprintf(" ... (%d bytes more)", line.Cut)
	}
	if l.all {
		text = "[" + line.Source.Profile + "] " + text
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// visible escapes what a terminal would obey, and bytes that are no text.
func visible(line string) string {
	hidden := func(r rune) bool { return r != '\t' && !unicode.IsGraphic(r) }
	if utf8.ValidString(line) && !strings.ContainsFunc(line, hidden) {
		return line
	}
	var b strings.Builder
	for len(line) > 0 {
		r, size := utf8.DecodeRuneInString(line)
		switch {
		case r == utf8.RuneError && size == 1 || hidden(r) && r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, line[0])
		case hidden(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		line = line[size:]
	}
	return b.String()
}

// logLine is one line of `hermes gateway logs -o json`. All keys are always
// there; level, message and fields are null where the line is not our own.
type logLine struct {
	Time    *time.Time                 `json:"time"`
	Profile *string                    `json:"profile"`
	Service string                     `json:"service"`
	Line    string                     `json:"line"` // without the time stamp
	Level   *string                    `json:"level"`
	Message *string                    `json:"message"`
	Fields  map[string]json.RawMessage `json:"fields"`
	Cut     int                        `json:"cut"` // bytes left out at its end
}

func printLogJSON(w io.Writer, line slotlog.Line) error {
	row := logLine{Service: line.Source.Service, Line: line.Text, Cut: line.Cut}
	if line.Source.Profile != "" {
		row.Profile = &line.Source.Profile
	}
	if !line.Time.IsZero() {
		row.Time = &line.Time
	}
	if e, ok := line.Event(); ok {
		row.Level, row.Fields = &e.Level, e.Fields
		if e.Fields != nil {
			row.Message = &e.Message
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(row)
}
