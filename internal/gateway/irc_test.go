package gateway_test

import (
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/platform/irc/ngircdtest"
)

// Four lines go out at once, each further one takes a second: help on eleven
// lines took seven.
func TestHelpOnIRCGoesOutAtOnce(t *testing.T) {
	server := ngircdtest.Start(t, ngircdtest.Options{})
	r := start(t, onIRC(t, server))
	until(t, "it is on IRC", func() bool { return ready(r, "irc") })
	ann := server.Join(t, "ann")
	ann.Say("hermes", "/help")
	answers(t, ann, "/busy queue|interrupt - ")
	told := ann.Told("hermes")
	if len(told) > 3 {
		t.Errorf("help has %d lines: %q", len(told), told)
	}
	for _, line := range told[1:] {
		if !strings.HasPrefix(line, "/") {
			t.Errorf("a line begins in the middle of a command: %q", line)
		}
	}
	for _, name := range []string{"help", "new", "stop", "retry", "status", "usage", "model", "sessions", "resume NUMBER", "busy"} {
		if !strings.Contains(strings.Join(told, " "), " /"+name) {
			t.Errorf("no /%s in %q", name, told)
		}
	}
	adds(t, r)
}
