package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// fleetRuns is enough for what takes many seconds and starts 200 processes.
	fleetRuns = 3
	// fleetSize is how many profiles there are beside the default one.
	fleetSize = 200
	// stopSize is how many idle profiles are stopped together.
	stopSize = 50
	// manyFiles lie on the volume of a start that must not notice them.
	manyFiles = 50_000
	// fleetPort is the port of the first profile; the others follow.
	fleetPort = 20_000
)

// volume makes a volume, filled by a line of shell that runs as the service
// user in /opt/data.
func (d docker) volume(ctx context.Context, image, fill string) (string, error) {
	name, err := d.out(ctx, "volume", "create", "--label", d.labelled())
	if err != nil {
		return "", err
	}
	_, err = d.out(ctx, "run", "--rm", "--label", d.labelled(), "--user", "10000:0", "-w", "/opt/data",
		"-v", name+":/opt/data", "--entrypoint", "sh", image, "-c", fill)
	return name, err
}

// profiles is shell that makes n profiles that are wanted up.
func profiles(n int) string {
	return fmt.Sprintf(`for i in $(seq %d); do mkdir -p profiles/p$i && echo API_SERVER_PORT=$((%d+i)) >profiles/p$i/.env &&
echo '{"want":"up","by":"bench","at":"2026-01-01T00:00:00Z","why":""}' >profiles/p$i/intent.json || exit 1; done; chmod 600 profiles/*/.env`,
		n, fleetPort)
}

// onVolume is the supervised gateway on a volume that stays when it goes.
func (l *lab) onVolume(volume string) contestant {
	c := l.supervised()
	c.flags = []string{"-v", volume + ":/opt/data"}
	return c
}

// fleet starts a container with n profiles and returns it when all of its
// gateways have said that they are ready, with the time that took from the
// start of the container, both by Docker's clock.
func (l *lab) fleet(ctx context.Context, n int) (*container, time.Duration, error) {
	volume, err := l.docker.volume(ctx, l.image, profiles(n))
	if err != nil {
		return nil, 0, err
	}
	box, err := l.docker.create(ctx, l.onVolume(volume))
	if err != nil {
		return nil, 0, err
	}
	if err := box.start(ctx); err != nil {
		return box, 0, err
	}
	ready, err := box.saidReady(ctx, n+1)
	if err != nil {
		return box, 0, err
	}
	started, err := l.docker.out(ctx, "inspect", "-f", "{{.State.StartedAt}}", box.id)
	if err != nil {
		return box, 0, err
	}
	from, err := time.Parse(time.RFC3339Nano, started)
	return box, ready.Sub(from), err
}

// saidReady waits until n gateways said that they are ready and returns when
// the last of them did. It looks twice a second: the answer is in the stamps.
func (c *container) saidReady(ctx context.Context, n int) (time.Time, error) {
	const look = 500 * time.Millisecond
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); {
		logs, err := c.docker.out(ctx, "logs", "--timestamps", c.id)
		if err != nil {
			return time.Time{}, err
		}
		if stamps := readyStamps(logs); len(stamps) >= n {
			return stamps[n-1], nil
		}
		if err := pause(ctx, look); err != nil {
			return time.Time{}, err
		}
	}
	return time.Time{}, fmt.Errorf("not all of %d gateways are ready after %s", n, 2*patience)
}

// readyStamps are the times of the lines that say so, in order.
func readyStamps(logs string) []time.Time {
	var stamps []time.Time
	for line := range strings.Lines(logs) {
		stamp, said, _ := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err == nil && strings.Contains(said, "gateway ready") {
			stamps = append(stamps, at)
		}
	}
	slices.SortFunc(stamps, time.Time.Compare)
	return stamps
}

func fleetJob() job {
	sizes := []int{fleetSize / 4, fleetSize / 2, fleetSize}
	name := func(n int) string { return fmt.Sprintf("%d profiles", n) }
	return job{
		name:  "fleet",
		title: "many profiles in one container",
		how: "From the start of a container whose volume has that many profiles wanted up (and the default one) to the last " +
			"line that says a gateway is ready, by Docker's clock. Then, idle, the private memory of all processes divided by the gateways, " +
			"and one call of gateway status --all, inside.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			few := *l
			few.runs = min(l.runs, fleetRuns)
			var field []contestant
			for _, n := range sizes {
				field = append(field, contestant{name: name(n)})
			}
			err := few.rounds(ctx, field, func(ctx context.Context, c contestant) error {
				n, err := strconv.Atoi(strings.TrimSuffix(c.name, " profiles"))
				if err != nil {
					return err
				}
				return l.weighFleet(ctx, n, c.name, r)
			})
			most := name(fleetSize)
			r.claim(Claim{
				What: most + " in one container: boot to all ready", Unit: milliseconds, Floor: 15_000, Goal: 8_000,
				Measured: median(r.samples(most)),
			})
			r.claim(Claim{
				What: most + ": private memory per profile, its supervision included", Unit: megabytes, Floor: 15, Goal: 8,
				Measured: median(r.samples(most + ": memory of each")),
			})
			r.claim(Claim{
				What: "`gateway status --all` over " + most, Unit: milliseconds, Floor: 60, Goal: 25,
				Measured: median(r.samples(most + ": gateway status --all")),
			})
			return err
		},
	}
}

func (l *lab) weighFleet(ctx context.Context, n int, name string, r *Result) error {
	box, took, err := l.fleet(ctx, n)
	if err != nil {
		return err
	}
	r.add(name, milliseconds, millis(took))
	if err := pause(ctx, l.settle); err != nil {
		return err
	}
	all, err := box.processes(ctx)
	if err != nil {
		return err
	}
	var sum memory
	for _, p := range all {
		m, err := memoryOf(p.pid)
		if err != nil {
			return err
		}
		sum = sum.plus(m)
	}
	r.add(name+": memory of each", megabytes, (sum.clean+sum.dirty)/megabyte/float64(n+1))
	status, err := box.loop(ctx, "hermes gateway status --all", 5)
	if err != nil {
		return err
	}
	r.add(name+": gateway status --all", milliseconds, millis(status))
	return box.remove(ctx)
}

func fleetStopJob() job {
	return job{
		name:  "fleetstop",
		title: "docker stop of many idle profiles",
		how:   "Wall time of the docker command, when all gateways have been idle for a while.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			few := *l
			few.runs = min(l.runs, fleetRuns)
			name := fmt.Sprintf("%d profiles", stopSize)
			err := few.rounds(ctx, []contestant{{name: name}}, func(ctx context.Context, _ contestant) error {
				box, _, err := l.fleet(ctx, stopSize)
				if err != nil {
					return err
				}
				if err := pause(ctx, l.settle/2); err != nil {
					return err
				}
				began := time.Now()
				if _, err := l.docker.out(ctx, "stop", box.id); err != nil {
					return err
				}
				r.add(name, milliseconds, millis(time.Since(began)))
				return box.remove(ctx)
			})
			r.claim(Claim{
				What: "`docker stop` of " + name + ", idle", Unit: milliseconds, Floor: 2000, Goal: 800,
				Measured: median(r.samples(name)),
			})
			return err
		},
	}
}

func takeoverJob() job {
	const name = "standby"
	return job{
		name:  "takeover",
		title: "standby takes over",
		how: "Two containers on one volume: from the kill -9 of the holder's PID 1 to the first 200 of the other's /readyz, " +
			"polled every millisecond.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			err := l.rounds(ctx, []contestant{{name: name}}, func(ctx context.Context, _ contestant) error {
				took, err := l.takeOver(ctx)
				r.add(name, milliseconds, millis(took))
				return err
			})
			r.claim(Claim{
				What: "standby takes over after kill -9 of the holder", Unit: milliseconds, Floor: 1000, Goal: 200,
				Measured: median(r.samples(name)),
			})
			return err
		},
	}
}

func (l *lab) takeOver(ctx context.Context) (took time.Duration, err error) {
	volume, err := l.docker.volume(ctx, l.image, "true")
	if err != nil {
		return 0, err
	}
	holder, err := l.docker.serving(ctx, l.onVolume(volume))
	if err != nil {
		return 0, err
	}
	second, err := l.docker.create(ctx, l.onVolume(volume))
	if err != nil {
		return 0, err
	}
	if err := second.start(ctx); err != nil {
		return 0, err
	}
	err = until(ctx, "the second stands by", func() (bool, error) {
		out, err := second.sh(ctx, "hermes gateway status || true")
		return err == nil && strings.Contains(out, "standby"), nil
	})
	if err != nil {
		return 0, err
	}
	text, err := l.docker.out(ctx, "inspect", "-f", "{{.State.Pid}}", holder.id)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(text)
	if err != nil || pid < 2 {
		return 0, fmt.Errorf("cannot tell the pid of the holder's container: %q", text)
	}
	killed := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return 0, fmt.Errorf("cannot kill the holder: %w", err)
	}
	if err := second.awaitReady(ctx); err != nil {
		return 0, err
	}
	took = time.Since(killed)
	return took, errors.Join(holder.remove(ctx), second.remove(ctx))
}

func filesJob() job {
	full, empty := fmt.Sprintf("%d files", manyFiles), "empty volume"
	return job{
		name:  "files",
		title: "start beside many files",
		how:   "As container start → /readyz 200, with that many files on the volume, and with none.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			fills := map[string]string{
				empty: "true",
				full:  fmt.Sprintf("mkdir sessions && cd sessions && seq %d | xargs touch", manyFiles),
			}
			err := l.rounds(ctx, []contestant{{name: full}, {name: empty}}, func(ctx context.Context, c contestant) error {
				volume, err := l.docker.volume(ctx, l.image, fills[c.name])
				if err != nil {
					return err
				}
				return l.timeStart(ctx, l.onVolume(volume), c.name, r)
			})
			r.compareWith(empty)
			r.claim(Claim{
				What: "boot with 50,000 files on the volume ÷ an empty one", Unit: times, Floor: 1.1, Goal: 1,
				Measured: ratio(r.samples(full), r.samples(empty)),
			})
			return err
		},
	}
}
