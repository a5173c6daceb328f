// Package buildinfo holds what the linker was told about this build: version,
// commit and whether the tree was dirty. It does not find out what is installed
// around the binary; `hermes version` does.
//
//	go build -ldflags "-X github.com/hermesgw/hermes/internal/buildinfo.version=v1.2.3"
package buildinfo

import "runtime"

// Set by the linker (see the Makefile); a plain `go build` leaves the defaults.
var (
	version = "dev"
	commit  = ""
	dirty   = ""
)

// Info describes one build.
type Info struct {
	Version string `json:"version"`
	Commit  string `json:"commit"` // full hash, empty when unknown
	Dirty   bool   `json:"dirty"`  // the tree had uncommitted changes
	Go      string `json:"go"`     // toolchain, such as go1.26.8
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Get returns the description of the running binary.
func Get() Info {
	return Info{
		Version: version,
		Commit:  commit,
		Dirty:   dirty == "true",
		Go:      runtime.Version(),
		OS:      runtime.GOOS,
		Arch:    runtime.GOARCH,
	}
}
