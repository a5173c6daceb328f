package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// module is one package, with one file for Linux alone. It imports nothing: the
// standard library would take its second for each check.
func module(t *testing.T, other string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":     "module example\n\ngo 1.26\n",
		"all.go":     "package example\n\nfunc Answer() int { return answer() }\n",
		"a_linux.go": "package example\n\nfunc answer() int { return 42 }\n",
		"a_other.go": "//go:build !linux\n\npackage example\n\n" + other,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

func TestCompilesElsewhere(t *testing.T) {
	module(t, "func answer() int { return 0 }\n")
	for _, target := range []string{"linux/amd64", "darwin/arm64", "windows/amd64"} {
		if err := check(".", target); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
}

func TestDoesNotCompileElsewhere(t *testing.T) {
	for name, c := range map[string]struct{ other, says string }{
		"missing":   {"", "undefined: answer"},
		"in a body": {"func answer() int { return linuxOnly }\n", "undefined: linuxOnly"},
		"unused":    {"func answer() int { n := 0; return 1 }\n", "declared and not used"},
		"syntax":    {"func answer() int { return }}\n", "expected"},
	} {
		t.Run(name, func(t *testing.T) {
			module(t, c.other)
			if err := check(".", "darwin/arm64"); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("darwin: %v, want %q", err, c.says)
			}
			if err := check(".", "linux/amd64"); err != nil {
				t.Errorf("linux: %v", err)
			}
		})
	}
}

func TestUnknownSystem(t *testing.T) {
	module(t, "func answer() int { return 0 }\n")
	for _, target := range []string{"darwin", "darwin/pdp11", ""} {
		if err := check(".", target); err == nil {
			t.Errorf("%q was checked", target)
		}
	}
}
