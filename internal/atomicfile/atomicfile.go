// Package atomicfile replaces a file that others read: a reader sees the old
// content or the new one, whole, whenever the writer dies.
//
// It does not lock: two writers of the same path both succeed, the later
// rename wins.
//
//	err := atomicfile.Write(path, data, 0o600)
package atomicfile

import (
	"fmt"
	"os"
	"path/filepath"
)

// Write replaces path with data and mode (not filtered by the umask): a temporary file beside it, fsync,
// rename, fsync of the directory. On an error the previous file is untouched.
func Write(path string, data []byte, mode os.FileMode) error {
	if err := replace(path, data, mode, (*os.File).Sync); err != nil {
		return err
	}
	SyncDir(filepath.Dir(path))
	return nil
}

// WriteVolatile is Write without the fsyncs, for a run directory: whole for
// every reader and after the death of the writer, but not after a power cut,
// which the run directory does not outlive anyway.
func WriteVolatile(path string, data []byte, mode os.FileMode) error {
	return replace(path, data, mode, func(*os.File) error { return nil })
}

func replace(path string, data []byte, mode os.FileMode, sync func(*os.File) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("cannot write %q: %w", path, err)
	}
	err = fill(tmp, path, data, mode, sync)
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // the first error says it all
		return fmt.Errorf("cannot write %q: %w", path, err)
	}
	return nil
}

func fill(f *os.File, path string, data []byte, mode os.FileMode, sync func(*os.File) error) error {
	defer f.Close()
	adopt(f, path)
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := sync(f); err != nil {
		return err
	}
	return f.Close()
}

// SyncDir makes a rename within dir survive a power cut. Filesystems that cannot
// sync a directory (some network ones) lose only that last guarantee.
func SyncDir(dir string) {
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	_ = d.Sync()
}
