// Package meter keeps the crash meter of a profile's gateway on the volume, in
// $HOME/meter.json, so that a loop of crashes stays known when the container
// is made anew.
//
// It is a memory, never a gate: a file that cannot be read is an empty meter,
// and nobody waits for a write. What the numbers mean is supervise's.
//
//	err := meter.Write(home, decision.Meter)
//	{"deaths":3,"starts":["2026-01-02T15:04:05Z"]}
package meter

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

// FileName is the name of the file in a profile's home.
const FileName = "meter.json"

const (
	fileMode = 0o644 // holds no secret; operators look at it
	maxSize  = 4096  // bytes; one of ours is some 300
)

// Read returns the meter kept in home, an empty one where there is none that
// can be read. It never blocks on what somebody put in its place.
func Read(home string) supervise.Meter {
	f, err := os.OpenFile(filepath.Join(home, FileName), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return supervise.Meter{}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize))
	var m supervise.Meter
	if err != nil || json.Unmarshal(data, &m) != nil || m.Deaths < 0 || len(m.Starts) > supervise.RateStarts {
		return supervise.Meter{}
	}
	return m
}

// Write replaces the meter kept in home; an empty one needs no file. It does
// not wait for the disk: what a power cut takes is a few deaths.
func Write(home string, m supervise.Meter) error {
	if m.Deaths == 0 {
		return Clear(home)
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(filepath.Join(home, FileName), append(data, '\n'), fileMode)
}

// Clear forgets every death. That there was none is success.
func Clear(home string) error {
	err := os.Remove(filepath.Join(home, FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
