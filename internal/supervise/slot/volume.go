package slot

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/hermesgw/hermes/internal/audit"
	"github.com/hermesgw/hermes/internal/meter"
	"github.com/hermesgw/hermes/internal/proc"
	"github.com/hermesgw/hermes/internal/profile"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/unix"
)

const (
	tailLines    = 3    // of a parked slot's log stand in its reason
	tailLineMax  = 200  // characters of each
	tailReadSize = 8192 // bytes of the file that are looked at
)

// homeOf is the home of a gateway's profile, "" for what has none.
func homeOf(spec supervise.Spec) string {
	if spec.Kind != supervise.KindGateway {
		return ""
	}
	p, err := profile.Find(spec.Home, spec.Profile)
	if err != nil {
		return "" // deleted while its slot ran
	}
	return p.Home
}

// onVolume runs f, which writes to the data directory, with no more rights
// than the service has: a root supervisor must follow no link of its making.
func onVolume(spec supervise.Spec, f func() error) error {
	if os.Getuid() != 0 || spec.UID == 0 {
		return f()
	}
	return proc.WithFilesOf(spec.UID, spec.GID, f)
}

// KeepMeter puts the meter on the volume, best effort: without it the record
// in the run directory counts on.
func KeepMeter(spec supervise.Spec, m supervise.Meter) {
	if home := homeOf(spec); home != "" {
		_ = onVolume(spec, func() error { return meter.Write(home, m) })
	}
}

// storedMeter is the one that an earlier container left on the volume.
func storedMeter(spec supervise.Spec) supervise.Meter {
	home := homeOf(spec)
	if home == "" {
		return supervise.Meter{}
	}
	return meter.Read(home)
}

// stampPattern is what s6-log's T puts before a line.
var stampPattern = regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ +`)

// lastLines are the last ones that the service itself logged, oldest first,
// short and printable. What the logger has not written yet is not among them.
func lastLines(spec supervise.Spec) []string {
	if spec.LogDir == "" {
		return nil
	}
	var b []byte
	_ = onVolume(spec, func() error {
		var err error
		b, err = tail(filepath.Join(spec.LogDir, "current"))
		return err
	})
	var lines []string
	for line := range bytes.Lines(b) {
		text := strings.TrimSpace(stampPattern.ReplaceAllString(string(line), ""))
		if text == "" || strings.HasPrefix(text, "hermes: "+spec.Name) { // empty, or finish's own
			continue
		}
		lines = append(lines, shorten(printable(text)))
	}
	return lines[max(0, len(lines)-tailLines):]
}

func shorten(line string) string {
	if r := []rune(line); len(r) > tailLineMax {
		return string(r[:tailLineMax]) + "…"
	}
	return line
}

// tail returns the last whole lines of a regular file.
func tail(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return nil, err
	}
	from := max(0, fi.Size()-tailReadSize)
	b := make([]byte, tailReadSize)
	n, err := f.ReadAt(b, from)
	b = b[:n]
	if from > 0 {
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	return b, err
}

// AuditLine adds a line about the slot to the audit log of its volume.
func AuditLine(spec supervise.Spec, pairs ...string) {
	if spec.Home == "" {
		return
	}
	_ = onVolume(spec, func() error {
		audit.Append(spec.Home, time.Now(), append([]string{"slot", spec.Name}, pairs...)...)
		return nil
	})
}

// Fingerprint tells one state of a profile's configuration files from another,
// without reading them: size, time of change and inode of each.
func Fingerprint(spec supervise.Spec) string {
	home := homeOf(spec)
	if home == "" {
		return ""
	}
	var b strings.Builder
	for _, name := range []string{"config.yaml", ".env"} {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(home, name), &st) == nil {
			fmt.Fprintf(&b, "%d.%d.%d.%d", st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec)
		}
		b.WriteByte(';')
	}
	return b.String()
}
