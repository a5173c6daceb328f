package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/supervise"
)

// The directories of s6-overlay's users.
const (
	initHooks    = "etc/cont-init.d"
	finishHooks  = "etc/cont-finish.d"
	userServices = "etc/services.d"
)

// hookFailure is one hook that did not succeed.
type hookFailure struct {
	path string
	uid  int
	err  error
}

// Error names the hook and the user it ran as: what needs root fails here
// first.
func (f hookFailure) Error() string {
	return fmt.Sprintf("%s failed as uid %d: %v; hooks run as the service user, never as root: do what needs root in the Dockerfile",
		f.path, f.uid, f.err)
}

// runHooks executes every regular file of dir in lexical order and returns the
// ones that failed. A missing directory has no hooks.
func runHooks(ctx context.Context, dir string, env environment, each time.Duration) []hookFailure {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return []hookFailure{{dir, os.Getuid(), err}}
	}
	var failed []hookFailure
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() {
			continue
		}
		if err := runHook(ctx, path, env, each); err != nil {
			failed = append(failed, hookFailure{path, os.Getuid(), err})
		}
	}
	return failed
}

func runHook(ctx context.Context, path string, env environment, limit time.Duration) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, os.Stdout, os.Stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("still running after its time: %w", ctx.Err())
	}
	return err
}

// initHooks runs /etc/cont-init.d. S6_BEHAVIOUR_IF_STAGE2_FAILS decides what a
// failure means: 0 and 1 go on (and say so), 2 stops the container.
func (b *booter) runInitHooks(ctx context.Context) error {
	dir := b.path(initHooks)
	if isEmptyDir(dir) {
		return nil // and nobody added to the environment
	}
	failed := runHooks(ctx, dir, b.env, 0)
	for _, f := range failed {
		b.say("hermes: %s", f.Error())
	}
	if len(failed) > 0 && b.env.or("S6_BEHAVIOUR_IF_STAGE2_FAILS", "0") == "2" {
		return exitcode.With(exitcode.Failed, fmt.Errorf(
			"%d hooks in /%s failed and S6_BEHAVIOUR_IF_STAGE2_FAILS is 2: the container stops", len(failed), initHooks))
	}
	var err error
	b.env, err = LoadEnvironment(b.run.Environment()) // hooks may have added to it
	return err
}

// userServiceNames lists the service directories of /etc/services.d that have
// a run file, sorted. One that is called like a service of ours is left out, and
// named; one that begins with a dot is none, as s6-svscan has it.
func (b *booter) userServiceNames() []string {
	entries, err := os.ReadDir(b.path(userServices))
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		_, err := os.Stat(b.path(userServices, e.Name(), "run"))
		switch {
		case err != nil || strings.HasPrefix(e.Name(), "."):
		case supervise.Reserved(e.Name()):
			b.say("hermes: /%s/%s is not started: guard, dashboard and gateway-… are names of hermes' own services; give the directory another name",
				userServices, e.Name())
		default:
			names = append(names, e.Name())
		}
	}
	return names
}

// finishHookLimit is S6_KILL_FINISH_MAXTIME in milliseconds, 5000 by default.
func finishHookLimit(env environment) time.Duration {
	ms, err := strconv.Atoi(env.or("S6_KILL_FINISH_MAXTIME", "5000"))
	if err != nil || ms <= 0 {
		ms = 5000
	}
	return time.Duration(ms) * time.Millisecond
}
