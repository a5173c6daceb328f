//go:build unix

package atomicfile

import (
	"os"
	"path/filepath"
	"syscall"
)

// adopt gives a file that root writes to the owner of its directory, so that
// what a command run as root leaves stays readable and writable for the
// services. A root without the capability keeps the file: nothing is lost.
func adopt(f *os.File) {
	if os.Geteuid() != 0 {
		return
	}
	fi, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(st.Uid), int(st.Gid))
	}
}
