// Package slot is one s6 slot: what it looks like on disk, and what s6-supervise
// executes in it under the names run, finish and log/run. It holds the only
// knowledge of the files; the crash policy is supervise's, the protocol s6's, and
// the slots of a live tree are managed by s6slots.
//
// A slot is data. Its run, finish and log/run are symbolic links to the hermes
// binary; what to run stands in data/slot.json:
//
//	err := slot.Write(dir, spec, slot.WriteOptions{Binary: "/usr/local/bin/hermes", Down: true})
package slot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/gofrs/flock"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/smallfile"
	"github.com/hermesgw/hermes/internal/supervise"
)

const (
	// SpecFile is what to run, RecordFile what became of it, both below the slot.
	SpecFile   = "data/slot.json"
	RecordFile = "data/record.json"
	askedFile  = "data/asked"

	// finishTimeout bounds finish: it sweeps, records, decides. s6-supervise
	// ignores every command while finish runs, so it must be short.
	finishTimeout = 3 * time.Second
	// NotifyFD is the descriptor on which a slot says it is ready.
	NotifyFD = 3
	// recordPatience bounds the wait for who is changing the record, which
	// takes microseconds; then losing a change is better than losing a start.
	recordPatience = 500 * time.Millisecond
	recordPoll     = time.Millisecond
	// maxDeathTally keeps s6's own tally small; ours is in the record.
	maxDeathTally = 10
)

// WriteOptions says how a slot starts its life.
type WriteOptions struct {
	Binary string // absolute path of hermes: what the links point to
	Down   bool   // wanted down until told otherwise
}

// Write fills dir, which exists and is empty, with the slot of spec.
func Write(dir string, spec supervise.Spec, o WriteOptions) error {
	content, err := encodeSpec(spec)
	if err == nil {
		err = errors.Join(makeDirs(dir, spec), link(dir, spec, o.Binary))
	}
	if err != nil {
		return fmt.Errorf("cannot write slot %q: %w", spec.Name, err)
	}
	files := map[string]string{
		SpecFile:          string(content), // nobody reads the slot yet
		"timeout-finish":  millis(finishTimeout),
		"max-death-tally": strconv.Itoa(maxDeathTally),
	}
	if spec.Kind != supervise.KindService {
		files["notification-fd"] = strconv.Itoa(NotifyFD)
		files["timeout-kill"] = millis(spec.StopTimeout)
	}
	if spec.Source != "" {
		adopt(spec.Source, files)
	}
	if o.Down {
		files["down"] = ""
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("cannot write slot %q: %w", spec.Name, err)
		}
	}
	return nil
}

// adopt takes over the settings of a user's own service directory.
func adopt(source string, files map[string]string) {
	for _, name := range []string{"notification-fd", "timeout-kill", "timeout-finish", "down-signal", "max-death-tally", "down"} {
		if b, err := os.ReadFile(filepath.Join(source, name)); err == nil {
			files[name] = string(b)
		}
	}
}

func makeDirs(dir string, spec supervise.Spec) error {
	err := os.Mkdir(filepath.Join(dir, "data"), 0o755)
	if hasLogger(spec) {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, "log"), 0o755))
	}
	return err
}

// hasLogger: a user's own service has one if it brings one.
func hasLogger(spec supervise.Spec) bool {
	return spec.Source == "" || exists(filepath.Join(spec.Source, "log", "run"))
}

func link(dir string, spec supervise.Spec, binary string) error {
	names := []string{"run", "finish"}
	if hasLogger(spec) {
		names = append(names, "log/run")
	}
	for _, name := range names {
		if err := os.Symlink(binary, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func encodeSpec(spec supervise.Spec) ([]byte, error) {
	b, err := json.MarshalIndent(spec, "", "  ")
	return append(b, '\n'), err
}

// WriteSpec replaces the data of a slot that is in use.
func WriteSpec(dir string, spec supervise.Spec) error {
	b, err := encodeSpec(spec)
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(filepath.Join(dir, SpecFile), b, 0o644)
}

// ReadSpec returns what the slot in dir runs.
func ReadSpec(dir string) (supervise.Spec, error) {
	b, err := os.ReadFile(filepath.Join(dir, SpecFile))
	if err != nil {
		return supervise.Spec{}, fmt.Errorf("cannot read slot: %w", err)
	}
	var spec supervise.Spec
	if err := json.Unmarshal(b, &spec); err != nil {
		return supervise.Spec{}, fmt.Errorf("cannot decode %q: %w", filepath.Join(dir, SpecFile), err)
	}
	return spec, nil
}

// Record is what is known of a slot's past and present beyond what s6 keeps.
// The slot's own run and finish write it; `gateway start` clears the pause.
type Record struct {
	State             supervise.State `json:"state"` // backoff, parked, or "" when s6 says it all
	Until             *time.Time      `json:"until"`
	Reason            string          `json:"reason"`
	At                time.Time       `json:"at"`                  // when State was set
	Started           time.Time       `json:"started"`             // when the present run began, pause excluded
	StartedUp         time.Duration   `json:"started_up"`          // the same on the clock that nobody sets (proc.Uptime)
	PID               int             `json:"pid"`                 // of the present run, leader of its session
	Ticks             uint64          `json:"ticks"`               // its start time (proc.Process.Start)
	Ended             int             `json:"ended,omitempty"`     // pid of the last run known to be over
	Meter             supervise.Meter `json:"meter"`               // the crash meter; a copy is on the volume
	OOMKills          *uint64         `json:"oom_kills,omitempty"` // in the container when the present run began, nil: not to be seen
	By                string          `json:"by"`                  // who asked for the next run, "" for the policy or boot
	Config            string          `json:"config"`              // what the configuration files looked like when the present run began
	Restarts          int             `json:"restarts"`
	RequestedRestarts int             `json:"requested_restarts"`
	LastExit          *supervise.Exit `json:"last_exit"`
}

// maxRecord is far above the few lines of a log that a record holds.
const maxRecord = 64 << 10

// ReadRecord returns the zero record where none can be read: losing it costs
// a counter, never a start.
func ReadRecord(dir string) Record { return ReadRecordIn(nil, dir) }

// ReadRecordIn is ReadRecord for who reads many, again and again, through files.
func ReadRecordIn(files *smallfile.Cache, dir string) Record {
	var r Record
	b, err := files.Read(filepath.Join(dir, RecordFile), maxRecord)
	if err == nil && json.Unmarshal(b, &r) != nil {
		r = Record{}
	}
	return r
}

func (r Record) Write(dir string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(filepath.Join(dir, RecordFile), b, 0o644)
}

// noted says whether the present run has noted itself: before that, the record tells
// of the run before it, which is over.
func (r Record) noted() bool { return !r.Started.IsZero() && (r.PID == 0 || r.PID != r.Ended) }

// Cleared ends a pause or a parking and forgives the deaths that led to it.
func (r Record) Cleared() Record {
	r.State, r.Until, r.Reason, r.Meter = "", nil, "", supervise.Meter{}
	return r
}

// ChangeRecord reads, changes and writes the record of the slot in dir, one
// change at a time: run, finish and commands would undo each other's.
func ChangeRecord(dir string, change func(*Record)) error {
	lock := flock.New(dir, flock.SetFlag(os.O_RDONLY))
	limited, cancel := context.WithTimeout(context.Background(), recordPatience)
	defer cancel()
	if locked, _ := lock.TryLockContext(limited, recordPoll); locked {
		defer lock.Close()
	}
	r := ReadRecord(dir)
	change(&r)
	return r.Write(dir)
}

// Asked is the mark of an outstanding stop or restart command: the exit that
// follows was asked for, whatever its code.
type Asked struct {
	Kind string    `json:"kind"` // stop, restart
	By   string    `json:"by"`
	At   time.Time `json:"at"`
	PID  int       `json:"pid,omitempty"` // whose end it is; 0: the next one's
}

const (
	AskedStop    = "stop"
	AskedRestart = "restart"
)

func (a Asked) Write(dir string) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return atomicfile.WriteVolatile(filepath.Join(dir, askedFile), b, 0o644)
}

// TakeAsked returns the outstanding command and removes its mark.
func TakeAsked(dir string) (Asked, bool) {
	path := filepath.Join(dir, askedFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return Asked{}, false
	}
	_ = os.Remove(path) // a mark that stays would excuse one death too many, no more
	var a Asked
	return a, json.Unmarshal(b, &a) == nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
