package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// memoryRuns is enough: memory varies by a percent, where times vary by half.
	memoryRuns = 3
	megabyte   = 1e6
)

func memoryJob() job {
	return job{
		name:  "memory",
		title: "memory of an idle gateway",
		how: "USS is Private_Clean + Private_Dirty of /proc/PID/smaps_rollup, summed over processes, " +
			"one container at a time; its dirty part is what the program wrote, the rest are pages of files, above all of " +
			"the binary, that no other process of the container happens to use. PSS counts shared pages once. RSS is what docker stats shows: " +
			"page cache that was used more than once is in it.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			few := *l
			few.runs = min(l.runs, memoryRuns)
			field := []contestant{l.supervised(), l.unsupervised(), l.dockerRestarts(tini), l.runit(), l.supervisord()}
			err := few.rounds(ctx, field, func(ctx context.Context, c contestant) error { return l.weigh(ctx, c, r) })
			r.claim(Claim{
				What: "private memory (USS) of an idle gateway", Unit: megabytes, Floor: 15, Goal: 8,
				Measured: median(r.samples(ours + ": gateway, USS")),
			})
			r.claim(Claim{
				What: "private memory of all else that hermes adds", Unit: megabytes, Floor: 8, Goal: 4,
				Measured: median(r.samples(ours + ": all else, USS")),
			})
			r.claim(Claim{
				What: "RSS as `docker stats` shows it", Unit: megabytes, Measured: median(r.samples(ours + ": docker stats")),
			})
			return err
		},
	}
}

func (l *lab) weigh(ctx context.Context, c contestant, r *Result) error {
	box, err := l.docker.serving(ctx, c)
	if err != nil {
		return err
	}
	if err := pause(ctx, l.settle); err != nil {
		return err
	}
	all, err := box.processes(ctx)
	if err != nil {
		return err
	}
	var gateway, rest memory
	for _, p := range all {
		memory, err := memoryOf(p.pid)
		if err != nil {
			return err
		}
		if p.isGateway() {
			gateway = gateway.plus(memory)
		} else {
			rest = rest.plus(memory)
		}
	}
	stats, err := box.stats(ctx)
	if err != nil {
		return err
	}
	r.add(c.name+": gateway, USS", megabytes, (gateway.clean+gateway.dirty)/megabyte)
	r.add(c.name+": gateway, dirty part of it", megabytes, gateway.dirty/megabyte)
	r.add(c.name+": all else, USS", megabytes, (rest.clean+rest.dirty)/megabyte)
	r.add(c.name+": everything, PSS", megabytes, (gateway.proportional+rest.proportional)/megabyte)
	r.add(c.name+": docker stats", megabytes, stats/megabyte)
	return box.remove(ctx)
}

// memory is what a process shares with no other (clean pages are those of
// files, such as the program's own text), and that plus its part of what it
// shares; in bytes.
type memory struct{ clean, dirty, proportional float64 }

func (m memory) plus(n memory) memory {
	return memory{m.clean + n.clean, m.dirty + n.dirty, m.proportional + n.proportional}
}

func memoryOf(pid int) (memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return memory{}, fmt.Errorf("cannot read the memory of process %d: %w", pid, err)
	}
	var values [3]float64
	for i, field := range []string{"Private_Clean", "Private_Dirty", "Pss"} {
		if values[i], err = kilobytes(string(text), field); err != nil {
			return memory{}, fmt.Errorf("cannot read the memory of process %d: %w", pid, err)
		}
	}
	return memory{values[0] * 1024, values[1] * 1024, values[2] * 1024}, nil
}

// kilobytes returns one field of smaps_rollup.
func kilobytes(text, field string) (float64, error) {
	_, after, ok := strings.Cut(text, "\n"+field+":")
	value, _, _ := strings.Cut(after, " kB")
	if !ok {
		return 0, fmt.Errorf("there is no %s", field)
	}
	return strconv.ParseFloat(strings.TrimSpace(value), 64)
}

// stats is the memory that docker stats shows, in bytes.
func (c *container) stats(ctx context.Context) (float64, error) {
	out, err := c.docker.out(ctx, "stats", "--no-stream", "--format", "{{.MemUsage}}", c.id)
	if err != nil {
		return 0, err
	}
	used, _, _ := strings.Cut(out, " / ")
	return parseSize(used)
}

// parseSize reads docker's 12.3MiB.
func parseSize(text string) (float64, error) {
	for suffix, factor := range map[string]float64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			n, err := strconv.ParseFloat(number, 64)
			return n * factor, err
		}
	}
	return 0, fmt.Errorf("cannot read the size %q", text)
}

func sizeJob() job {
	return job{
		name:  "size",
		title: "sizes on disk",
		how:   "docker image inspect, uncompressed, base system included; the binaries as built.",
		run: func(ctx context.Context, l *lab, r *Result) error {
			out, err := l.docker.out(ctx, "image", "inspect", "-f", "{{.Size}}", l.image)
			if err != nil {
				return err
			}
			bytes, err := strconv.ParseFloat(out, 64)
			if err != nil {
				return fmt.Errorf("cannot read the size of the image: %w", err)
			}
			r.record("image", bytes)
			for _, arch := range []string{"amd64", "arm64"} {
				file, err := os.Stat(filepath.Join(l.bin, "linux-"+arch, "hermes"))
				if err != nil {
					r.Notes = append(r.Notes, "binary "+arch+": not built here")
					continue
				}
				r.record("binary "+arch, float64(file.Size()))
			}
			return nil
		},
	}
}

// record adds a size that has no limit.
func (r *Result) record(what string, bytes float64) {
	r.add(what, megabytes, bytes/megabyte)
	r.claim(Claim{What: "size of the " + what, Unit: megabytes, Measured: bytes / megabyte})
}
