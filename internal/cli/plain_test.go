package cli

import (
	"reflect"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/boot"
)

// What /init knows without the command line is what the command line would say.
func TestPlainCommandsAreWhatTheyAre(t *testing.T) {
	root := newRoot(&options{})
	for _, c := range root.Commands() {
		for _, word := range append([]string{c.Name()}, c.Aliases...) {
			if !boot.IsCommand([]string{word}) {
				t.Errorf("boot does not know the command %q", word)
			}
		}
	}
	known := 0
	for _, text := range []string{"", "gateway run", "true", "sh -c gateway", "gateway run -v", "gateway", "hermes gateway run", "/bin/hermes gateway run", "-p work gateway run", "run", "gateways run"} {
		args := strings.Fields(text)
		m, ok := boot.Plain(args)
		if !ok {
			continue
		}
		known++
		if len(args) == 0 { // as boot.Init has it
			args = []string{"gateway", "run"}
		}
		if want := parseMainProgram(args); !reflect.DeepEqual(m, want) {
			t.Errorf("%q: %+v, the command line says %+v", text, m, want)
		}
	}
	if known < 5 {
		t.Errorf("%d commands are plain", known)
	}
	for _, word := range []string{"true", "sh", "hermes", "gateways"} {
		if boot.IsCommand([]string{word}) {
			t.Errorf("%q is no command", word)
		}
	}
}
