package intent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermesgw/hermes/internal/intent"
	"github.com/hermesgw/hermes/internal/supervise"
)

func legacyHome(t *testing.T, text string) (home string) {
	t.Helper()
	home = t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "gateway_state.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return home
}

func TestInheritReadsTheOldWishOnce(t *testing.T) {
	for text, want := range map[string]supervise.Want{
		`{"gateway_state":"running","pid":7,"platforms":{}}`:          supervise.WantUp,
		`{"gateway_state":"draining"}`:                                supervise.WantUp, // killed while it drained
		`{"gateway_state":"degraded"}`:                                supervise.WantUp,
		`{"gateway_state":"starting"}`:                                supervise.WantUp,
		`{"gateway_state":"startup_failed"}`:                          supervise.WantUp,
		`{"gateway_state":"stopped"}`:                                 supervise.WantDown,
		`{"gateway_state":"stopped","desired_state":"running"}`:       supervise.WantUp, // a container stop, not an operator
		`{"gateway_state":"running","desired_state":"stopped"}`:       supervise.WantDown,
		`{"gateway_state":"draining","desired_state":null,"pid":"x"}`: supervise.WantUp,
	} {
		home := legacyHome(t, text)
		got, ok, err := intent.Inherit(home, time.Now())
		if err != nil || !ok || got.Want != want || got.By != intent.ByMigration {
			t.Errorf("%s: %+v %v %v, want %s", text, got, ok, err, want)
		}
		if kept, ok, err := intent.Read(home); err != nil || !ok || kept.Want != want || kept.By != intent.ByMigration || kept.Why != got.Why {
			t.Errorf("%s: intent.json holds %+v %v %v", text, kept, ok, err)
		}
		if data, _ := os.ReadFile(filepath.Join(home, "gateway_state.json")); string(data) != text {
			t.Errorf("the old file holds %q", data)
		}
		if _, ok, err := intent.Inherit(home, time.Now()); ok || err != nil {
			t.Errorf("%s: inherited twice (%v)", text, err)
		}
	}
}

func TestInheritNeverOverrulesAnIntent(t *testing.T) {
	home := legacyHome(t, `{"desired_state":"running"}`)
	if err := intent.Write(home, intent.Intent{Want: supervise.WantDown, By: "cli", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := intent.Inherit(home, time.Now()); ok || err != nil {
		t.Errorf("inherited: %v %v", ok, err)
	}
	if i, _, _ := intent.Read(home); i.Want != supervise.WantDown || i.By != "cli" {
		t.Errorf("the intent became %+v", i)
	}
}

func TestInheritSaysWhatItCannotRead(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "the file is empty",
		"{":                            "ends in the middle",
		"[]":                           "the whole is a JSON array",
		"{}":                           "no desired_state and no gateway_state",
		`{"gateway_state":"sideways"}`: `gateway_state is "sideways"`,
		`{"desired_state":7}`:          "desired_state is a JSON number",
	} {
		home := legacyHome(t, text)
		_, ok, err := intent.Inherit(home, time.Now())
		if ok || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v %v, want %q", text, ok, err, want)
		}
		if _, known, _ := intent.Read(home); known {
			t.Errorf("%q: something was recorded", text)
		}
	}
	if _, ok, err := intent.Inherit(t.TempDir(), time.Now()); ok || err != nil {
		t.Errorf("a fresh home: %v %v", ok, err)
	}
}
