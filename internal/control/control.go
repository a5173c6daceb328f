// Package control is the control socket of a gateway: JSON over HTTP over a
// unix socket that only the gateway's own user and root may use, so it needs no
// key. It has both sides: Listen and Serve for the gateway, Client for the
// command line, the dashboard and the guard.
//
// One process at a time listens in a run directory, whoever holds the kernel's
// lock beside the socket. That is not the lease of the profile: a gateway in
// standby has its own run directory, listens there and says "standby". What a
// gateway does when asked is the Handler's business.
//
//	status, err := control.Dial(control.SocketPath("/run", "default")).Status(ctx)
//	if errors.Is(err, control.ErrNoGateway) { … }
package control

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/supervise"
)

// Schema is the present version of Status.
const Schema = 1

// The paths of the protocol. Below apiPrefix lies the gateway's own API, below
// adminPrefix the operator's door to what the profile keeps.
const (
	statusPath  = "/status"
	drainPath   = "/drain"
	stacksPath  = "/stacks"
	checkPath   = "/check"
	apiPrefix   = "/v1/"
	adminPrefix = "/admin/"
	// deadlockPath is for tests; a gateway refuses unless it was started for one.
	deadlockPath = "/test/deadlock"
)

// maxSocketPath is sizeof(sun_path) of unix(7) less the closing zero: 107 bytes on
// Linux, 103 on macOS and FreeBSD.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// ErrNoGateway means that nobody listens on the socket.
var ErrNoGateway = errors.New("no gateway is listening")

// ErrInUse means that another living process listens on the socket.
var ErrInUse = errors.New("another gateway listens on this control socket")

// Status is what a gateway says of itself. Every key is always present; times
// are UTC.
type Status struct {
	Schema     int                  `json:"schema"`
	Profile    string               `json:"profile"`
	Home       string               `json:"home"` // of the profile
	PID        int                  `json:"pid"`
	State      supervise.State      `json:"state"`
	Reason     string               `json:"reason"`
	Since      time.Time            `json:"since"`   // of State
	Started    time.Time            `json:"started"` // of the process
	Version    string               `json:"version"`
	Supervised bool                 `json:"supervised"`
	Address    string               `json:"address"` // of the HTTP API, host:port; empty before it listens
	Model      string               `json:"model"`   // as /v1/models names it; empty before it is built
	Holder     *supervise.Holder    `json:"holder"`  // in standby: who has the profile
	Platforms  []supervise.Platform `json:"platforms"`
}

// DrainRequest asks a gateway to finish what it has and leave.
type DrainRequest struct {
	By     string `json:"by"` // who asks, for the log
	Reason string `json:"reason"`
}

// Handler answers on behalf of a gateway. Its methods are called concurrently
// and must not block: a guard takes silence for death.
type Handler interface {
	Status() Status
	// Drain begins to drain and returns; asking again is no error.
	Drain(DrainRequest) error
	// Stacks returns the stack of every goroutine as text.
	Stacks() []byte
}

// Checker is a Handler that can look at its database. CheckDatabase may block for
// some seconds; it returns what is wrong in words.
type Checker interface {
	CheckDatabase(ctx context.Context) (problems []string, err error)
}

// checked is the answer of the check.
type checked struct {
	Problems []string `json:"problems"`
}

// Deadlocker is what a Handler may be besides: it stops answering on request, as
// a bug might, so that a test can see who notices. It refuses unless its process
// was started for that.
type Deadlocker interface {
	Deadlock() error
}

// SocketPath returns where the gateway of profile listens.
func SocketPath(runDir, profile string) string {
	return filepath.Join(runDir, "hermes", profile+".sock")
}

// checkLength refuses a path that the kernel cannot hold.
func checkLength(path string) error {
	if len(path) <= maxSocketPath {
		return nil
	}
	return exitcode.With(exitcode.Config, fmt.Errorf(
		"cannot use control socket %q: its path is %d bytes long and the system allows %d; set HERMES_RUN_DIR to a shorter directory",
		path, len(path), maxSocketPath))
}
