package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hermesgw/hermes/internal/atomicfile"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/smallfile"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

const (
	// Heartbeat is how often a gateway that can answer says so on its note.
	Heartbeat = 5 * time.Second
	// believed is how old a note, or its last confirmation, may be: two beats, and two seconds for a machine
	// that is late. After that the gateway itself is asked.
	believed = 2*Heartbeat + 2*time.Second
	// maxNote is far above what a dozen platforms with long reasons need.
	maxNote = 16 << 10
)

// Note is what a gateway leaves beside its control socket, so that who only wants
// to know how it is need not ask: a question costs both sides a hundred times
// more than a file. It is there while a gateway serves, and replaced at each
// change before anybody else can see that.
type Note struct {
	Schema    int                  `json:"schema"`
	PID       int                  `json:"pid"`
	Start     uint64               `json:"start"` // with PID the process that wrote it (proc.Process)
	State     supervise.State      `json:"state"`
	Reason    string               `json:"reason"`
	Since     time.Time            `json:"since"` // of State
	Platforms []supervise.Platform `json:"platforms"`
}

// noteSchema is the present version of Note.
const noteSchema = 1

// errDoubtful is a note that its reader must not believe.
var errDoubtful = errors.New("it may not be true any more")

func notePath(socket string) string { return socket + ".note" }

// ReadNote returns what the gateway on a control socket has left, read through
// files, and its process as it is now. It fails for whatever might not be true: a
// note of another process than the one that has its pid now, of one that is dead or
// stopped, and one without a recent heartbeat. Then ask.
func ReadNote(files *smallfile.Cache, socket string) (Note, proc.Process, error) {
	b, written, err := files.ReadWithTime(notePath(socket), maxNote)
	if err != nil {
		return Note{}, proc.Process{}, err
	}
	n, err := decodeNote(b)
	if err != nil {
		return Note{}, proc.Process{}, err
	}
	if !recent(written) && !beats(files, socket) {
		return Note{}, proc.Process{}, fmt.Errorf("cannot believe %q: %w", notePath(socket), errDoubtful)
	}
	p, err := proc.Read(n.PID)
	if err == nil && (p.Start != n.Start || !p.Runs()) {
		err = fmt.Errorf("cannot believe %q: %w", notePath(socket), errDoubtful)
	}
	if err != nil {
		return Note{}, proc.Process{}, err
	}
	return n, p, nil
}

// beats says whether the heart of a gateway does. It beats on the socket and not on
// the note: that stays the same file for as long as it says the same.
func beats(files *smallfile.Cache, socket string) bool {
	at, err := files.Modified(socket)
	return err == nil && recent(at)
}

// recent is no time in the future: the clock was set.
func recent(t time.Time) bool {
	age := time.Since(t)
	return age >= 0 && age <= believed
}

// decodeNote takes nothing but what a gateway of this version writes.
func decodeNote(b []byte) (Note, error) {
	var n Note
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&n); err != nil {
		return Note{}, fmt.Errorf("cannot decode a gateway's note: %w", err)
	}
	switch n.State {
	case supervise.Starting, supervise.Ready, supervise.Degraded, supervise.Draining:
	default:
		return Note{}, fmt.Errorf("cannot decode a gateway's note: no gateway is in state %q", n.State)
	}
	if n.Schema != noteSchema || n.PID <= 0 || n.Platforms == nil || dec.More() {
		return Note{}, errors.New("cannot decode a gateway's note: it is not complete")
	}
	return n, nil
}

// Publish replaces the note; process, schema and pid are set here. It is safe for
// concurrent use and does nothing after Close. When it fails there is no note,
// and everybody asks.
func (l *Listener) Publish(n Note) error {
	if unix.NeedLinux() != nil {
		return nil // nobody could tell whether its process still lives: everybody asks
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	err := l.write(n)
	if err != nil {
		l.removeNote()
	}
	l.noted = err == nil
	return err
}

func (l *Listener) write(n Note) error {
	self, err := proc.Read(os.Getpid())
	if err != nil {
		return fmt.Errorf("cannot leave a note: %w", err)
	}
	n.Schema, n.PID, n.Start = noteSchema, self.PID, self.Start
	b, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("cannot leave a note: %w", err)
	}
	if len(b) > maxNote {
		return fmt.Errorf("cannot leave a note of %d bytes: at most %d are read", len(b), maxNote)
	}
	return atomicfile.WriteVolatile(notePath(l.path), b, 0o600)
}

// Beat says that the gateway can answer still. Call it only when it could: a note
// without a beat is not believed for longer than a few seconds.
func (l *Listener) Beat() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.noted {
		return
	}
	now := unix.NsecToTimespec(time.Now().UnixNano())
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, l.path, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW) // else it ages
}

// removeNote has everybody ask; what cannot be removed ages.
func (l *Listener) removeNote() { _ = os.Remove(notePath(l.path)) }
