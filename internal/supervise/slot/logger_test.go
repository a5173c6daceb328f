package slot

import (
	"strings"
	"testing"
)

// Whole lines get the prefix, however they come; one without an end does at the end.
func TestPrefixer(t *testing.T) {
	long := strings.Repeat("x", takenLine-1)
	for name, c := range map[string]struct {
		parts []string
		want  string
	}{
		"whole":    {[]string{"a\nb\n"}, "[p] a\n[p] b\n"},
		"cut":      {[]string{"a", "b\nc", "\n"}, "[p] ab\n[p] c\n"},
		"empty":    {[]string{"\n", "\n\n"}, "[p] \n[p] \n[p] \n"},
		"no end":   {[]string{"a\nb"}, "[p] a\n[p] b\n"},
		"nothing":  {nil, ""},
		"too long": {[]string{long, "yz", "z\n"}, "[p] " + long + "yz\n[p] z\n"},
	} {
		var b strings.Builder
		p := prefixer{to: &b, prefix: "[p] "}
		for _, part := range c.parts {
			if err := p.write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.flush(); err != nil || b.String() != c.want {
			t.Errorf("%s: %q, %v; want %q", name, b.String(), err, c.want)
		}
	}
}
