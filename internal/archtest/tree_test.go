package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/hermesgw/hermes"

// source is one Go file of the tree.
type source struct {
	path string // relative to the root, with slashes
	dir  string // the package's directory, likewise
	test bool
	file *ast.File
	fset *token.FileSet
}

// lines is the length of the file.
func (s source) lines() int { return s.fset.File(s.file.FileStart).LineCount() }

// imports lists the packages of ours that the file imports, as directories.
func (s source) imports(t *testing.T) []string {
	t.Helper()
	var dirs []string
	for _, spec := range s.file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatalf("%s: import %s: %v", s.path, spec.Path.Value, err)
		}
		if dir, ours := strings.CutPrefix(name, module+"/"); ours {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// tree parses every Go file of the module.
func tree(t *testing.T) []source {
	t.Helper()
	root := os.DirFS(filepath.Join("..", ".."))
	var sources []source
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin"):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		sources = append(sources, source{name, path.Dir(name), strings.HasSuffix(name, "_test.go"), file, fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 50 { // a walk that finds nothing would pass every rule
		t.Fatalf("found only %d Go files: is this the root of the module?", len(sources))
	}
	return sources
}
