package slot

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/rundir"
	"github.com/hermesgw/hermes/internal/runmode"
	"github.com/hermesgw/hermes/internal/supervise"
)

// Environment is the environment of a slot's service: the container's, minus
// what is withheld from it, plus what the entry sets, whose names are own. The
// entry adds TMPDIR where the container has none.
func Environment(environ []string, spec supervise.Spec) (env, own []string, withheld []config.Withheld) {
	env, withheld = config.Withhold(environ, viewer(spec))
	set := []string{
		runmode.EnvSentinel + "=1",
		EnvNotify + "=" + strconv.Itoa(NotifyFD),
		"HERMES_HOME=" + spec.Home,
		"HERMES_RUN_DIR=" + spec.RunDir,
		EnvLastWords + "=" + LastWordsPath(spec),
		spec.Mark,
	}
	for _, entry := range set {
		name, _, _ := strings.Cut(entry, "=")
		own = append(own, name)
	}
	if !hasTemp(env) {
		own = append(own, tempVariable)
	}
	return setEnv(env, set...), own, withheld
}

func viewer(spec supervise.Spec) config.Viewer {
	switch {
	case spec.Kind == supervise.KindDashboard:
		return config.DashboardSlot
	case spec.Kind == supervise.KindGuard:
		return config.GuardSlot
	case spec.OwnsEnvironment:
		return config.OwningGateway
	}
	return config.OtherGateway
}

// tempVariable names the directory for temporary files (POSIX).
const tempVariable = "TMPDIR"

const (
	// tempLimit is what finish has left for the run's temporary files: it is
	// killed after three seconds, and up to two go into the sweep.
	tempLimit = 500 * time.Millisecond
	// staleTempLimit is how long a start is held up by those that were left.
	staleTempLimit = 2 * time.Second
)

// tempPattern is where the temporary files of a slot's runs are: in the run
// directory, which a boot wipes. A shared /tmp could hold those of another
// container's slot of the same name.
func tempPattern(spec supervise.Spec) string {
	return filepath.Join(rundir.Dir(spec.RunDir).Hermes(), spec.Name+".tmp-*")
}

func hasTemp(env []string) bool {
	return slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, tempVariable+"=") && e != tempVariable+"=" })
}

// makeTemp makes a directory for the temporary files of this run and adds it
// to env; the caller is the service's user. A TMPDIR of the container's own is
// left as it is. Without one the service uses /tmp, as it would anywhere.
func makeTemp(spec supervise.Spec, env []string) []string {
	if hasTemp(env) {
		return env
	}
	pattern := tempPattern(spec)
	dir, err := os.MkdirTemp(filepath.Dir(pattern), filepath.Base(pattern))
	if err != nil {
		fmt.Fprintf(os.Stderr, "hermes: %s: temporary files go to /tmp and stay there: %v\n", spec.Name, err)
		return env
	}
	return setEnv(env, tempVariable+"="+dir)
}

// removeTemp removes what the runs of this slot left, for limit at most: there
// may be gigabytes. The next start or finish goes on with the rest.
func removeTemp(spec supervise.Spec, limit time.Duration) {
	if spec.Kind == supervise.KindService { // of a user's own, which may be called *
		return
	}
	dirs, _ := filepath.Glob(tempPattern(spec))
	if len(dirs) == 0 {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, dir := range dirs {
			_ = os.RemoveAll(dir) // does not follow links
		}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C: // the exec or the exit that follows ends it
	}
}
