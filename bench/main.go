// Command bench measures Hermes beside its peers in one run: how fast a
// container starts and stops, how soon a killed gateway answers again, what
// supervision costs in memory, and how large everything is. Contestants take
// turns, so that what slows the machine down slows all of them, and medians of
// pairs are compared. What the limits are stands with each job; they are
// reported as met or missed and fail nothing.
//
// It needs Linux, root (to kill by the host's pid and to read private memory)
// and a Docker engine on the same machine, and leaves nothing behind.
//
//	make bench                                    # every job, as text
//	go run ./bench -only '^(restart|stop)$' -runs 5
//	go run ./bench -into docs/explanation/performance.md
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// options are what the command line gives.
type options struct {
	runs    int
	healthy time.Duration
	settle  time.Duration
	image   string
	bin     string
	only    *regexp.Regexp
	output  string
	into    string
	keep    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "bench: interrupted; everything it made is removed")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.runs, "runs", 15, "how often each contestant has its turn")
	flags.DurationVar(&o.healthy, "healthy", time.Minute, "how long a gateway is healthy before it is killed")
	flags.DurationVar(&o.settle, "settle", 10*time.Second, "how long a container is idle before its memory is read")
	flags.StringVar(&o.image, "image", "hermes:dev", "image to measure")
	flags.StringVar(&o.bin, "bin", "bin", "directory that has linux-amd64/hermes and linux-arm64/hermes")
	only := flags.String("only", "", "run the jobs whose names match this `regexp`")
	flags.StringVar(&o.output, "o", "text", "output: text, json or markdown")
	flags.StringVar(&o.into, "into", "", "also put the markdown between the marks of this `file`")
	flags.BoolVar(&o.keep, "keep", false, "keep the image of the peers, so that the next build takes a second")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	pattern, err := regexp.Compile(*only)
	o.only = pattern
	switch _, known := formats()[o.output]; {
	case err != nil:
		return o, fmt.Errorf("-only %q is no regular expression: %w", *only, err)
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	case !known:
		return o, fmt.Errorf("-o %q is none of text, json, markdown", o.output)
	case o.into != "" && *only != "":
		return o, errors.New("-into writes the whole page anew, so it needs every job: not with -only")
	case o.runs < 1:
		return o, fmt.Errorf("-runs %d: give 1 or more", o.runs)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("it kills by the host's pids and reads private memory: run it as root")
	}
	l := &lab{options: o, docker: newDocker(), stderr: stderr}
	defer func() { err = errors.Join(err, l.docker.sweep(ctx, o.keep)) }()
	report, err := l.measure(ctx)
	if ctx.Err() != nil || len(report.Results) == 0 {
		return err
	}
	if o.into != "" {
		err = errors.Join(err, report.into(o.into))
	}
	return errors.Join(err, formats()[o.output](report, stdout))
}

// lab is where the jobs measure.
type lab struct {
	options
	docker docker
	peers  string // the image of the peers
	stderr io.Writer
}

// say reports progress.
func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.stderr, "bench: "+format+"\n", args...)
}

// measure runs the chosen jobs one after the other.
// Without results there is nothing to report; the error then says why.
func (l *lab) measure(ctx context.Context) (Report, error) {
	var err error
	report := Report{Image: l.image}
	if report.Machine, err = l.machine(ctx); err != nil {
		return report, err
	}
	// From here on by its id: a build meanwhile moves the name, and the peers
	// must have the same binary.
	if l.image, err = l.docker.out(ctx, "image", "inspect", "-f", "{{.Id}}", l.image); err != nil {
		return report, err
	}
	l.say("building the image of the peers")
	if l.peers, err = l.docker.buildPeers(ctx, l.image); err != nil {
		return report, err
	}
	var failed []error
	for _, j := range jobs() {
		if !l.only.MatchString(j.name) {
			continue
		}
		l.say("%s: %s", j.name, j.title)
		result := Result{Job: j.name, Title: j.title, How: j.how}
		if err := j.run(ctx, l, &result); err != nil {
			if ctx.Err() != nil {
				return report, ctx.Err()
			}
			// One that failed must not cost what the others measured.
			l.say("%s: %v", j.name, err)
			result.Notes = append(result.Notes, "Not finished: "+err.Error())
			failed = append(failed, fmt.Errorf("%s: %w", j.name, err))
		}
		report.Results = append(report.Results, result)
	}
	if len(report.Results) == 0 {
		return report, fmt.Errorf("-only %q matches no job", l.only)
	}
	report.Machine.LoadAfter, err = loadAverage()
	return report, errors.Join(append(failed, err)...)
}

// job is one row, or two, of the table of promises.
type job struct {
	name, title string
	how         string // for readers: what is timed, from where to where
	run         func(ctx context.Context, l *lab, r *Result) error
}

// jobs lists them in the order in which they run and are shown.
func jobs() []job {
	return []job{
		oneShotJob(), stopJob(), restartJob(), startJob(),
		memoryJob(), statusJob(), slotsJob(), statusesJob(),
		fleetJob(), fleetStopJob(), takeoverJob(), filesJob(),
		answerJob(), firstTokenJob(), inFlightJob(), storedJob(), idleJob(), flushJob(), sizeJob(),
	}
}

// rounds gives each contestant its turn l.runs times; each round begins with
// another one, so that none always profits from what another left behind.
func (l *lab) rounds(ctx context.Context, field []contestant, turn func(ctx context.Context, c contestant) error) error {
	for round := range l.runs {
		for i := range field {
			c := field[(round+i)%len(field)]
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := turn(ctx, c); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		l.say("  round %d of %d", round+1, l.runs)
	}
	return nil
}
