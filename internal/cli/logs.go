package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/profile"
)

// followPoll is how often a followed file is looked at. s6-log writes a line
// at a time; a fifth of a second is live to a reader.
const followPoll = 200 * time.Millisecond

func newGatewayLogs(o *options) *cobra.Command {
	var follow, all bool
	var lines int
	cmd := &cobra.Command{
		Use: "logs", Short: "Show a gateway's log, and follow it across rotation", Args: exactly(0, ""),
		Example: "  hermes gateway logs -n 100\n  hermes -p work gateway logs -f\n  hermes gateway logs -f --all",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lines < 0 {
				return usage("-n is %d: give 0 or more lines", lines)
			}
			s, p, err := o.target()
			if err != nil {
				return err
			}
			targets := []profile.Profile{p}
			if all {
				if targets, err = profile.List(s.Home); err != nil {
					return err
				}
			}
			return showLogs(cmd.Context(), o.out, s.Home, targets, lines, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new lines until interrupted")
	cmd.Flags().IntVarP(&lines, "lines", "n", 50, "how many past lines to show")
	cmd.Flags().BoolVar(&all, "all", false, "every profile's, with its name before each line")
	return cmd
}

// logTail is one followed log.
type logTail struct {
	path   string // of current
	prefix string
	file   *os.File
	rest   []byte // an unfinished last line
}

func showLogs(ctx context.Context, w io.Writer, home string, targets []profile.Profile, lines int, follow bool) error {
	var tails []*logTail
	shown := 0
	for _, p := range targets {
		t := &logTail{path: logFile(home, p.Name)}
		if len(targets) > 1 {
			t.prefix = "[" + p.Name + "] "
		}
		err := t.last(w, lines)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot read the log: %w", err)
		}
		if err == nil {
			shown++
		}
		tails = append(tails, t)
	}
	if shown == 0 && !follow {
		return exitcode.With(exitcode.Failed, fmt.Errorf(
			"no log in %s: only a supervised gateway writes one, a foreground gateway logs to its own stderr", filepath.Dir(logFile(home, targets[0].Name))))
	}
	if !follow {
		return nil
	}
	return followAll(ctx, w, tails)
}

// last prints the last n lines of the rotated files, oldest first, and leaves
// current open behind them.
func (t *logTail) last(w io.Writer, n int) error {
	current, err := openLog(t.path)
	if err != nil {
		return err
	}
	t.file = current
	data, err := io.ReadAll(current)
	if err != nil {
		return err
	}
	lines, rest := splitLines(data)
	t.rest = rest
	archives, _ := filepath.Glob(filepath.Join(filepath.Dir(t.path), "@*")) // the pattern is valid
	sort.Sort(sort.Reverse(sort.StringSlice(archives)))                     // TAI64N names sort by time
	for _, a := range archives {
		if len(lines) >= n {
			break
		}
		if older, err := os.ReadFile(a); err == nil { // it may have been removed meanwhile
			before, _ := splitLines(older)
			lines = append(before, lines...)
		}
	}
	lines = lines[max(0, len(lines)-n):]
	for _, line := range lines {
		fmt.Fprintf(w, "%s%s\n", t.prefix, line)
	}
	return nil
}

// openLog opens what should be a log; a FIFO in its place must not block.
func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%q is not a file", path), err, f.Close())
	}
	return f, nil
}

// splitLines returns the complete lines of data and the unfinished last one.
func splitLines(data []byte) (lines []string, rest []byte) {
	end := bytes.LastIndexByte(data, '\n') + 1
	scan := bufio.NewScanner(bytes.NewReader(data[:end]))
	scan.Buffer(nil, max(end, bufio.MaxScanTokenSize))
	for scan.Scan() {
		lines = append(lines, scan.Text())
	}
	return lines, bytes.Clone(data[end:])
}

func followAll(ctx context.Context, w io.Writer, tails []*logTail) error {
	tick := time.NewTicker(followPoll)
	defer tick.Stop()
	for {
		for _, t := range tails {
			if err := t.step(w); err != nil {
				return fmt.Errorf("cannot follow the log: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil // Ctrl-C is how one leaves
		case <-tick.C:
		}
	}
}

// step prints what is new. s6-log rotates by renaming current and making a new
// one: the old file is read to its end first, so no line is lost.
func (t *logTail) step(w io.Writer) error {
	if t.file == nil {
		return t.reopen(w)
	}
	if err := t.drain(w); err != nil {
		return err
	}
	now, err := os.Stat(t.path)
	if err != nil {
		return nil // between rename and create
	}
	mine, err := t.file.Stat()
	if err != nil {
		return err
	}
	if os.SameFile(now, mine) {
		return nil
	}
	if err := t.drain(w); err != nil {
		return err
	}
	t.file.Close()
	return t.reopen(w)
}

func (t *logTail) reopen(w io.Writer) error {
	f, err := openLog(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		t.file = nil
		return nil
	}
	if err != nil {
		return err
	}
	t.file = f
	return t.drain(w)
}

func (t *logTail) drain(w io.Writer) error {
	data, err := io.ReadAll(t.file)
	if err != nil {
		return err
	}
	lines, rest := splitLines(append(t.rest, data...))
	t.rest = rest
	for _, line := range lines {
		fmt.Fprintf(w, "%s%s\n", t.prefix, strings.TrimSuffix(line, "\r"))
	}
	return nil
}
