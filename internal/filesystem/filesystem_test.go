package filesystem_test

import (
	"path/filepath"
	"testing"

	"github.com/hermesgw/hermes/internal/filesystem"
)

func TestOfADirectory(t *testing.T) {
	fs, err := filesystem.Of(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if fs.Name == "" || fs.Free == 0 || fs.ReadOnly {
		t.Errorf("a directory that tests write to lies on %+v", fs)
	}
	if _, err := filesystem.Of(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a path that is not there has a filesystem")
	}
	if fs, err := filesystem.Of("/proc"); err != nil || fs.Name != "0x9fa0" {
		t.Errorf("/proc is %+v (%v), want its magic number", fs, err)
	}
}
