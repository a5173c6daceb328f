package app

import (
	"context"
	"fmt"
	"time"

	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/sdnotify"
)

// statusPause is how late a change of state may show in `systemctl status`
// where no watchdog sets a shorter pause.
const statusPause = 10 * time.Second

// tell sends to the service manager. One that is gone is worth a line.
func (p *gatewayProcess) tell(messages ...string) {
	p.warn("the service manager was not told", p.o.ServiceManager.Send(messages...))
}

// keepTelling has the gateway asked on its control socket, as anybody would ask
// it, and tells the service manager that it lives only when it has answered,
// and its state when that changed. It ends with ctx.
func (p *gatewayProcess) keepTelling(ctx context.Context) {
	if p.o.ServiceManager == nil {
		return
	}
	pause := statusPause
	if w := p.o.ServiceManager.Watchdog(); w > 0 {
		pause = w / 2
	}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		limited, cancel := context.WithTimeout(ctx, pause)
		s, err := p.dial().Status(limited)
		cancel()
		if err != nil {
			continue // deaf: the watchdog will notice
		}
		messages := []string{sdnotify.Alive}
		if text := statusText(s); text != last {
			messages, last = append(messages, sdnotify.Status(text)), text
		}
		p.tell(messages...)
	}
}

// statusText is one line about a gateway, for `systemctl status`.
func statusText(s control.Status) string {
	if s.Reason == "" {
		return fmt.Sprintf("%s, API on %s", s.State, s.Address)
	}
	return fmt.Sprintf("%s: %s", s.State, s.Reason)
}
