package archtest

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// layers lists every package from the top down. A package imports its own
// layer and those below it. A name ending in /* stands for any one word.
// Suites and fakes for tests stand beside what they test.
var layers = []struct {
	name     string
	packages []string
}{
	{"command", []string{"cmd/hermes"}},
	{"cli", []string{"internal/cli"}},
	{"app", []string{"internal/app", "internal/early"}},
	{"adapters", []string{
		"internal/store", "internal/model/*", "internal/platform/*", "internal/platform/irc/ngircdtest",
		"internal/supervise/s6slots", "internal/supervise/slot", "internal/supervise/hostunits",
	}},
	{"engines", []string{
		"internal/gateway", "internal/turn", "internal/turn/journaltest", "internal/session", "internal/agent", "internal/outbox", "internal/inbound", "internal/admin",
		"internal/schedule", "internal/dashboard", "internal/boot", "internal/guard", "internal/doctor", "internal/notify",
	}},
	{"vocabulary", []string{
		"internal/chat", "internal/supervise", "internal/profile", "internal/intent", "internal/meter", "internal/config",
		"internal/access", "internal/platform", "internal/runmode", "internal/rundir", "internal/control", "internal/slotlog",
	}},
	{"protocols", []string{"internal/s6", "internal/s6/s6test", "internal/proc", "internal/lease", "internal/sdnotify"}},
	{"foundation", []string{
		"internal/atomicfile", "internal/smallfile", "internal/secret", "internal/logging", "internal/buildinfo", "internal/exitcode",
		"internal/testenv", "internal/filesystem", "internal/typo", "internal/audit", "internal/unix",
	}},
}

// apart are packages outside the product: they import nothing of it, and
// nothing of it imports them.
var apart = []string{"e2e", "e2e/chaos", "e2e/modelserver", "mutation", "bench", "scripts/*", "internal/archtest", "internal/doctest", "internal/durable/dbosproof"}

// surroundings are what packages apart may import all the same: they say what
// a test needs and play the world around the product. They import nothing of
// it, so what uses them still sees the product from outside only.
var surroundings = []string{"internal/testenv", "internal/model/modelserver"}

// testOnly may be imported by tests alone, but for its own kind.
var testOnly = append([]string{"internal/s6/s6test", "internal/model/modeltest", "internal/platform/platformtest", "internal/platform/irc/ngircdtest", "internal/turn/journaltest"}, surroundings...)

// rank is the place of dir in layers, 0 at the top; -1 if it has none.
func rank(dir string) int {
	for i, layer := range layers {
		if matches(dir, layer.packages) {
			return i
		}
	}
	return -1
}

func matches(dir string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, dir)
		return ok
	})
}

func TestPackagesImportTheirOwnLayerAndLowerOnesOnly(t *testing.T) {
	for _, src := range tree(t) {
		if matches(src.dir, apart) {
			checkApart(t, src)
			continue
		}
		from := rank(src.dir)
		if from < 0 {
			t.Errorf("%s: %s is in no layer; add it to the table in internal/archtest/layers_test.go", src.path, src.dir)
			continue
		}
		if !src.test {
			checkDown(t, src, from)
		}
	}
}

// checkApart allows what a test's surroundings are made of, and nothing else.
func checkApart(t *testing.T, src source) {
	t.Helper()
	for _, dir := range src.imports(t) {
		if !slices.Contains(surroundings, dir) {
			t.Errorf("%s imports %s; %s stands apart from the product", src.path, dir, src.dir)
		}
	}
}

func TestSurroundingsKnowNothingOfTheProduct(t *testing.T) {
	found := 0
	for _, src := range tree(t) {
		if src.test || !slices.Contains(surroundings, src.dir) {
			continue
		}
		found++
		if list := src.imports(t); len(list) > 0 {
			t.Errorf("%s imports %s", src.path, list)
		}
	}
	if found < len(surroundings) {
		t.Errorf("found %d files in %s", found, surroundings)
	}
}

func checkDown(t *testing.T, src source, from int) {
	t.Helper()
	for _, dir := range src.imports(t) {
		to := rank(dir)
		switch {
		case to < 0:
			t.Errorf("%s imports %s, which is in no layer", src.path, dir)
		case to < from:
			t.Errorf("%s (%s) imports %s (%s), a layer above its own: declare an interface here and let app join them",
				src.path, layers[from].name, dir, layers[to].name)
		case slices.Contains(testOnly, dir) && !slices.Contains(testOnly, src.dir):
			t.Errorf("%s imports %s, which is for tests", src.path, dir)
		}
	}
}

// The parts of a program that is one file for every machine.
func TestNoCgo(t *testing.T) {
	for _, src := range tree(t) {
		for _, spec := range src.file.Imports {
			if spec.Path.Value == `"C"` {
				t.Errorf("%s uses cgo; the binary is static", src.path)
			}
		}
	}
}

func TestLayersNameAPackageOnce(t *testing.T) {
	seen := map[string]string{}
	for _, layer := range layers {
		for _, p := range layer.packages {
			if other, twice := seen[p]; twice {
				t.Errorf("%s is in %s and in %s", p, other, layer.name)
			}
			seen[p] = layer.name
			if strings.HasPrefix(p, "/") || path.Clean(p) != p {
				t.Errorf("%q is not a clean path below the root", p)
			}
		}
	}
}
