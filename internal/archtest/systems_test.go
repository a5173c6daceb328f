package archtest

import (
	"path"
	"strings"
	"testing"
)

// systemCalls are the packages that are different on every system.
var systemCalls = []string{"golang.org/x/sys/unix", "golang.org/x/sys/windows"}

// systems is where they are used, and filesystem for what it alone asks.
var systems = []string{"internal/unix", "internal/filesystem"}

// What one system lacks is a matter of internal/unix: a call that is missing there
// would sooner or later be missing in a build for another system.
func TestOnePackageKnowsTheSystems(t *testing.T) {
	used := 0
	for _, src := range tree(t) {
		if src.test || matches(src.dir, apart) || matches(src.dir, testOnly) {
			continue
		}
		for _, name := range systemCalls {
			if !src.importsPath(name) {
				continue
			}
			used++
			if !matches(src.dir, systems) {
				t.Errorf("%s imports %s: take internal/unix, and add there what it lacks", src.path, name)
			}
		}
		if constrained(src) && !matches(src.dir, append([]string{"internal/atomicfile"}, systems...)) {
			t.Errorf("%s is for some systems alone: let internal/unix know about that", src.path)
		}
	}
	if used == 0 {
		t.Error("nothing makes a system call: this test sees nothing")
	}
}

func (s source) importsPath(name string) bool {
	for _, spec := range s.file.Imports {
		if spec.Path.Value == `"`+name+`"` {
			return true
		}
	}
	return false
}

// constrained says whether a file is compiled on some systems alone.
func constrained(s source) bool {
	base := strings.TrimSuffix(path.Base(s.path), ".go")
	for _, os := range []string{"_linux", "_darwin", "_freebsd", "_windows", "_unix", "_other"} {
		if strings.HasSuffix(base, os) {
			return true
		}
	}
	for _, group := range s.file.Comments {
		for _, c := range group.List {
			if c.Pos() < s.file.Package && strings.HasPrefix(c.Text, "//go:build ") {
				return true
			}
		}
	}
	return false
}
