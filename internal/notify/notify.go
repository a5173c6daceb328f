// Package notify tells an operator what becomes of the services: over a webhook,
// when one stops serving, still does not, or serves again. What is told, and how
// seldom, is Teller's to decide; Webhook sends; Notifier joins the two with a
// clock and a file that remembers.
//
// It never holds anything up and changes nothing: a receiver that is slow, or
// gone, costs messages. It decides no restart and asks no service itself.
//
//	n := notify.Notifier{List: list, Webhook: settings, File: path, Host: host, Log: log}
//	err := n.Run(ctx)
package notify

import (
	"context"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

// FileName is what was told, below the data directory.
const FileName = "notify.json"

const (
	// lookEvery is how often the services are looked at. What dies and is well
	// again meanwhile shows in its count of restarts.
	lookEvery = 5 * time.Second
	// settingsEvery is how soon a webhook that was set or changed is used.
	settingsEvery = 15 * time.Second
	maxFile       = 4 << 20 // bytes; a service has some 200
	fileMode      = 0o640
)

// Notifier watches and tells. All fields are required.
type Notifier struct {
	// List tells how the services are. It must not block for long.
	List func(ctx context.Context) ([]supervise.Service, error)
	// Webhook is where messages go according to the settings of this moment.
	Webhook func() (Webhook, error)
	// Stopping says that the container is on its way down: that is no news.
	Stopping func() bool
	File     string // what was told, see FileName
	Host     string
	Log      *slog.Logger

	teller *Teller // nil while there is no webhook
	hook   Webhook
	read   time.Time // when the settings were read
	said   string    // about the settings; said once
}

// outcome is how the sending of an event ended.
type outcome struct {
	event Event
	err   error
}

// Run tells until ctx ends. One message is under way at a time; what changes
// meanwhile is told after it, if it still is so.
func (n *Notifier) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	outcomes := make(chan outcome, 1)
	busy := false
	defer func() {
		stop()
		if busy {
			<-outcomes
		}
	}()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	n.look(ctx)
	for {
		if !busy {
			if e, ok := n.next(); ok {
				busy = true
				hook := n.hook
				go func() { outcomes <- outcome{e, hook.Send(ctx, e)} }()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			n.look(ctx)
		case o := <-outcomes:
			busy = false
			n.done(o)
		}
	}
}

// look reads the settings when it is time to, and looks at the services where
// somebody is to be told.
func (n *Notifier) look(ctx context.Context) {
	if now := time.Now(); n.read.IsZero() || now.Sub(n.read) >= settingsEvery {
		n.read = now
		n.settle(n.Webhook())
	}
	if n.teller == nil || n.Stopping() {
		return
	}
	services, err := n.List(ctx)
	if err != nil {
		return // the guard, whose services they are, says so
	}
	n.teller.See(time.Now(), services)
}

// settle takes the settings in. Those that cannot be read are named once, and
// the last good ones stay: half an edit must not silence a failure.
func (n *Notifier) settle(hook Webhook, err error) {
	if err != nil {
		n.say("cannot tell where the operator is told what becomes of the services", err)
		hook = n.hook
	}
	switch n.hook = hook; {
	case !n.hook.URL.IsSet():
		n.teller = nil
	case n.teller == nil:
		n.teller = NewTeller(n.Host, n.remember())
		n.Log.Info("a webhook is told what becomes of the services")
	}
}

func (n *Notifier) say(what string, err error) {
	if err.Error() != n.said {
		n.said = err.Error()
		n.Log.Warn(what, "error", err)
	}
}

func (n *Notifier) next() (Event, bool) {
	if n.teller == nil || n.Stopping() {
		return Event{}, false
	}
	return n.teller.Next(time.Now())
}

func (n *Notifier) done(o outcome) {
	if o.err != nil {
		n.Log.Warn("cannot tell the operator", "slot", o.event.Service, "to", string(o.event.To), "error", o.err)
		return
	}
	n.Log.Info("the operator was told", "slot", o.event.Service, "to", string(o.event.To))
	if n.teller == nil {
		return
	}
	n.teller.Done(o.event)
	if err := atomicfile.Write(n.File, n.teller.Memory(), fileMode); err != nil {
		n.say("cannot remember what the operator was told", err)
	}
}

// remember reads what was told before; what cannot be read is forgotten. A link
// or a FIFO in its place leads nowhere and does not block.
func (n *Notifier) remember() []byte {
	f, err := os.OpenFile(n.File, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, maxFile)) // half of it is no JSON
	return data
}
