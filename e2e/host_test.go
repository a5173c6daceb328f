package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// systemdImage is a machine as a test needs it: systemd of Debian's packages as
// its first process, and the hermes of the image under test.
func systemdImage(t testing.TB) string {
	t.Helper()
	name := uniqueName() + ":systemd"
	cmd := exec.Command("docker", "build", "--label", label(), "-t", name, "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`FROM %s
USER 0
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends systemd systemd-sysv dbus && rm -rf /var/lib/apt/lists/*
RUN useradd -m keeper && mkdir /srv/hermes && chown keeper /srv/hermes
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT []
CMD ["/lib/systemd/systemd"]
`, image()))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build a machine with systemd: %v\n%s", err, out)
	}
	t.Cleanup(func() { docker(t, "rmi", "-f", name) })
	return name
}

// host is a running machine with systemd.
type host struct{ *container }

func startHost(t testing.TB) host {
	t.Helper()
	name := systemdImage(t)
	c := reserve(t)
	mustDocker(t, "run", "-d", "--name", c.name, "--label", label(), "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined",
		"--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw",
		"-e", "container=docker", "-e", "HERMES_HOME=/srv/hermes", "-e", "HERMES_RUN_DIR=/run/hermes-gateway", name)
	h := host{c}
	h.booted()
	return h
}

func (h host) booted() {
	h.t.Helper()
	until(h.t, "systemd is up", func() error {
		if r := h.exec("systemctl", "is-system-running"); !strings.Contains(r.stdout, "running") && !strings.Contains(r.stdout, "degraded") {
			return errorOf(r)
		}
		return nil
	})
}

// unit returns one property of the service.
func (h host) unit(property string) string {
	h.t.Helper()
	return h.mustExec("systemctl", "show", "-p", property, "--value", "hermes-gateway")
}

// pid waits until the service has a main process other than the given one.
func (h host) pid(other string) string {
	h.t.Helper()
	pid := ""
	until(h.t, "the service runs", func() error {
		if pid = h.unit("MainPID"); pid == "0" || pid == other || h.unit("ActiveState") != "active" {
			return errors.New("main process " + pid + ", " + h.unit("ActiveState"))
		}
		return nil
	})
	return pid
}

// A host's own service: installed, started when it is ready, brought back after a
// crash and after deafness, there again after a boot, and removed without a trace.
func TestServiceOfAHost(t *testing.T) {
	parallel(t)
	h := startHost(t)
	if out := h.mustExec("hermes", "gateway", "install"); !strings.Contains(out, "hermes-gateway.service") || !strings.Contains(out, "it runs as keeper") {
		t.Errorf("install says %q", out)
	}
	h.mustExec("hermes", "gateway", "install") // again is no error
	if out := h.mustExec("hermes", "gateway", "start"); out != "gateway-default: ready" {
		t.Errorf("start says %q", out)
	}
	if out := h.mustExec("hermes", "gateway", "status", "-o", "json"); !strings.Contains(out, `"manager":"systemd"`) || !strings.Contains(out, `"state":"ready","want":"up"`) {
		t.Errorf("status says %s", out)
	}
	first := h.pid("")
	if out := h.mustExec("sh", "-c", "stat -c %U /proc/"+first+" /srv/hermes/*"); strings.Contains(out, "root") {
		t.Errorf("owners: %s", out)
	}
	h.mustExec("sh", "-c", "kill -9 "+first)
	second := h.pid(first)
	h.mustExec("sh", "-c", "kill -STOP "+second) // the watchdog's business
	third := h.pid(second)
	if out := h.mustExec("hermes", "gateway", "restart"); out != "gateway-default: ready again" {
		t.Errorf("restart says %q", out)
	}
	h.pid(third)
	mustDocker(t, "restart", h.name)
	h.booted()
	h.pid("")
	if out := h.mustExec("hermes", "gateway", "stop"); out != "gateway-default: down" || h.unit("ActiveState") != "inactive" {
		t.Errorf("stop says %q, the service is %s", out, h.unit("ActiveState"))
	}
	h.mustExec("hermes", "gateway", "uninstall")
	if r := h.exec("hermes", "gateway", "uninstall"); r.code != 3 {
		t.Errorf("removing it again exits %d: %s", r.code, r.both())
	}
	if r := h.exec("sh", "-c", "ls /etc/systemd/system/hermes* /etc/systemd/system/*/hermes*"); r.stdout != "" {
		t.Errorf("left behind: %s", r.stdout)
	}
	h.mustExec("test", "-f", "/srv/hermes/hermes.db")
}

// In a container there is nothing to install, and that is said.
func TestInstallInAContainerSaysWhatToDoInstead(t *testing.T) {
	parallel(t)
	c := gateway(t, spec{})
	for _, verb := range []string{"install", "uninstall"} {
		if r := c.exec("hermes", "gateway", verb); r.code != 2 || !strings.Contains(r.stderr, "hermes gateway start") || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s exits %d and says %q", verb, r.code, r.both())
		}
	}
	r := runToEnd(t, spec{cmd: []string{"bash", "-c", "exec env HERMES_RUN_DIR=/nowhere hermes gateway install"}})
	if r.code != 2 {
		t.Errorf("without a tree install exits %d and says %q", r.code, r.both())
	}
}
