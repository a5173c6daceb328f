package doctest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// page is one Markdown file without its code blocks.
type page struct {
	path  string // from the root of the repository
	prose string
}

func pages(t *testing.T) []page {
	t.Helper()
	var list []page
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata"):
			return filepath.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		list = append(list, page{rel, prose(string(data))})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// prose leaves out fenced blocks and keeps the number of lines.
func prose(text string) string {
	lines := strings.Split(text, "\n")
	inside := false
	for i, line := range lines {
		fence := strings.HasPrefix(strings.TrimLeft(line, " >"), "```")
		if fence || inside {
			lines[i] = ""
		}
		if fence {
			inside = !inside
		}
	}
	return strings.Join(lines, "\n")
}

// links are the targets of [text](target), code spans left out.
func (p page) links() []string {
	text := regexp.MustCompile("`[^`\n]*`").ReplaceAllString(p.prose, "")
	var targets []string
	for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
		targets = append(targets, m[1])
	}
	return targets
}

// anchors are the names of the headings, as GitHub makes them.
func (p page) anchors() []string {
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^#{1,6} (.+)$`).FindAllStringSubmatch(p.prose, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		list = append(list, strings.ReplaceAll(strings.TrimSpace(name), " ", "-"))
	}
	return list
}

func find(list []page, path string) (page, bool) {
	i := slices.IndexFunc(list, func(p page) bool { return p.path == path })
	if i < 0 {
		return page{}, false
	}
	return list[i], true
}

func isExternal(target string) bool {
	return strings.HasPrefix(target, "https://") || strings.HasPrefix(target, "http://")
}

func TestLinksLeadSomewhere(t *testing.T) {
	list := pages(t)
	checked := 0
	for _, p := range list {
		for _, target := range p.links() {
			if isExternal(target) {
				continue
			}
			checked++
			checkLink(t, list, p, target)
		}
	}
	if checked < 40 {
		t.Errorf("found %d relative links; there were 40 and more", checked)
	}
}

func checkLink(t *testing.T, list []page, from page, target string) {
	t.Helper()
	file, anchor, _ := strings.Cut(target, "#")
	path := from.path
	if file != "" {
		path = filepath.Join(filepath.Dir(from.path), file)
	}
	if filepath.IsAbs(file) || strings.HasPrefix(path, "..") {
		t.Errorf("%s: link %q does not stay in the repository", from.path, target)
		return
	}
	if _, err := os.Stat(filepath.Join(root, path)); err != nil {
		t.Errorf("%s: link %q leads nowhere", from.path, target)
		return
	}
	if to, ok := find(list, path); anchor != "" && (!ok || !slices.Contains(to.anchors(), anchor)) {
		t.Errorf("%s: %s has no heading %q", from.path, path, anchor)
	}
}

// A page that nothing leads to is not read.
func TestEveryPageIsInTheIndex(t *testing.T) {
	list := pages(t)
	index, ok := find(list, "docs/README.md")
	if !ok {
		t.Fatal("docs/README.md is missing")
	}
	for _, p := range list {
		rel, inDocs := strings.CutPrefix(p.path, "docs/")
		if inDocs && p.path != index.path && !slices.Contains(index.links(), rel) {
			t.Errorf("docs/README.md does not link to %s", p.path)
		}
	}
}

func TestEveryPageStartsWithItsTitle(t *testing.T) {
	for _, p := range pages(t) {
		if !strings.HasPrefix(p.prose, "# ") {
			t.Errorf("%s does not start with a title", p.path)
		}
	}
}
