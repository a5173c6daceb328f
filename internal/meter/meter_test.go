package meter_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/meter"
	"github.com/hermesgw/hermes/internal/supervise"
)

func TestWriteReadClear(t *testing.T) {
	home := t.TempDir()
	if m := meter.Read(home); m.Deaths != 0 {
		t.Errorf("no file: %+v", m)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	want := supervise.Meter{Deaths: 7, Starts: []time.Time{at}}
	if err := meter.Write(home, want); err != nil {
		t.Fatal(err)
	}
	if m := meter.Read(home); m.Deaths != 7 || len(m.Starts) != 1 || !m.Starts[0].Equal(at) {
		t.Errorf("wrote %+v, read %+v", want, m)
	}
	if err := meter.Write(home, supervise.Meter{}); err != nil { // a good run
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(home); len(entries) != 0 {
		t.Errorf("a cleared meter leaves %v", entries)
	}
	if err := meter.Clear(home); err != nil {
		t.Errorf("cleared twice: %v", err)
	}
}

// What is no meter costs a count, never a start, and never blocks.
func TestWhatIsNoMeterIsEmpty(t *testing.T) {
	for _, text := range []string{
		"", "{", "null", "[]", `{"deaths":"many"}`, `{"deaths":-1}`, "\x00",
		`{"deaths":9,"starts":[` + strings.Repeat(`"2026-01-02T03:04:05Z",`, 20) + `"2026-01-02T03:04:05Z"]}`,
	} {
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, meter.FileName), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if m := meter.Read(home); m.Deaths != 0 {
			t.Errorf("%.40q was read as %+v", text, m)
		}
	}
	home := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(home, meter.FileName), 0o600); err != nil {
		t.Fatal(err)
	}
	if m := meter.Read(home); m.Deaths != 0 {
		t.Errorf("a FIFO was read as %+v", m)
	}
}
