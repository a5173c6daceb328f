package s6slots

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tempOf is the TMPDIR that the service of tr last noted.
func tempOf(tr *tree) string {
	for entry := range strings.SplitSeq(tr.read("environ"), "\x00") {
		if dir, ok := strings.CutPrefix(entry, "TMPDIR="); ok {
			return dir
		}
	}
	return ""
}

// Each run has a directory for temporary files of its own, and nothing of it
// is left: not after a crash, not after a stop, not what a finish could not
// remove.
func TestTemporaryFilesEndWithTheirRun(t *testing.T) {
	if v, ok := os.LookupEnv("TMPDIR"); ok {
		os.Unsetenv("TMPDIR")
		t.Cleanup(func() { os.Setenv("TMPDIR", v) })
	}
	tr := newTree(t, "ready")
	stale := strings.TrimSuffix(tr.tempPattern(), "*") + "stale"
	writeFile(t, filepath.Join(stale, "deep", "file"), "left", 0o600)
	tr.ensure()
	if err := tr.m.Start(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	first := tempOf(tr)
	if fi, err := os.Stat(first); err != nil || fi.Mode().Perm() != 0o700 || !strings.HasPrefix(first, tr.dir.Hermes()) {
		t.Fatalf("TMPDIR is %q: %v, %v", first, fi, err)
	}
	if exists(stale) {
		t.Error("a start leaves what an earlier run left")
	}
	outside := filepath.Join(tr.home, "outside")
	writeFile(t, outside, "mine", 0o600)
	writeFile(t, filepath.Join(first, "deep", "file"), "much", 0o600)
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(first, "link")); err != nil {
		t.Fatal(err)
	}
	pid := tr.status().PID
	tr.kill(pid)
	tr.eventually("the service is back", func() bool { st := tr.status(); return st.Serving() && st.PID != pid })
	second := tempOf(tr)
	if second == first || exists(first) || !exists(second) {
		t.Errorf("after a crash: first %q is there: %v; second %q is there: %v", first, exists(first), second, exists(second))
	}
	if err := tr.m.Stop(tr.ctx(), tr.spec.Name, true); err != nil {
		t.Fatal(err)
	}
	tr.eventually("nothing is left", func() bool {
		left, _ := filepath.Glob(tr.tempPattern())
		return len(left) == 0
	})
	if got := tr.read("outside"); got != "mine" {
		t.Errorf("a link was followed: %q", got)
	}
}

// tempPattern is where the temporary files of the slot's runs are.
func (tr *tree) tempPattern() string { return filepath.Join(tr.dir.Hermes(), tr.spec.Name+".tmp-*") }
