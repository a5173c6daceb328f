//go:build !linux && !darwin && !freebsd

package filesystem

import (
	"fmt"
	"runtime"
)

// Of cannot tell.
func Of(path string) (Info, error) {
	return Info{}, fmt.Errorf("cannot tell the filesystem of %q: hermes does not know those of %s", path, runtime.GOOS)
}
