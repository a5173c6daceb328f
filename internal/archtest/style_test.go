package archtest

import (
	"go/ast"
	"path"
	"strings"
	"testing"
)

// maxLines is where a file stops being read and starts being searched.
const maxLines = 700

// vague are names that say where code was put, not what it provides.
var vague = []string{"util", "utils", "common", "helper", "helpers", "types", "shared", "models", "misc", "base", "lib"}

func TestEveryPackageExplainsItself(t *testing.T) {
	docs := map[string]string{}
	names := map[string]string{}
	for _, src := range tree(t) {
		if src.test {
			continue
		}
		names[src.dir] = src.file.Name.Name
		if src.file.Doc != nil {
			docs[src.dir] += src.file.Doc.Text()
		}
	}
	for dir, name := range names {
		if why := docProblem(dir, name, docs[dir]); why != "" {
			t.Errorf("%s: package comment %s (house style: what it does, what it does not, an example)", dir, why)
		}
	}
}

// docProblem says what a package comment lacks; "" is a good one. Programs are
// described by their own name, as go doc shows them.
func docProblem(dir, name, doc string) string {
	start := "Package " + name + " "
	if name == "main" {
		start = "Command " + path.Base(dir) + " "
		if capital := strings.ToUpper(path.Base(dir)[:1]) + path.Base(dir)[1:] + " "; strings.HasPrefix(doc, capital) {
			start = capital
		}
	}
	switch {
	case doc == "":
		return "is missing"
	case !strings.HasPrefix(doc, start):
		return "does not start with " + start
	case strings.Count(doc, ". ")+strings.Count(doc, ".\n")+strings.Count(doc, ":\n") < 2 && name != "main":
		return "is one sentence"
	case name != "main" && !strings.Contains(doc, "\n\t"):
		return "has no example (an indented block)"
	}
	return ""
}

func TestPackagesAreNamedForWhatTheyProvide(t *testing.T) {
	for _, src := range tree(t) {
		for _, word := range vague {
			if path.Base(src.dir) == word {
				t.Errorf("%s: %q says nothing about what the package provides", src.path, word)
			}
		}
	}
}

func TestFilesStayReadable(t *testing.T) {
	for _, src := range tree(t) {
		if n := src.lines(); n > maxLines {
			t.Errorf("%s has %d lines, over %d: split it where its jobs part", src.path, n, maxLines)
		}
	}
}

// beforeMain is the one file that may: docs/decisions/0013-early-entries.md.
const beforeMain = "internal/early/early.go"

func TestNothingRunsBeforeMain(t *testing.T) {
	for _, src := range tree(t) {
		if src.path == beforeMain {
			continue
		}
		for _, decl := range src.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function: pass what it sets up to whoever needs it", src.path)
			}
		}
	}
}

// Suites that lost their cases would still pass.
func TestSuitesHaveCases(t *testing.T) {
	least := map[string]int{"e2e": 45, "mutation": 1, "internal/runmode": 5}
	found := map[string]int{}
	for _, src := range tree(t) {
		if !src.test {
			continue
		}
		for _, decl := range src.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Test") && fn.Name.Name != "TestMain" {
				found[src.dir]++
			}
		}
	}
	for dir, want := range least {
		if found[dir] < want {
			t.Errorf("%s has %d tests, fewer than the %d it is known to need", dir, found[dir], want)
		}
	}
}
