package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/control"
	"github.com/hermesgw/hermes/internal/guard"
	"github.com/hermesgw/hermes/internal/notify"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/supervise/s6slots"
)

// newNotifier tells an operator what the guard sees, as lister has it.
func newNotifier(lister s6slots.Lister, s *Supervision, log *slog.Logger) *notify.Notifier {
	host, _ := os.Hostname() // without one the messages name none
	return &notify.Notifier{
		List: func(ctx context.Context) ([]supervise.Service, error) {
			report, err := lister.List(ctx, true)
			return report.Services, err
		},
		Webhook:  func() (notify.Webhook, error) { return webhook(s.Home, s.lookup) },
		Stopping: s.Found.Dir.Stopping,
		File:     filepath.Join(s.Home, notify.FileName),
		Host:     host, Log: log,
	}
}

// webhook is where the settings have messages go. Other settings may be wrong:
// the gateway that is parked for that is just what the operator is to hear of.
func webhook(home string, lookup func(string) (string, bool)) (notify.Webhook, error) {
	cfg, errs := config.Check(config.Options{Home: home, Lookup: lookup})
	n := cfg.Notify()
	if !n.URL.IsSet() && len(errs) > 0 {
		// What is wrong is the gateway's to say: it must not stand in the log twice.
		return notify.Webhook{}, errors.New("the settings cannot be read; hermes config check says why")
	}
	return notify.Webhook{URL: n.URL, Secret: n.Secret}, nil
}

// ears keep what the gateways told the guard last, so that nobody asks twice.
type ears struct {
	mu   sync.Mutex
	said map[string]saying // by profile
}

type saying struct {
	pid    int // of the run that was asked
	status control.Status
}

func (e *ears) hear(r guard.Run, s control.Status) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.said[r.Profile] = saying{r.Process.PID, s}
}

func (e *ears) heard(profile string, pid int) *control.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	said, ok := e.said[profile]
	if !ok || said.pid != pid {
		return nil
	}
	return &said.status
}
