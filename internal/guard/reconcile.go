package guard

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise"
)

// Action is what a reconciler asks of a fleet for one profile.
type Action string

// The actions.
const (
	Register Action = "register" // a slot, down
	Start    Action = "start"
	Stop     Action = "stop"
	Remove   Action = "remove" // stop, and unregister
)

const (
	// settleLooks is for how many looks after a change the slots are looked at
	// too, and the directory is read again: two changes within one tick of the
	// file system's clock leave one time stamp.
	settleLooks = 3
	// disagreeLooks is how many looks a slot must disagree before it is told: the
	// command that wrote the intent is about to do that itself.
	disagreeLooks = 2
	// attempts is how often an action that fails is tried before the next
	// change.
	attempts = 3
)

// Fleet is the slots of the profiles' gateways.
type Fleet interface {
	// Wanted tells for each profile that has a slot whether that is wanted up.
	// One that is parked, pauses, or cannot be read yet is.
	Wanted() (map[string]bool, error)
	// Apply does one thing to the slot of a profile; it may block for as long as
	// a service takes to stop. Done already is success.
	Apply(ctx context.Context, p profile.Profile, a Action) error
	// Stopping says that the container is on its way down.
	Stopping() bool
}

// Reconciler makes the slots follow the volume, which others write as well: a
// profile that appears gets a slot, one that is gone loses it, an intent that
// changes is followed. When it begins everything counts as changed; from then on
// what an operator, the crash policy or s6 did to a slot since is left alone.
type Reconciler struct {
	Home  string // data directory
	Leave string // the profile of a foreground gateway; "" for none
	Fleet Fleet
	Log   *slog.Logger

	profiles []profile.Profile
	listed   stamp // of profiles/, when it was read
	known    map[string]*entry
	orphans  map[string]int  // looks for which a slot has had no profile
	busy     map[string]bool // an action is under way
	results  chan result
	wg       sync.WaitGroup
	hot      int // looks for which the slots are looked at still
	begun    bool
}

// entry is what is known of one profile.
type entry struct {
	path     string // of its intent
	seen     stamp
	want     supervise.Want // "" when nobody said, or it cannot be read
	fresh    bool           // it appeared under our eyes
	open     bool           // a change that the slot may not follow yet
	disagree int
	failed   int
}

type result struct {
	name   string
	action Action
	err    error
}

// stamp tells whether a file is still the one that was read.
type stamp struct {
	at   time.Time
	size int64
	dev  uint64
	ino  uint64
}

func stampOf(path string) stamp {
	fi, err := os.Lstat(path)
	if err != nil {
		return stamp{}
	}
	dev, ino := proc.FileID(fi)
	return stamp{fi.ModTime(), fi.Size(), dev, ino}
}

// Run follows the volume until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	r.known, r.orphans, r.busy = map[string]*entry{}, map[string]int{}, map[string]bool{}
	r.results = make(chan result)
	ctx, stop := context.WithCancel(ctx)
	defer r.wg.Wait()
	defer stop()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		r.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case res := <-r.results:
			r.done(res)
		}
	}
}

// look costs one stat for each profile while nothing changes.
func (r *Reconciler) look(ctx context.Context) {
	if r.Fleet.Stopping() {
		return
	}
	r.readProfiles()
	for _, p := range r.profiles {
		r.readIntent(p)
	}
	r.begun = true
	if r.hot == 0 {
		return
	}
	r.hot--
	slots, err := r.Fleet.Wanted()
	if err != nil {
		r.Log.Warn("cannot list the slots", "error", err)
		return
	}
	for _, p := range r.profiles {
		r.follow(ctx, p, slots)
	}
	r.removeOrphans(ctx, slots)
}

// readProfiles reads profiles/ again when it changed, or has just changed.
func (r *Reconciler) readProfiles() {
	now := stampOf(filepath.Join(r.Home, "profiles"))
	if r.begun && now == r.listed && r.hot == 0 {
		return
	}
	if now != r.listed || !r.begun {
		r.hot = settleLooks
	}
	list, err := profile.List(r.Home)
	if err != nil {
		return // the next look
	}
	r.listed, r.profiles = now, list
	there := make(map[string]bool, len(list))
	for _, p := range list {
		there[p.Name] = true
		if r.known[p.Name] == nil {
			r.known[p.Name] = &entry{path: filepath.Join(p.Home, intent.FileName), fresh: r.begun, open: true}
		}
	}
	for name := range r.known {
		if !there[name] {
			delete(r.known, name)
		}
	}
}

// readIntent reads an intent that is not the one it was.
func (r *Reconciler) readIntent(p profile.Profile) {
	e := r.known[p.Name]
	now := stampOf(e.path)
	if now == e.seen {
		return
	}
	e.seen, e.open, e.disagree, e.failed, r.hot = now, true, 0, 0, settleLooks
	i, ok, err := intent.Read(p.Home)
	switch {
	case err != nil:
		r.Log.Warn("intent left alone", "profile", p.Name, "error", err)
		e.want = ""
	case ok:
		e.want = i.Want
	default:
		e.want = ""
	}
}

// follow makes the slot of one profile agree with an intent that changed.
func (r *Reconciler) follow(ctx context.Context, p profile.Profile, slots map[string]bool) {
	e := r.known[p.Name]
	up, registered := slots[p.Name]
	switch {
	case !e.open || r.busy[p.Name] || p.Name == r.Leave:
	case !registered && (e.fresh || e.want == supervise.WantUp):
		r.apply(ctx, p, Register)
	case !registered, e.want == "", up == (e.want == supervise.WantUp):
		e.open = false
	case e.disagree < disagreeLooks-1:
		e.disagree++
		r.hot = max(r.hot, 1)
	case up:
		r.apply(ctx, p, Stop)
	default:
		r.apply(ctx, p, Start)
	}
}

// removeOrphans takes away the slots whose profile is gone for good: that of a
// profile that is being renamed, or a volume that is not there at the moment,
// stays.
func (r *Reconciler) removeOrphans(ctx context.Context, slots map[string]bool) {
	for name := range slots {
		p := profile.Profile{Name: name, Home: filepath.Join(r.Home, "profiles", name)}
		if r.known[name] != nil || name == r.Leave || r.busy[name] || !gone(p.Home) {
			delete(r.orphans, name)
			continue
		}
		if r.orphans[name]++; r.orphans[name] >= disagreeLooks {
			r.apply(ctx, p, Remove)
		}
		r.hot = max(r.hot, 1)
	}
}

// gone says that a directory is not there though the one around it is.
func gone(home string) bool {
	_, err := os.Lstat(home)
	around, err2 := os.Stat(filepath.Dir(home))
	return errors.Is(err, os.ErrNotExist) && err2 == nil && around.IsDir()
}

func (r *Reconciler) apply(ctx context.Context, p profile.Profile, a Action) {
	r.busy[p.Name] = true
	r.Log.Info("slot follows the volume", "slot", supervise.GatewayName(p.Name), "action", string(a))
	r.wg.Go(func() {
		res := result{p.Name, a, r.Fleet.Apply(ctx, p, a)}
		select {
		case r.results <- res:
		case <-ctx.Done():
		}
	})
}

// done takes in how an action ended; one that failed is tried again, a few
// times.
func (r *Reconciler) done(res result) {
	delete(r.busy, res.name)
	r.hot = max(r.hot, 1)
	e := r.known[res.name]
	if res.err == nil {
		delete(r.orphans, res.name)
		if e != nil {
			e.fresh, e.disagree = false, disagreeLooks // a start after Register need not wait
			e.open = res.action == Register
		}
		return
	}
	r.Log.Warn("cannot make the slot follow the volume", "profile", res.name, "action", string(res.action), "error", res.err)
	if e == nil {
		r.orphans[res.name] = -attempts * settleLooks // not at once
		return
	}
	if e.failed++; e.failed >= attempts {
		e.open = false
	}
}
