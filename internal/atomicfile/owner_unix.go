//go:build unix

package atomicfile

import (
	"os"
	"path/filepath"
	"syscall"
)

// adopt gives a file that root writes in the place of path to the owner of the
// one it replaces or, if there is none, of the directory: so what a command run
// as root leaves stays readable and writable for the services. A root without
// the capability keeps the file: nothing is lost.
func adopt(f *os.File, path string) {
	if os.Geteuid() != 0 {
		return
	}
	fi, err := os.Lstat(path)
	if err != nil || !fi.Mode().IsRegular() {
		fi, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(st.Uid), int(st.Gid))
	}
}
