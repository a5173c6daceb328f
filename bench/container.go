package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// patience bounds whatever should take a second or two.
	patience = 60 * time.Second
	// pollEvery is the resolution of every waiting; one poll takes a third of it.
	pollEvery = time.Millisecond
	// pollTimeout ends a question that was lost with the container it was for.
	pollTimeout = 50 * time.Millisecond
	gatewayPort = "8642"
)

// contestant is one way to run something in a container.
type contestant struct {
	name  string
	image string
	flags []string // of docker run
	cmd   []string
}

// container is one container of a contestant, removed by remove or by sweep.
type container struct {
	docker docker
	id     string
	port   int // of the gateway, on 127.0.0.1; 0 if it has none
}

// arguments are what docker run and docker create have in common. The image's
// health check is off everywhere: it is the same for all, and noise.
func (d docker) arguments(c contestant, flags ...string) []string {
	args := append([]string{"--label", d.labelled(), "--no-healthcheck"}, flags...)
	return append(append(append(args, c.flags...), c.image), c.cmd...)
}

// create makes a container whose gateway will answer on a free port of
// 127.0.0.1. The port is chosen here: one chosen by Docker changes when Docker
// restarts the container.
func (d docker) create(ctx context.Context, c contestant) (*container, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	args := d.arguments(c, "-p", fmt.Sprintf("127.0.0.1:%d:%s", port, gatewayPort),
		"-e", "API_SERVER_HOST=0.0.0.0", "-e", "API_SERVER_KEY=bench")
	id, err := d.out(ctx, append([]string{"create"}, args...)...)
	return &container{docker: d, id: id, port: port}, err
}

// serving makes a container, starts it and waits until its gateway is ready.
func (d docker) serving(ctx context.Context, c contestant) (*container, error) {
	box, err := d.create(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := box.start(ctx); err != nil {
		return nil, err
	}
	if err := box.awaitReady(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return box, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("cannot find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (c *container) start(ctx context.Context) error {
	_, err := c.docker.out(ctx, "start", c.id)
	return err
}

func (c *container) remove(ctx context.Context) error {
	_, err := c.docker.out(ctx, "rm", "-fv", c.id)
	return err
}

// sh runs a line of shell inside, as docker exec does for its user.
func (c *container) sh(ctx context.Context, line string) (string, error) {
	return c.docker.out(ctx, "exec", c.id, "sh", "-c", line)
}

// awaitReady polls /readyz through the published port until it answers 200.
func (c *container) awaitReady(ctx context.Context) error {
	client := &http.Client{Timeout: pollTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	url := fmt.Sprintf("http://127.0.0.1:%d/readyz", c.port)
	return until(ctx, url+" answers 200", func() (bool, error) {
		answer, err := client.Get(url)
		if err != nil {
			return false, nil
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK, nil
	})
}

// process is one process of a container, as the host sees it.
type process struct {
	pid  int
	args string
}

// isGateway tells a gateway from an init or a wrapper that has one as argument.
func (p process) isGateway() bool {
	program, rest, _ := strings.Cut(p.args, " ")
	return program[strings.LastIndex(program, "/")+1:] == "hermes" && strings.HasPrefix(rest, "gateway run")
}

func (c *container) processes(ctx context.Context) ([]process, error) {
	table, err := c.docker.out(ctx, "top", c.id, "-eo", "pid,args")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, line := range strings.Split(table, "\n")[1:] {
		pid, args, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(pid)
		if err != nil {
			return nil, fmt.Errorf("cannot read the process table of the container: %q", line)
		}
		all = append(all, process{n, strings.TrimSpace(args)})
	}
	return all, nil
}

// killGateway kills the one gateway of the container with -9 and returns when
// it is dead, with the time of the kill.
func (c *container) killGateway(ctx context.Context) (time.Time, error) {
	all, err := c.processes(ctx)
	if err != nil {
		return time.Time{}, err
	}
	var gateways []int
	for _, p := range all {
		if p.isGateway() {
			gateways = append(gateways, p.pid)
		}
	}
	if len(gateways) != 1 {
		return time.Time{}, fmt.Errorf("cannot kill the gateway: there are %d in %v", len(gateways), all)
	}
	killed := time.Now()
	if err := syscall.Kill(gateways[0], syscall.SIGKILL); err != nil {
		return killed, fmt.Errorf("cannot kill the gateway: %w", err)
	}
	return killed, until(ctx, "the gateway is dead", func() (bool, error) { return dead(gateways[0]), nil })
}

// dead says whether pid is gone or a zombie.
func dead(pid int) bool {
	fields, err := stat(pid)
	return err != nil || fields[0] == "Z" || fields[0] == "X"
}

// stat is what the kernel says of a process, from its state on (proc(5), the
// third field of stat; the name before it may have spaces and brackets).
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return nil, fmt.Errorf("cannot read what the kernel says of process %d: %q", pid, text)
	}
	return fields, nil
}

// until polls check until it is true, fails, or patience ends.
func until(ctx context.Context, what string, check func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("patience ended"))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if ok, err := check(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot wait until %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// pause waits for d, as a period of health needs.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
