package s6

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hermesgw/hermes/internal/smallfile"
	"github.com/hermesgw/hermes/internal/unix"
)

// Status is what s6-supervise says about its service, as of its last change.
// It does not say whether the supervisor still lives: see Supervised.
type Status struct {
	Up        bool // run is running
	Finishing bool // finish is running
	Ready     bool // while up: run said so. While down: finish is done too
	Paused    bool // run was stopped by the command Pause
	WantUp    bool // a death is followed by a restart

	PID  int // of run, of finish while Finishing, 0 while down
	PGID int // of run's process group; 0 in files of s6 without it (all but 2.13)

	Since      time.Time // of the last change between up and down
	ReadySince time.Time // of the last readiness; means something only while Ready

	LastExit WaitStatus // of the last run's death; 0 also if there was none
}

// Serving says that the service is up and said that it is ready.
func (s Status) Serving() bool { return s.Up && s.Ready }

// Running says that the service is up, ready or not.
func (s Status) Running() bool { return s.Up }

// Stopped says that neither run nor finish is running. With WantUp it is only
// a pause before the next start, or the start failed.
func (s Status) Stopped() bool { return !s.Up && !s.Finishing }

// WaitStatus is a raw wait status as the kernel gave it: 0x7f00 for exit 127,
// 0x0009 for a death by KILL.
type WaitStatus uint16

// Signal is what killed the process, 0 if it exited.
func (w WaitStatus) Signal() syscall.Signal {
	if ws := unix.WaitStatus(w); ws.Signaled() {
		return ws.Signal()
	}
	return 0
}

// Code is the exit code (0 to 255), or -1 if a signal killed the process.
func (w WaitStatus) Code() int { return unix.WaitStatus(w).ExitStatus() }

// The two forms of supervise/status, told apart by their length. All integers
// are big-endian.
//
//	0 stamp TAI64N   12 ready stamp TAI64N   24 pid u64   32 wstat u16   34 flags      (s6 to 2.12, and from 2.14)
//	0 stamp TAI64N   12 ready stamp TAI64N   24 pid u64   32 pgid u64   40 wstat u16   42 flags   (s6 2.13)
const (
	statusSize      = 35
	statusSizeGroup = 43
)

// The flags; newer bits are ignored.
const (
	flagPaused = 1 << iota
	flagFinishing
	flagWantUp
	flagReady
)

// DecodeStatus decodes the content of a supervise/status file. It refuses any
// length but 35 and 43 bytes, times that are no TAI64N and impossible pids.
func DecodeStatus(b []byte) (Status, error) {
	if len(b) != statusSize && len(b) != statusSizeGroup {
		return Status{}, fmt.Errorf("cannot decode status: %d bytes, want %d or %d", len(b), statusSize, statusSizeGroup)
	}
	since, err1 := decodeTime(b)
	readySince, err2 := decodeTime(b[tai64nSize:])
	pid, err3 := decodePID(b[24:])
	var pgid int
	var err4 error
	if len(b) == statusSizeGroup {
		pgid, err4 = decodePID(b[32:])
	}
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return Status{}, fmt.Errorf("cannot decode status: %w", err)
	}
	flags := b[len(b)-1]
	finishing := flags&flagFinishing != 0
	return Status{
		Up:         pid != 0 && !finishing,
		Finishing:  finishing,
		Ready:      flags&flagReady != 0,
		Paused:     flags&flagPaused != 0,
		WantUp:     flags&flagWantUp != 0,
		PID:        pid,
		PGID:       pgid,
		Since:      since,
		ReadySince: readySince,
		LastExit:   WaitStatus(binary.BigEndian.Uint16(b[len(b)-3:])),
	}, nil
}

func decodePID(b []byte) (int, error) {
	pid := binary.BigEndian.Uint64(b)
	if pid > math.MaxInt32 {
		return 0, fmt.Errorf("pid %d is out of range", pid)
	}
	return int(pid), nil
}

// A TAI64N stamp is 8 bytes of seconds, offset by 2^62, and 4 of nanoseconds.
// Labels from 2^63 are reserved by its specification (cr.yp.to/libtai/tai64.html).
const (
	tai64nSize  = 12
	tai64Epoch  = 1 << 62
	tai64Beyond = 1 << 63
)

// taiOffset is TAI minus UTC in seconds: 37 since 2017-01-01. skalibs, as
// Debian builds it, adds the leap seconds to a clock in UTC.
const taiOffset = 37

func decodeTime(b []byte) (time.Time, error) {
	label, nano := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	if label < tai64Epoch || label >= tai64Beyond || nano > 999_999_999 {
		return time.Time{}, fmt.Errorf("%x is not a TAI64N time", b[:tai64nSize])
	}
	return time.Unix(int64(label-tai64Epoch)-taiOffset, int64(nano)).UTC(), nil
}

// appendTime appends t as TAI64N.
func appendTime(b []byte, t time.Time) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(t.Unix()+taiOffset)+tai64Epoch)
	return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
}

// ReadStatus reads the status of the service directory dir. The supervisor
// replaces the file by a rename, so the answer is never half of two.
//
// Errors: ErrNotService, ErrNotSupervised (no supervisor ever ran there),
// ErrDenied.
func ReadStatus(dir string) (Status, error) { return ReadStatusIn(nil, dir) }

// ReadStatusIn is ReadStatus for who reads many, again and again, through files.
func ReadStatusIn(files *smallfile.Cache, dir string) (Status, error) {
	b, err := files.Read(filepath.Join(dir, "supervise", "status"), statusSizeGroup)
	if err != nil {
		return Status{}, fmt.Errorf("cannot read the status of service %q: %w", dir, classify(dir, err))
	}
	s, err := DecodeStatus(b)
	if err != nil {
		return Status{}, fmt.Errorf("cannot read the status of service %q: %w", dir, err)
	}
	return s, nil
}

// Death is one death of run, as kept in supervise/death_tally.
type Death struct {
	At     time.Time
	Code   int            // 0 to 255; 128 + Signal if that killed it
	Signal syscall.Signal // 0 if it exited
}

// deathSize: TAI64N, exit code, signal. maxDeaths is the most that
// max-death-tally may ask for.
const (
	deathSize = tai64nSize + 2
	maxDeaths = 4096
)

// DecodeDeathTally decodes the content of a supervise/death_tally file: the
// last deaths of run under this supervisor, oldest first. It refuses a length
// that is no multiple of 14, more than 4096 deaths, and wrong times.
func DecodeDeathTally(b []byte) ([]Death, error) {
	if len(b)%deathSize != 0 || len(b) > maxDeaths*deathSize {
		return nil, fmt.Errorf("cannot decode death tally: %d bytes, want up to %d times %d", len(b), maxDeaths, deathSize)
	}
	deaths := make([]Death, 0, len(b)/deathSize)
	for ; len(b) > 0; b = b[deathSize:] {
		at, err := decodeTime(b)
		if err != nil {
			return nil, fmt.Errorf("cannot decode death tally: %w", err)
		}
		deaths = append(deaths, Death{At: at, Code: int(b[tai64nSize]), Signal: syscall.Signal(b[tai64nSize+1])})
	}
	return deaths, nil
}

// ReadDeaths reads the deaths of the service directory dir, oldest first. The
// supervisor keeps the last 100 (or max-death-tally) and forgets them when it
// ends. Errors as of ReadStatus.
func ReadDeaths(dir string) ([]Death, error) {
	b, err := smallfile.Read(filepath.Join(dir, "supervise", "death_tally"), maxDeaths*deathSize)
	if err != nil {
		return nil, fmt.Errorf("cannot read the deaths of service %q: %w", dir, classify(dir, err))
	}
	deaths, err := DecodeDeathTally(b)
	if err != nil {
		return nil, fmt.Errorf("cannot read the deaths of service %q: %w", dir, err)
	}
	return deaths, nil
}
