//go:build !linux

package filesystem

import "math"

// Of knows nothing here; only Linux tells filesystems apart.
func Of(string) (Info, error) {
	return Info{Free: math.MaxInt64, Countless: true}, nil
}
