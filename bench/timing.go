package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

func oneShotJob() job {
	return job{
		name:  "oneshot",
		title: "docker run --rm IMAGE true",
		how:   "Wall time of the docker command. The image without our init is the same image with --entrypoint true.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			field := []contestant{
				{name: ours, image: l.image, cmd: []string{"true"}},
				{name: none, image: l.image, flags: []string{"--entrypoint", "true"}},
				{name: tini, image: l.peers, flags: []string{"--entrypoint", tini}, cmd: []string{"--", "true"}},
				{name: catatonit, image: l.peers, flags: []string{"--entrypoint", catatonit}, cmd: []string{"--", "true"}},
			}
			err := l.rounds(ctx, field, func(ctx context.Context, c contestant) error {
				began := time.Now()
				_, err := l.docker.out(ctx, append([]string{"run", "--rm"}, l.docker.arguments(c)...)...)
				r.add(c.name, milliseconds, millis(time.Since(began)))
				return err
			})
			r.compareWith(none)
			r.claim(Claim{
				What: "`docker run --rm IMAGE true` ÷ without our init", Unit: times, Floor: 1.4, Goal: 1.15,
				Measured: ratio(r.samples(ours), r.samples(none)),
			})
			r.Notes = []string{"s6-overlay 3.2.3: 11.7 × (quoted from an earlier measurement, not measured in this run)"}
			return err
		},
	}
}

func stopJob() job {
	return job{
		name:  "stop",
		title: "docker stop of an idle gateway",
		how:   "Wall time of the docker command, a second after /readyz said 200.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			err := l.rounds(ctx, l.supervisors(), func(ctx context.Context, c contestant) error {
				box, err := l.docker.serving(ctx, c)
				if err != nil {
					return err
				}
				if err := pause(ctx, time.Second); err != nil {
					return err
				}
				began := time.Now()
				if _, err := l.docker.out(ctx, "stop", box.id); err != nil {
					return err
				}
				r.add(c.name, milliseconds, millis(time.Since(began)))
				return box.remove(ctx)
			})
			r.compareWith(ours)
			r.claim(Claim{
				What: "`docker stop` of an idle supervised gateway", Unit: milliseconds, Floor: 400, Goal: 200,
				Measured: median(r.samples(ours)),
			})
			r.Notes = []string{"s6-overlay 3.2.3: 3140 ms (quoted from an earlier measurement, not measured in this run)"}
			return err
		},
	}
}

// wave bounds how many containers of each contestant are healthy at a time.
const wave = 5

func restartJob() job {
	return job{
		name:  "restart",
		title: "gateway killed with -9 → answering again",
		how: "From the kill of the gateway's process, after a period of health, to the first 200 of /readyz " +
			"through the published port, polled every millisecond.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			for left := l.runs; left > 0; left -= wave {
				if err := l.killWave(ctx, min(left, wave), r); err != nil {
					return err
				}
				l.say("  %d to go", max(0, left-wave))
			}
			r.compareWith(ours)
			r.claim(Claim{
				What: fmt.Sprintf("gateway killed with -9 after %.0f s of health → answering again, p50", l.healthy.Seconds()),
				Unit: milliseconds, Floor: 150, Goal: 80, Measured: median(r.samples(ours)),
			})
			return nil
		},
	}
}

// killWave lets n gateways of each contestant be healthy together and kills
// them one at a time, in turns.
func (l *lab) killWave(ctx context.Context, n int, r *Result) error {
	type victim struct {
		name string
		box  *container
	}
	var victims []victim
	for range n {
		for _, c := range l.supervisors() {
			box, err := l.docker.serving(ctx, c)
			if err != nil {
				return err
			}
			victims = append(victims, victim{c.name, box})
		}
	}
	if err := pause(ctx, l.healthy); err != nil {
		return err
	}
	for _, v := range victims {
		killed, err := v.box.killGateway(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		if err := v.box.awaitReady(ctx); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		r.add(v.name, milliseconds, millis(time.Since(killed)))
		if err := v.box.remove(ctx); err != nil {
			return err
		}
	}
	return nil
}

func startJob() job {
	return job{
		name:  "start",
		title: "container start → /readyz 200",
		how: "From docker start of a container made before, on a fresh volume, to the first 200 of /readyz through " +
			"the published port, polled every millisecond from the end of docker start. Docker's own share is in all of them.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			field := []contestant{l.supervised(), l.unsupervised(), l.dockerRestarts(tini)}
			err := l.rounds(ctx, field, func(ctx context.Context, c contestant) error { return l.timeStart(ctx, c, c.name, r) })
			r.compareWith(foreground)
			r.claim(Claim{
				What: "container start → `/readyz` 200, supervised minus `--no-supervise`", Unit: milliseconds, Floor: 250, Goal: 80,
				Measured: difference(r.samples(ours), r.samples(foreground)),
			})
			return err
		},
	}
}

// timeStart adds one time from docker start to ready to the series called name.
func (l *lab) timeStart(ctx context.Context, c contestant, name string, r *Result) error {
	box, err := l.docker.create(ctx, c)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := box.start(ctx); err != nil {
		return err
	}
	// Not earlier: Docker opens the port before the container has its
	// address, and the kernel asks for that again only after a second.
	if err := box.awaitReady(ctx); err != nil {
		return err
	}
	r.add(name, milliseconds, millis(time.Since(began)))
	return box.remove(ctx)
}

// batch is how many calls one sample of a status is the mean of.
const batch = 20

func statusJob() job {
	return job{
		name:  "status",
		title: "hermes gateway status",
		how: fmt.Sprintf("Per call, as root inside a container with a ready gateway; each sample is the mean of %d calls "+
			"in a loop of sh, without docker exec.", batch),
		run: func(ctx context.Context, l *lab, r *Result) error {
			box, err := l.docker.serving(ctx, l.supervised())
			if err != nil {
				return err
			}
			field := []contestant{
				{name: "hermes gateway status"}, {name: "hermes version"}, {name: "s6-svstat /run/service/gateway-default"},
			}
			err = l.rounds(ctx, field, func(ctx context.Context, c contestant) error {
				took, err := box.loop(ctx, c.name, batch)
				r.add(c.name, milliseconds, millis(took))
				return err
			})
			r.compareWith("hermes gateway status")
			r.claim(Claim{
				What: "`hermes gateway status`", Unit: milliseconds, Floor: 30, Goal: 10,
				Measured: median(r.samples("hermes gateway status")),
			})
			return errors.Join(err, box.remove(ctx))
		},
	}
}

// loop runs a command n times inside and returns the mean of its wall time.
func (c *container) loop(ctx context.Context, command string, n int) (time.Duration, error) {
	return c.timed(ctx, fmt.Sprintf("i=0; while [ $i -lt %d ]; do %s >/dev/null || exit 1; i=$((i+1)); done", n, command), n)
}

// timed runs a line of shell inside that makes n calls and returns the mean.
func (c *container) timed(ctx context.Context, line string, n int) (time.Duration, error) {
	out, err := c.sh(ctx, "began=$(date +%s%N); "+line+"; echo $(($(date +%s%N) - began))")
	if err != nil {
		return 0, err
	}
	total, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cannot read the time of %q: %w", line, err)
	}
	return time.Duration(total) / time.Duration(n), nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
