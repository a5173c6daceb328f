package buildinfo_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/hermesgw/hermes/internal/buildinfo"
)

func TestDefaults(t *testing.T) {
	want := buildinfo.Info{Version: "dev", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if got := buildinfo.Get(); got != want {
		t.Errorf("a plain build says %+v, want %+v", got, want)
	}
}

const program = `package main

import (
	"encoding/json"
	"os"

	"github.com/hermesgw/hermes/internal/buildinfo"
)

func main() { _ = json.NewEncoder(os.Stdout).Encode(buildinfo.Get()) }
`

// The Makefile sets these variables by name; a linker ignores a wrong name
// without a word.
func TestLinkerSetsThem(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	main := filepath.Join(dir, "main.go")
	if err := os.WriteFile(main, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	// An overlay puts the program inside the module without touching the tree.
	overlay, _ := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(here, "probe", "main.go"): main}})
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	const pkg = "github.com/hermesgw/hermes/internal/buildinfo"
	ld := "-X " + pkg + ".version=v1.2.3 -X " + pkg + ".commit=0123abc -X " + pkg + ".dirty=true"
	bin := filepath.Join(dir, "probe")
	build := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags", ld, "-o", bin, "./probe")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command(bin).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got buildinfo.Info
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if got.Version != "v1.2.3" || got.Commit != "0123abc" || !got.Dirty {
		t.Errorf("the linker was told v1.2.3, 0123abc, dirty; the binary says %+v", got)
	}
}
