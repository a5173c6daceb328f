// Command elsewhere says whether a program compiles for other systems, without
// compiling it: it reads the sources that such a build would take and checks
// their types. Of what is not this module's own it skips the function bodies.
//
// A build tells the same and the linker's part too, but takes minutes of CPU for
// each system where nothing is cached, most of them for SQLite; this takes
// two seconds. make build-elsewhere is the build.
//
//	go run ./scripts/elsewhere ./cmd/hermes darwin/arm64 windows/amd64
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxErrors bounds what is said of one system: the rest follows from the first.
const maxErrors = 20

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "elsewhere: say what to check and for which systems: elsewhere ./cmd/hermes darwin/arm64")
		os.Exit(2)
	}
	code := 0
	for _, target := range os.Args[2:] {
		if err := check(os.Args[1], target); err != nil {
			fmt.Fprintf(os.Stderr, "elsewhere: %s does not compile for %s:\n%v\n", os.Args[1], target, err)
			code = 1
		}
	}
	os.Exit(code)
}

// listed is a package as go list tells it.
type listed struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	ImportMap  map[string]string
	Module     *struct{ Main bool }
}

// check returns the errors in program for the target system, which is GOOS/GOARCH.
func check(program, target string) error {
	goos, goarch, ok := strings.Cut(target, "/")
	sizes := types.SizesFor("gc", goarch)
	if !ok || sizes == nil {
		return errors.New("a system is called GOOS/GOARCH, like darwin/arm64")
	}
	packages, err := list(program, goos, goarch)
	if err != nil {
		return err
	}
	c := checker{fset: token.NewFileSet(), sizes: sizes, done: map[string]*types.Package{"unsafe": types.Unsafe}}
	for _, p := range packages { // what a package imports is listed before it
		c.check(p)
		if len(c.errs) >= maxErrors {
			break
		}
	}
	return errors.Join(c.errs...)
}

// list asks go for the packages of a build of program.
func list(program, goos, goarch string) ([]listed, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap,Module", program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot list its packages: %w", err)
	}
	var packages []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("cannot decode what go list says: %w", err)
		}
		packages = append(packages, p)
	}
}

type checker struct {
	fset  *token.FileSet
	sizes types.Sizes
	done  map[string]*types.Package
	errs  []error
}

func (c *checker) check(p listed) {
	if p.ImportPath == "unsafe" {
		return
	}
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(c.fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			c.errs = append(c.errs, err)
			return
		}
		files = append(files, f)
	}
	own := p.Module != nil && p.Module.Main
	config := types.Config{
		IgnoreFuncBodies: !own, Sizes: c.sizes,
		Importer: imports{c.done, p.ImportMap},
		Error:    func(err error) { c.errs = append(c.errs, err) },
	}
	c.done[p.ImportPath], _ = config.Check(p.ImportPath, c.fset, files, nil) // Error has heard it
}

// imports finds what was checked already, under the name that a package gives it.
type imports struct {
	done   map[string]*types.Package
	rename map[string]string
}

func (i imports) Import(path string) (*types.Package, error) {
	if real, ok := i.rename[path]; ok {
		path = real
	}
	if p := i.done[path]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%s is not among the packages of the build", path)
}
