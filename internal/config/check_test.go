package config_test

import (
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/config"
)

// Whoever mends a file wants to hear all that is wrong, not one line a run.
func TestCheckNamesEveryError(t *testing.T) {
	dir := home(t, map[string]string{
		".env":        "HERMES_MODEL_PROVIDER=clever\n",
		"config.yaml": "api_server:\n  port: http\nlog: loud\ndashboard:\n  port: [80]\n  enabled: maybe\nmodle: x\n",
	})
	c, errs := config.Check(config.Options{Home: dir, Lookup: environment(map[string]string{"HERMES_STOP_TIMEOUT": "soon"})})
	var text strings.Builder
	for _, err := range errs {
		text.WriteString(err.Error() + "\n")
	}
	for _, want := range []string{
		".env:1: HERMES_MODEL_PROVIDER:", "config.yaml:2:9: api_server.port:", "config.yaml:3:6: log:",
		"config.yaml:5:9: dashboard.port:", "config.yaml:6:12: dashboard.enabled:", "variable HERMES_STOP_TIMEOUT:",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("nothing says %q in:\n%s", want, &text)
		}
	}
	if len(errs) != 6 {
		t.Errorf("there are %d errors:\n%s", len(errs), &text)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "config.yaml:7:1") {
		t.Errorf("warnings %q", c.Warnings)
	}
	if got := c.API().Port; got != 8642 {
		t.Errorf("a port that is wrong became %d, want the default", got)
	}
}
