package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/testenv"
)

// The same image under Podman: loaded, not built again.

// podmanBox is one container of Podman's.
type podmanBox struct {
	t      testing.TB
	global []string // flags before the subcommand
	name   string
}

func (p podmanBox) run(args ...string) result {
	p.t.Helper()
	cmd := exec.Command("podman", append(slices.Clone(p.global), args...)...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatalf("podman %q: %v", args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func (p podmanBox) must(args ...string) string {
	p.t.Helper()
	r := p.run(args...)
	if r.code != 0 {
		p.t.Fatalf("podman %q: exit code %d\n%s\npodman logs:\n%s", args, r.code, r.both(), p.run("logs", p.name).both())
	}
	return strings.TrimSpace(r.stdout)
}

func (p podmanBox) hermes(args ...string) string {
	p.t.Helper()
	return p.must(append([]string{"exec", p.name, "hermes"}, args...)...)
}

// loadIntoPodman copies the image and returns the name it has there.
func loadIntoPodman(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `docker save "$0" | podman load`, image()).CombinedOutput()
	_, name, found := strings.Cut(string(out), "Loaded image: ")
	if err != nil || !found {
		t.Fatalf("podman load: %v\n%s", err, out)
	}
	name, _, _ = strings.Cut(name, "\n")
	t.Cleanup(func() { podmanBox{t: t}.run("rmi", "-f", name) })
	return name
}

// anywhere returns flags that let Podman run also inside a container, where limits
// cannot be raised, no systemd runs its healthchecks and it owns no bridge.
func anywhere() []string {
	return []string{"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--no-healthcheck", "--network", "none"}
}

// usablePodman finds the runtime that works: crun, Podman's first choice,
// refuses to run where cgroups v1 and v2 are mixed.
func usablePodman(t *testing.T, image string) []string {
	t.Helper()
	var errs []error
	for _, global := range [][]string{nil, {"--runtime", "runc", "--cgroup-manager", "cgroupfs"}} {
		args := append(append([]string{"run", "--rm", "--entrypoint", "true"}, anywhere()...), image)
		r := podmanBox{t: t, global: global}.run(args...)
		if r.code == 0 {
			return global
		}
		errs = append(errs, errorOf(r))
	}
	err := errors.Join(errs...)
	if testenv.Required("podman") {
		t.Fatalf("podman runs nothing here: %v", err)
	}
	t.Skipf("podman runs nothing here: %v", err)
	return nil
}

func TestPodman(t *testing.T) {
	testenv.Need(t, "podman")
	parallel(t)
	loaded := loadIntoPodman(t)
	global := usablePodman(t, loaded)
	for _, w := range []struct {
		name  string
		flags []string
	}{
		{"default", nil},
		{"hardened", []string{"--user", "12345:0", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}},
	} {
		t.Run(w.name, func(t *testing.T) {
			p := podmanBox{t, global, uniqueName()}
			t.Cleanup(func() { p.run("rm", "-fv", p.name) })
			p.must(append(append(append([]string{"run", "-d", "--name", p.name}, anywhere()...), w.flags...), loaded)...)
			until(t, "the gateway is ready", p.ready)
			p.must("exec", p.name, "sh", "-c", `kill -KILL $(s6-svstat -o pid "$(hermes gateway status | sed -n 's/^manager: s6 (\(.*\))/\1/p')/gateway-default")`)
			until(t, "the gateway is back", func() error {
				if status := p.run("exec", p.name, "hermes", "gateway", "status").stdout; !strings.Contains(status, "KILL") {
					return errors.New(status) // its death is not noted yet
				}
				return p.ready()
			})
			p.hermes("gateway", "restart")
			if reply := p.hermes("chat", "are you there"); !strings.Contains(reply, "are you there") {
				t.Errorf("it answers %q", reply)
			}
			began := time.Now()
			p.must("stop", p.name)
			took := time.Since(began)
			if code := p.must("inspect", "-f", "{{.State.ExitCode}}", p.name); code != "0" || took > quick {
				t.Errorf("podman stop: exit code %s after %s", code, took)
			}
		})
	}
}

func (p podmanBox) ready() error {
	p.t.Helper()
	if r := p.run("exec", p.name, "hermes", "healthcheck", "--ready"); r.code != 0 {
		return fmt.Errorf("%w; podman logs: %s", errorOf(r), p.run("logs", p.name).both())
	}
	return nil
}
