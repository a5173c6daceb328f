package typo_test

import (
	"testing"

	"github.com/hermesgw/hermes/internal/typo"
)

func TestNearest(t *testing.T) {
	names := []string{"start", "status", "stop", "HERMES_DASHBOARD", "HERMES_DASHBOARD_HOST"}
	for word, want := range map[string]string{
		"statsu": "status", "stpo": "stop", "frobnicate": "", "": "",
		"HERMES_DASHBORD": "HERMES_DASHBOARD", "HERMES_DASHBOARD_HOTS": "HERMES_DASHBOARD_HOST",
	} {
		if got := typo.Nearest(word, names); got != want {
			t.Errorf("Nearest(%q) is %q, want %q", word, got, want)
		}
	}
}
