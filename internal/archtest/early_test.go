package archtest

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// lateImports end the head start of internal/early: what imports net is
// initialized after nearly all else (unique and weak, the last of the alphabet).
var lateImports = []string{"net", "net/netip", "net/url", "net/http", "unique", "weak", "crypto/tls", "html/template", "database/sql"}

// earlyModules are the only ones from outside that internal/early may need: their
// initialization costs next to nothing and waits for nobody.
var earlyModules = []string{"golang.org/x/sys/unix", "github.com/gofrs/flock", "github.com/goccy/go-yaml"}

func TestWhatRunsEarlyIsLight(t *testing.T) {
	deps := closure(t, "../early")
	if !slices.Contains(deps, "github.com/hermesgw/hermes/internal/supervise/slot") {
		t.Fatalf("early does not run slots; it imports %q", deps)
	}
	for _, path := range deps {
		if !isLight(path) {
			t.Errorf("internal/early imports %s, perhaps by way of others (go mod why): every start of a slot would wait for its initialization; see docs/decisions/0013-early-entries.md", path)
		}
	}
	if all := closure(t, "../../cmd/hermes"); !slices.ContainsFunc(all, func(path string) bool { return !isLight(path) }) {
		t.Error("everything is light: this test sees nothing")
	}
}

func isLight(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	if !strings.Contains(first, ".") { // the standard library's
		return !slices.Contains(lateImports, path)
	}
	return strings.HasPrefix(path, "github.com/hermesgw/hermes/") ||
		slices.ContainsFunc(earlyModules, func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") })
}

// closure lists what a package imports, directly or not.
func closure(t *testing.T, dir string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot list what %s imports: %v", dir, err)
	}
	return strings.Fields(string(out))
}
