package intent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/supervise"
)

// ByMigration is Intent.By when an existing home said it.
const ByMigration = "migration"

// legacyFile is where the predecessor keeps what it observes of a gateway
// (gateway_state) and, in its later versions, what the operator wants
// (desired_state). It is read, never written.
const legacyFile = "gateway_state.json"

// Inherit reads once what the predecessor wanted of the gateway in home and
// records it as the intent, by ByMigration; a home that has an intent is left
// alone. ok is false when there was nothing to inherit. An error names a file
// that says nothing usable; nothing is recorded then.
func Inherit(home string, now time.Time) (i Intent, ok bool, err error) {
	if _, known, err := Read(home); known || err != nil {
		return Intent{}, false, err
	}
	want, why, err := legacyWant(home)
	if want == "" || err != nil {
		return Intent{}, false, err
	}
	i = Intent{Want: want, By: ByMigration, At: now, Why: why}
	return i, true, Write(home, i)
}

// legacyWant is what the predecessor's file says; "" when there is none.
func legacyWant(home string) (want supervise.Want, why string, err error) {
	path := filepath.Join(home, legacyFile)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not block
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err == nil {
		defer f.Close()
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(f, maxSize)); err == nil {
			want, why, err = decodeLegacy(data)
		}
	}
	if err != nil {
		return "", "", fmt.Errorf("cannot tell from %q whether its gateway was wanted up: %w; say it with gateway start or gateway stop", path, err)
	}
	return want, why, nil
}

// decodeLegacy turns the predecessor's words into a wish. What an operator
// wanted counts before what was observed. Of the observed states only "stopped"
// means down: whatever was running, draining or failing to start was wanted up,
// and here a gateway that keeps failing is parked, not restarted for ever.
func decodeLegacy(data []byte) (want supervise.Want, why string, err error) {
	var old struct {
		Desired *string `json:"desired_state"`
		State   *string `json:"gateway_state"`
	}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&old); err != nil {
		return "", "", explain(err)
	}
	key, word := "desired_state", old.Desired
	if word == nil {
		key, word = "gateway_state", old.State
	}
	switch {
	case word == nil:
		return "", "", errors.New("it has no desired_state and no gateway_state")
	case *word == "stopped":
		want = supervise.WantDown
	case slices.Contains([]string{"running", "draining", "degraded", "starting", "startup_failed"}, *word):
		want = supervise.WantUp
	default:
		return "", "", fmt.Errorf("its %s is %q", key, *word)
	}
	return want, fmt.Sprintf("%s of %s was %s", key, legacyFile, *word), nil
}
