package intent_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/exitcode"
	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/supervise"
	"github.com/hermesgw/hermes/internal/testenv"
)

func TestWriteThenRead(t *testing.T) {
	home := t.TempDir()
	if _, ok, err := intent.Read(home); ok || err != nil {
		t.Fatalf("a fresh home: %v %v", ok, err)
	}
	at := time.Date(2026, 1, 2, 16, 4, 5, 99, time.FixedZone("", 3600))
	for _, want := range []supervise.Want{supervise.WantUp, supervise.WantDown} {
		if err := intent.Write(home, intent.Intent{Want: want, By: "gateway stop", At: at, Why: "a \"why\""}); err != nil {
			t.Fatal(err)
		}
		got, ok, err := intent.Read(home)
		if err != nil || !ok || got.Want != want || got.By != "gateway stop" || got.Why != "a \"why\"" {
			t.Errorf("Read = %+v %v %v", got, ok, err)
		}
	}
	data, _ := os.ReadFile(filepath.Join(home, intent.FileName))
	if want := `{"want":"down","by":"gateway stop","at":"2026-01-02T15:04:05Z","why":"a \"why\""}` + "\n"; string(data) != want {
		t.Errorf("file holds %s, want %s", data, want)
	}
	if left, _ := os.ReadDir(home); len(left) != 1 {
		t.Errorf("left-overs in the home: %v", left)
	}
}

func TestWriteRefusesAnUnknownWant(t *testing.T) {
	home := t.TempDir()
	if err := intent.Write(home, intent.Intent{Want: "sideways"}); err == nil {
		t.Fatal("written")
	}
	if _, ok, _ := intent.Read(home); ok {
		t.Error("a file is there")
	}
}

func TestString(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, i := range map[string]intent.Intent{
		"up, by cli at 2026-01-02T03:04:05Z": {Want: supervise.WantUp, By: "cli", At: at},
		"down":                               {Want: supervise.WantDown},
	} {
		if got := i.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestBrokenFilesAreNamedAndKept(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "the file is empty",
		`{"want":"up","by":"ga`:         "the file ends in the middle",
		"up\n":                          "invalid character",
		`"up"`:                          "the whole is a JSON string",
		"[]":                            "the whole is a JSON array",
		`{"want":7}`:                    "want is a JSON number",
		"null":                          `want is "", expected up or down`,
		"{}":                            `want is "", expected up or down`,
		`{"want":"sideways"}`:           `want is "sideways", expected up or down`,
		`{"want":"up"}{"want":"down"}`:  "found more behind it",
		`{"want":"up","at":"tuesday"}`:  "parsing time",
		strings.Repeat(" ", 64<<10+100): "expected at most",
		"\x00\x00\x00\x00":              "invalid character",
	} {
		home := t.TempDir()
		path := filepath.Join(home, intent.FileName)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, ok, err := intent.Read(home)
		if ok || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) ||
			!strings.Contains(err.Error(), "remove the file") || exitcode.Of(err) != exitcode.Config {
			t.Errorf("%.30q: %v %v", text, ok, err)
		}
		if err := intent.Write(home, intent.Intent{Want: supervise.WantUp}); err == nil {
			t.Errorf("%.30q: overwritten", text)
		}
		if data, _ := os.ReadFile(path); string(data) != text {
			t.Errorf("%.30q: the file changed", text)
		}
	}
}

func TestUnknownKeysPass(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, intent.FileName), []byte(`{"want":"down","later":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if i, ok, err := intent.Read(home); !ok || err != nil || i.Want != supervise.WantDown {
		t.Errorf("Read = %+v %v %v", i, ok, err)
	}
}

// What a command run as root writes belongs to the owner of the home.
func TestRootWritesForTheOwnerOfTheHome(t *testing.T) {
	testenv.Need(t, "root")
	home := t.TempDir()
	if err := os.Chown(home, 10000, 7); err != nil {
		t.Fatal(err)
	}
	if err := intent.Write(home, intent.Intent{Want: supervise.WantUp}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(home, intent.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if st := fi.Sys().(*syscall.Stat_t); st.Uid != 10000 || st.Gid != 7 {
		t.Errorf("owner %d:%d, want 10000:7", st.Uid, st.Gid)
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"want":"up"}`, `{"want":"down","by":"x","at":"2026-01-02T15:04:05Z","why":""}`, `{"want":`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		home := t.TempDir()
		if err := os.WriteFile(filepath.Join(home, intent.FileName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		i, ok, err := intent.Read(home)
		if ok != (err == nil) || ok && i.Want != supervise.WantUp && i.Want != supervise.WantDown {
			t.Errorf("Read = %+v %v %v", i, ok, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("several lines: %v", err)
		}
	})
}
