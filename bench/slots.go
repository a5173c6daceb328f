package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// slots is how many trivial services the peers' image has.
const slots = 100

// Names of the contestants of the jobs about many slots.
const (
	s6Alone     = "s6-svscan alone"
	oneCall     = "hermes gateway status --all, one call"
	hundredStat = "s6-svstat, 100 calls"
)

// manySlots runs 100 trivial services: under hermes, with its boot and the
// (down) slot of its gateway, or under s6-svscan with nothing else.
func (l *lab) manySlots(name string) contestant {
	cmd := []string{"s6", "s6-svscan", "/run/service"}
	if name == ours {
		cmd = []string{"hermes", "/init", "sleep", "infinity"}
	}
	return contestant{name: name, image: l.peers, flags: []string{"--entrypoint", "/bench/timed"}, cmd: cmd}
}

// allUp starts a container of c and waits until its slots are up.
func (l *lab) allUp(ctx context.Context, c contestant) (*container, error) {
	id, err := l.docker.out(ctx, append([]string{"run", "-d"}, l.docker.arguments(c)...)...)
	if err != nil {
		return nil, err
	}
	box := &container{docker: l.docker, id: id}
	// The waiting happens inside: asking from outside would cost as much as
	// what is measured.
	wait := fmt.Sprintf("until [ $(ls /tmp/up 2>/dev/null | wc -l) = %d ]; do sleep 0.2; done", slots)
	var last error
	err = until(ctx, "all slots are up", func() (bool, error) {
		_, last = box.sh(ctx, wait) // docker exec fails now and then while a container starts
		return last == nil, nil
	})
	return box, errors.Join(err, last)
}

func slotsJob() job {
	return job{
		name:  "slots",
		title: "100 trivial services all up",
		how: "From just before the exec of /init, or of s6-svscan with the same service directories in its scan directory, " +
			"to the last of 100 services up; both by the times of files that the container itself writes.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			field := []contestant{l.manySlots(ours), l.manySlots(s6Alone)}
			err := l.rounds(ctx, field, func(ctx context.Context, c contestant) error {
				box, err := l.allUp(ctx, c)
				if err != nil {
					return err
				}
				out, err := box.sh(ctx, "stat -c %.9Y /tmp/began; stat -c %.9Y /tmp/up/* | sort -n | tail -1")
				if err != nil {
					return err
				}
				took, err := span(out)
				r.add(c.name, milliseconds, took)
				return errors.Join(err, box.remove(ctx))
			})
			r.compareWith(s6Alone)
			r.claim(Claim{
				What: "100 trivial services all up ÷ s6's own", Unit: times, Goal: 1.1,
				Measured: ratio(r.samples(ours), r.samples(s6Alone)),
			})
			return err
		},
	}
}

// span is the time between two lines of seconds, in milliseconds.
func span(lines string) (float64, error) {
	first, last, _ := strings.Cut(lines, "\n")
	from, err1 := strconv.ParseFloat(first, 64)
	to, err2 := strconv.ParseFloat(last, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("cannot read the times of the services: %w", err)
	}
	return (to - from) * 1000, nil
}

func statusesJob() job {
	return job{
		name:  "statuses",
		title: "100 statuses",
		how:   "Inside the container with 100 services, as root, without docker exec: one call of hermes beside a loop of s6-svstat.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			box, err := l.allUp(ctx, l.manySlots(ours))
			if err != nil {
				return err
			}
			lines := map[string]string{
				oneCall:     "hermes gateway status --all >/dev/null",
				hundredStat: "for s in /run/service/bench-*; do s6-svstat $s; done >/dev/null",
			}
			err = l.rounds(ctx, []contestant{{name: oneCall}, {name: hundredStat}}, func(ctx context.Context, c contestant) error {
				took, err := box.timed(ctx, lines[c.name], 1)
				r.add(c.name, milliseconds, millis(took))
				return err
			})
			r.compareWith(hundredStat)
			r.claim(Claim{
				What: "100 statuses ÷ s6's own", Unit: times, Goal: 1.1,
				Measured: ratio(r.samples(oneCall), r.samples(hundredStat)),
			})
			return errors.Join(err, box.remove(ctx))
		},
	}
}
