package supervise

import (
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/profile"
)

// Spec is what a slot runs: data, never a script.
type Spec struct {
	Name    string   `json:"name"`
	Kind    Kind     `json:"kind"`
	Profile string   `json:"profile,omitempty"` // of a gateway
	Args    []string `json:"args"`              // arguments of hermes; for KindService the whole argv
	Home    string   `json:"home"`              // data directory
	RunDir  string   `json:"run_dir"`
	LogDir  string   `json:"log_dir,omitempty"` // rotated files; "" logs to stdout only
	Prefix  string   `json:"prefix,omitempty"`  // of its lines on the container's stdout

	// OwnsEnvironment lets the slot see credentials and ports in the
	// container's environment: they belong to one profile, the main program's.
	OwnsEnvironment bool `json:"owns_environment,omitempty"`
	// UID and GID are who the slot runs as when its supervisor is root (a
	// guest in somebody else's tree); 0 changes nothing.
	UID int `json:"uid,omitempty"`
	GID int `json:"gid,omitempty"`

	BackoffMax time.Duration `json:"backoff_max"` // longest pause between starts
	// StopTimeout is how long a stop may take before KILL.
	StopTimeout time.Duration `json:"stop_timeout"`
	// Source is the service directory of a user's own service.
	Source string `json:"source,omitempty"`
	// Mark is the NAME=VALUE that every process of the slot carries in its
	// environment.
	Mark string `json:"mark"`
}

const gatewayPrefix = "gateway-"

// DashboardName is the slot of the dashboard.
const DashboardName = "dashboard"

// GuardName is the slot of the guard.
const GuardName = "guard"

// Reserved says whether a slot called name is hermes' own, now or once there is
// a profile for it.
func Reserved(name string) bool {
	return name == GuardName || name == DashboardName || strings.HasPrefix(name, gatewayPrefix)
}

// GatewayName is the slot of a profile's gateway.
func GatewayName(profileName string) string {
	if profileName == "" {
		profileName = profile.Default
	}
	return gatewayPrefix + profileName
}

// ProfileOf returns the profile that a slot called name serves.
func ProfileOf(name string) (string, bool) {
	p, ok := strings.CutPrefix(name, gatewayPrefix)
	return p, ok && (p == profile.Default || profile.ValidName(p))
}

// Place is what every spec of one tree shares.
type Place struct {
	Home        string // data directory
	RunDir      string
	BootID      string // of the tree; "" in a tree that is not ours
	BackoffMax  time.Duration
	StopTimeout time.Duration
}

// Gateway returns the slot of a profile's gateway. args are the flags that
// follow `gateway run --replace`; owns says that the container's environment
// speaks of this profile.
func (p Place) Gateway(profileName string, args []string, owns bool) Spec {
	argv := []string{"gateway", "run", "--replace"}
	if profileName != profile.Default {
		argv = append([]string{"-p", profileName}, argv...)
	}
	s := p.spec(GatewayName(profileName), KindGateway, append(argv, args...))
	s.Profile, s.OwnsEnvironment = profileName, owns
	s.Prefix = "[" + profileName + "]"
	s.LogDir = filepath.Join(p.Home, "logs", "gateways", profileName)
	return s
}

// Dashboard returns the slot of the dashboard.
func (p Place) Dashboard() Spec {
	s := p.spec(DashboardName, KindDashboard, []string{"dashboard"})
	s.Prefix = "[" + DashboardName + "]"
	s.LogDir = filepath.Join(p.Home, "logs", DashboardName)
	return s
}

// Guard returns the slot of the guard; args are its flags.
func (p Place) Guard(args ...string) Spec {
	s := p.spec(GuardName, KindGuard, append([]string{"boot", GuardName}, args...))
	s.Prefix = "[" + GuardName + "]"
	s.LogDir = filepath.Join(p.Home, "logs", GuardName)
	return s
}

// Service returns the slot of a user's own service directory.
func (p Place) Service(name, source string) Spec {
	s := p.spec(name, KindService, nil)
	s.Source = source
	return s
}

func (p Place) spec(name string, kind Kind, args []string) Spec {
	return Spec{
		Name: name, Kind: kind, Args: args, Home: p.Home, RunDir: p.RunDir,
		BackoffMax: p.BackoffMax, StopTimeout: p.StopTimeout,
		// The boot's own number keeps containers that share a pid namespace apart.
		Mark: MarkVar + "=" + name + "@" + p.RunDir + "#" + p.BootID,
	}
}

// MarkVar is the variable that marks every process of a slot.
const MarkVar = "HERMES_SLOT"

// ErrStopping: the container is on its way down, nothing starts any more.
var ErrStopping = errors.New("the container is stopping")
