// Package intent reads and writes what an operator wants of a profile's
// gateway: up or down, asked for by whom, when and why, in $HOME/intent.json.
//
// It does not act on it, and it never replaces a file it cannot read: an
// intent that is lost would leave a gateway dark or start one unasked.
//
//	err := intent.Write(home, intent.Intent{Want: supervise.WantDown, By: "gateway stop", At: now})
//	{"want":"down","by":"gateway stop","at":"2026-01-02T15:04:05Z","why":""}
package intent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/supervise"
)

// FileName is the name of the file in a profile's home.
const FileName = "intent.json"

// ByMainProgram is Intent.By when the container's own command asked.
const ByMainProgram = "main-program"

const (
	fileMode = 0o644 // holds no secret; operators look at it
	maxSize  = 64 << 10
)

// Intent is what an operator wants.
type Intent struct {
	Want supervise.Want `json:"want"`
	By   string         `json:"by"`  // the command that asked
	At   time.Time      `json:"at"`  // when, UTC
	Why  string         `json:"why"` // in words; may be empty
}

// Read returns the intent kept in home; ok is false when there is none. A file
// that holds anything else is an error (exit code 78) that names the file and
// what to do; a caller must not overwrite it.
func Read(home string) (i Intent, ok bool, err error) {
	path := filepath.Join(home, FileName)
	// A FIFO in its place must not block: services may write the directory.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Intent{}, false, nil
	}
	if err != nil {
		return Intent{}, false, fmt.Errorf("cannot read the intent: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return Intent{}, false, fmt.Errorf("cannot read the intent: %w", err)
	}
	if i, err = decode(data); err != nil {
		return Intent{}, false, exitcode.With(exitcode.Config, fmt.Errorf(
			"cannot read the intent in %q: %w; remove the file, then run gateway start or gateway stop", path, err))
	}
	return i, true, nil
}

// String says what is wanted, by whom and since when, as far as that is known.
func (i Intent) String() string {
	text := string(i.Want)
	if i.By != "" {
		text += ", by " + i.By
	}
	if !i.At.IsZero() {
		text += " at " + i.At.UTC().Format(time.RFC3339)
	}
	return text
}

// Write replaces the intent kept in home, whole or not at all. It refuses
// (78) when the present file is not an intent, since that may be a file of
// somebody else or a newer format.
func Write(home string, i Intent) error {
	if i.Want != supervise.WantUp && i.Want != supervise.WantDown {
		return fmt.Errorf("cannot write the intent: want is %q, expected up or down", i.Want)
	}
	if _, _, err := Read(home); err != nil {
		return err
	}
	i.At = i.At.UTC().Truncate(time.Second)
	data, err := json.Marshal(i)
	if err != nil {
		return fmt.Errorf("cannot write the intent: %w", err)
	}
	return atomicfile.Write(filepath.Join(home, FileName), append(data, '\n'), fileMode)
}

// decode accepts one JSON object with a want it knows. Unknown keys pass, so
// that an older hermes reads what a newer one wrote.
func decode(data []byte) (Intent, error) {
	if len(data) > maxSize {
		return Intent{}, fmt.Errorf("expected at most %d bytes", maxSize)
	}
	var i Intent
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&i); err != nil {
		return Intent{}, fmt.Errorf(`expected {"want":"up"} or {"want":"down"} with by, at and why: %w`, explain(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Intent{}, errors.New("expected one JSON object, found more behind it")
	}
	if i.Want != supervise.WantUp && i.Want != supervise.WantDown {
		return Intent{}, fmt.Errorf("want is %q, expected up or down", i.Want)
	}
	return i, nil
}

// explain turns the decoder's end-of-input errors into words.
func explain(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file ends in the middle")
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s is a JSON %s", cmp.Or(wrong.Field, "the whole"), wrong.Value)
	}
	return err
}
