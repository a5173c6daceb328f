package mutation

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestGuardsAreGuarded(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants() {
		t.Run(m.guard, func(t *testing.T) {
			if out, err := goTest(root, m, ""); err != nil || !strings.Contains(out, "--- PASS: "+m.test) {
				t.Fatalf("%s does not pass on the tree itself:\n%s", m.test, out)
			}
			out, err := goTest(root, m, overlay(t, root, m))
			switch {
			case err == nil:
				t.Errorf("%s passes although %s has %q in place of %q: the guard is not guarded", m.test, m.file, m.new, m.old)
			case !strings.Contains(out, "--- FAIL: "+m.test):
				t.Errorf("%s did not fail, something else did:\n%s", m.test, out)
			case !strings.Contains(out, m.fails):
				t.Errorf("%s fails, but not with %q:\n%s", m.test, m.fails, out)
			}
		})
	}
}

// goTest runs the mutant's test and returns what it printed. The test binary
// of the tree itself comes out of go's cache after its first use.
func goTest(root string, m mutant, overlay string) (string, error) {
	args := []string{"test", "-v", "-run", "^" + m.test + "$"}
	if overlay != "" {
		args = append(args, "-count=1", "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, m.pkg)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// overlay writes the mutant beside the tree and returns the file that tells go
// to compile it in place of the original.
func overlay(t *testing.T, root string, m mutant) string {
	t.Helper()
	original := filepath.Join(root, m.file)
	text, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		t.Fatalf("%q stands %d times in %s, want once: the guard moved, mend the table", m.old, n, m.file)
	}
	dir := t.TempDir()
	mutated := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(mutated, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, replace, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
