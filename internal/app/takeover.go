package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/lease"
	"github.com/hermesgw/hermes/internal/supervise"
)

// takeLease makes this process the holder of its profile, and nobody starts
// anything before it has returned nil. Where the profile is held:
//
//	--replace, and the holder answers in our run directory → it is asked to hand over
//	a supervised holder, and we are not                    → refused: its slot would start it again
//	supervised                                             → standby until the holder is gone
//	foreground                                             → refused, naming the holder
func (p *gatewayProcess) takeLease(ctx context.Context) error {
	self := p.self()
	l, err := lease.TryAcquire(p.o.Profile.Home, self)
	var held *lease.HeldError
	if errors.As(err, &held) {
		l, err = p.waitOrRefuse(ctx, self, held)
	}
	if err != nil {
		return err
	}
	p.leaseTaken(l)
	return nil
}

func (p *gatewayProcess) self() lease.Holder {
	host, err := os.Hostname()
	if err != nil {
		host = "an unnamed host"
	}
	return lease.Holder{Host: host, PID: os.Getpid(), Since: p.started, RunDir: p.o.RunDir, Supervised: p.o.Supervised}
}

// leaseTaken puts the lease first in line, so that it is given back last, also
// when standby opened the control socket before.
func (p *gatewayProcess) leaseTaken(l *lease.Lease) {
	p.cleanup = append([]func(){l.Release}, p.cleanup...)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holder, p.since = nil, time.Now().UTC()
}

func (p *gatewayProcess) waitOrRefuse(ctx context.Context, self lease.Holder, held *lease.HeldError) (*lease.Lease, error) {
	neighbour, found := p.neighbour(ctx)
	if found && neighbour.Supervised && !p.o.Supervised {
		return nil, fmt.Errorf("profile %q is run by a supervised gateway (pid %d); stop it first with: hermes %sgateway stop",
			p.o.Profile.Name, neighbour.PID, p.flag())
	}
	replacing := found && p.o.Replace
	if replacing {
		if err := p.askToLeave(ctx); err != nil {
			return nil, err
		}
	}
	switch {
	case p.o.Supervised:
		return p.standby(ctx, self)
	case replacing:
		return p.handover(ctx, self, held)
	default:
		return nil, p.refusal(held.Holder)
	}
}

// neighbour asks who answers on the control socket of our own run directory. It
// counts only if it is at home where we are: the answer, not the text in the
// lock file, says so.
func (p *gatewayProcess) neighbour(ctx context.Context) (control.Status, bool) {
	limited, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s, err := p.dial().Status(limited)
	return s, err == nil && s.Home == p.o.Profile.Home
}

func (p *gatewayProcess) dial() *control.Client {
	return control.Dial(control.SocketPath(p.o.RunDir, p.o.Profile.Name))
}

func (p *gatewayProcess) askToLeave(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err := p.dial().Drain(limited, control.DrainRequest{
		By: fmt.Sprintf("pid %d", os.Getpid()), Reason: "hermes gateway run --replace",
	})
	if err != nil && !errors.Is(err, control.ErrNoGateway) { // gone already is as good
		return fmt.Errorf("cannot replace the running gateway: %w", err)
	}
	return nil
}

// handover waits for a foreground holder that has agreed to leave.
func (p *gatewayProcess) handover(ctx context.Context, self lease.Holder, held *lease.HeldError) (*lease.Lease, error) {
	limited, cancel := context.WithTimeout(ctx, p.o.StopTimeout+closeReserve)
	defer cancel()
	l, err := lease.Acquire(limited, p.o.Profile.Home, self, nil)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("the running gateway did not hand over in time: %w", p.refusal(held.Holder))
	}
	return l, err
}

// standby waits as long as it takes, calmly, and says so where it is asked.
func (p *gatewayProcess) standby(ctx context.Context, self lease.Holder) (*lease.Lease, error) {
	waiting, stop := context.WithCancel(ctx)
	answering := make(chan struct{})
	go func() { defer close(answering); p.answerInStandby(waiting) }()
	l, err := lease.Acquire(ctx, p.o.Profile.Home, self, p.heldBy)
	stop()
	<-answering
	return l, err
}

// answerInStandby opens the control socket as soon as nobody else has it: at
// once in a run directory of our own, after the holder in a shared one.
func (p *gatewayProcess) answerInStandby(ctx context.Context) {
	tick := time.NewTicker(lease.RetryEvery)
	defer tick.Stop()
	for {
		err := p.listenControl(ctx)
		if err == nil {
			return
		}
		if !errors.Is(err, control.ErrInUse) {
			p.o.Log.Warn("standby cannot be asked", "error", err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// heldBy is told each new holder.
func (p *gatewayProcess) heldBy(h lease.Holder) {
	p.o.Log.Info("standby: the profile is held by another gateway", "profile", p.o.Profile.Name,
		"host", h.Host, "pid", h.PID, "since", h.Since.UTC().Format(time.RFC3339))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holder = &supervise.Holder{Host: h.Host, PID: h.PID, Since: h.Since.UTC()}
}

// refusal names the holder and what to do.
func (p *gatewayProcess) refusal(h lease.Holder) error {
	name := p.o.Profile.Name
	switch {
	case h.Host == "":
		return fmt.Errorf("profile %q is held by another process; stop it first", name)
	case h.RunDir == p.o.RunDir && h.Host == p.self().Host:
		return fmt.Errorf("profile %q is held by pid %d since %s; stop it, or take over with: hermes %sgateway run --replace",
			name, h.PID, h.Since.UTC().Format(time.RFC3339), p.flag())
	default:
		return fmt.Errorf("profile %q is held by %s since %s; stop it there", name, h.Host, h.Since.UTC().Format(time.RFC3339))
	}
}

// flag is what a command that means our profile begins with.
func (p *gatewayProcess) flag() string { return flagOf(p.o.Profile) }
