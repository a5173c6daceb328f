package doctest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that a page names is there, so that a property whose test was taken
// away is noticed.
func TestLessonsNameLivingTests(t *testing.T) {
	tests := testNames(t)
	for name, least := range map[string]int{"lessons.md": 40, "accepted-means-answered.md": 20} {
		page, err := os.ReadFile(filepath.Join(root, "docs", "explanation", name))
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(page), -1)
		if len(named) < least {
			t.Errorf("%s names %d tests, many less than it has rows", name, len(named))
		}
		for _, m := range named {
			if !tests[m[1]] {
				t.Errorf("docs/explanation/%s names %s, which is nowhere", name, m[1])
			}
		}
	}
}

// testNames are the names of all top-level tests of the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	declaration := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declaration.FindAllStringSubmatch(string(source), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
