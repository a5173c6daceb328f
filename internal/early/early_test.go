package early

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEntriesHaveTheirOwnNamesOnly(t *testing.T) {
	for _, argv := range [][]string{
		{"hermes"},
		{"/usr/local/bin/hermes", "gateway", "run"},
		{"runner"},
		{"finish.sh"},
		{"log"},
		{""},
		nil,
		{"s6-svscan/SIGTERM"},
		{"hermes", "boot", "main"},
		{"hermes", "boot", "guard"},
		{"init", "gateway", "run", "-v"},
		{"init", "version"},
		{"init", "--help"},
		{"init", "/usr/local/bin/hermes", "chat"},
	} {
		if entry(argv) != nil {
			t.Errorf("%q leaves early", argv)
		}
	}
	for _, argv := range [][]string{
		{"run"},
		{"/run/service/gateway-default/finish", "0", "0"},
		{".s6-svscan/SIGTERM"},
		{"/init"},
		{"/init", "gateway", "run"},
		{"init", "true"},
		{"hermes", "boot", "main", "--", "gateway", "run"},
	} {
		if entry(argv) == nil {
			t.Errorf("%q does not leave early", argv)
		}
	}
}

func TestEntriesOutsideASlot(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, want := range map[string]string{"run": "cannot read slot", "finish": "cannot read slot", ".s6-svscan/SIGNONE": "no hook is called"} {
		if err := runSlots(t.Context(), []string{name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q outside a slot: %v", name, err)
		}
	}
}

// In the whole binary an entry ends before what only a gateway needs is
// initialized; a command of a user does not.
func TestEntriesLeaveBeforeTheHeavyPackages(t *testing.T) {
	hermes := filepath.Join(t.TempDir(), "hermes")
	build := exec.Command("go", "build", "-trimpath", "-o", hermes, "github.com/hermesgw/hermes/cmd/hermes")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build hermes: %v\n%s", err, out)
	}
	heavy := []string{
		"net", "net/http", "crypto/tls", "github.com/openai/openai-go/v3", "github.com/prometheus/client_golang/prometheus", "github.com/prometheus/procfs",
		"github.com/kardianos/service", "github.com/pressly/goose/v3", "modernc.org/libc", "modernc.org/sqlite",
	}
	for _, argv := range [][]string{{"run"}, {"finish", "0", "0", "x"}, {".s6-svscan/SIGNONE"}} {
		done, said := initialized(t, hermes, argv)
		for _, path := range heavy {
			if slices.Contains(done, path) {
				t.Errorf("%q leaves after the initialization of %s", argv, path)
			}
		}
		if !strings.Contains(said, "hermes: ") || !slices.Contains(done, "runtime") {
			t.Errorf("%q is no entry: %s", argv, said)
		}
	}
	done, _ := initialized(t, hermes, []string{"hermes", "version"})
	for _, path := range heavy {
		if !slices.Contains(done, path) {
			t.Errorf("hermes version does not initialize %s: this test sees nothing", path)
		}
	}
}

// initialized runs the binary as argv and returns the packages that were
// initialized (GODEBUG=inittrace=1, package runtime), and all of stderr.
func initialized(t *testing.T, binary string, argv []string) (paths []string, stderr string) {
	t.Helper()
	var b strings.Builder
	cmd := &exec.Cmd{Path: binary, Args: argv, Dir: t.TempDir(), Env: append(os.Environ(), "GODEBUG=inittrace=1"), Stderr: &b}
	_ = cmd.Run() // an entry outside a slot fails, and says so
	for line := range strings.Lines(b.String()) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "init" {
			paths = append(paths, fields[1])
		}
	}
	return paths, b.String()
}
