package irc

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hermesgw/hermes/internal/secret"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{" \r\n\t\n\x00", nil},
		{"one\ntwo\r\nthree\rfour", []string{"one", "two", "three", "four"}},
		{"  indented", []string{"  indented"}},
		{"a\tb", []string{"a b"}},
		{"\x01ACTION x\x01", []string{"ACTION x"}},
		{"1234567890 1234567890", []string{"1234567890", "1234567890"}},
		{"12345678901234", []string{"1234567890", "1234"}},
		{"世界世界", []string{"世界世", "界"}}, // three bytes each
		{"           x", []string{"x"}},
		{"bad \xff byte", []string{"bad \uFFFD", "byte"}},
	} {
		if got := split(c.text, 10); !slices.Equal(got, c.want) {
			t.Errorf("split(%q) is %q, want %q", c.text, got, c.want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("hello, world\r\nQUIT :x", 10)
	f.Add("世界 \xff\x00🎉", 4)
	f.Fuzz(func(t *testing.T, text string, room int) {
		if room < utf8.UTFMax || room > maxLine {
			return
		}
		lines := split(text, room)
		for _, line := range lines {
			if line == "" || len(line) > room || !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) {
				t.Errorf("split(%q, %d) has the line %q", text, room, line)
			}
		}
		squeeze := func(s string) string {
			return strings.Map(func(r rune) rune {
				if unicode.IsSpace(r) || unicode.IsControl(r) {
					return -1
				}
				return r
			}, strings.ToValidUTF8(s, "\uFFFD"))
		}
		if got, want := squeeze(strings.Join(lines, "")), squeeze(text); got != want {
			t.Errorf("split(%q, %d) keeps %q, want %q", text, room, got, want)
		}
	})
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"hello":                          "hello",
		"\x02bold\x02 \x1ditalic\x0f":    "bold italic",
		"\x0304red \x034,12both\x03 end": "red both end",
		"\x03,5 not a colour":            ",5 not a colour",
		"\x04ff8800hex":                  "hex",
		"\xe9t\xe9":                      "\uFFFDt\uFFFD",
		"a\tb\u0085c":                    "a\tbc",
	} {
		if got := plain(text); got != want {
			t.Errorf("plain(%q) is %q, want %q", text, got, want)
		}
	}
}

func FuzzInbound(f *testing.F) {
	f.Add("hermes: hello", "hermes")
	f.Add("\x01PING \xff\x01", "h")
	f.Add("\x03", "\x03:")
	f.Fuzz(func(t *testing.T, text, nick string) {
		got := plain(text)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) {
			t.Errorf("plain(%q) is %q", text, got)
		}
		if rest, ok := addressed("", nick, text); ok && !strings.HasSuffix(strings.TrimSpace(text), rest) {
			t.Errorf("addressed(%q, %q) is %q", nick, text, rest)
		}
		if command, _, ok := ctcp(text); ok && strings.ContainsAny(command, " \x01") {
			t.Errorf("ctcp(%q) is %q", text, command)
		}
		if folded := fold("", text); len(folded) != len(text) || fold("", folded) != folded {
			t.Errorf("fold(%q) is %q", text, folded)
		}
		if !utf8.ValidString(distinct(text)) {
			t.Errorf("distinct(%q) is %q", text, distinct(text))
		}
	})
}

func TestFold(t *testing.T) {
	for _, c := range []struct{ mapping, name, want string }{
		{"ascii", "Ann[]\\^Ä", "ann[]\\^Ä"},
		{"rfc1459", "Ann[]\\^", "ann{}|~"},
		{"", "[", "{"},
		{"rfc1459-strict", "[]\\^", "{}|^"},
	} {
		if got := fold(c.mapping, c.name); got != c.want {
			t.Errorf("fold(%q, %q) is %q, want %q", c.mapping, c.name, got, c.want)
		}
	}
}

func TestPauses(t *testing.T) {
	p := pauses{t: Timing{}.withDefaults()}
	within := func(err error, lasted, want time.Duration) {
		t.Helper()
		if got := p.next(err, lasted); got < want/2 || got > want {
			t.Errorf("the pause is %s, want %s to %s", got, want/2, want)
		}
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
		within(errGoodbye, time.Second, want*time.Second)
	}
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		within(&refusal{"no"}, time.Second, want*time.Minute)
	}
	within(errGoodbye, time.Hour, time.Second)
}

func TestBucket(t *testing.T) {
	b := bucket{pause: time.Second, burst: 4, full: time.Unix(1, 0)}
	now := time.Unix(1000, 0)
	var waits []time.Duration
	at := now
	for range 6 {
		if r := b.ready(); r.After(at) {
			at = r
		}
		waits = append(waits, at.Sub(now))
		b.take(at)
	}
	if want := []time.Duration{0, 0, 0, 0, time.Second, 2 * time.Second}; !slices.Equal(waits, want) {
		t.Errorf("six lines go after %v, want %v", waits, want)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Server: "irc.example.net:6697", Nick: "hermes", Channels: []string{"#ops", "#dev key"}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Options){
		"no port":              func(o *Options) { o.Server = "irc.example.net" },
		"no host":              func(o *Options) { o.Server = ":6667" },
		"no nick":              func(o *Options) { o.Nick = "" },
		"a nick of two words":  func(o *Options) { o.Nick = "her mes" },
		"a nick with a line":   func(o *Options) { o.Nick = "hermes\r\nQUIT" },
		"a nick with a mask":   func(o *Options) { o.Nick = "her!mes@x" },
		"a nick like a number": func(o *Options) { o.Nick = "1hermes" },
		"a user with a line":   func(o *Options) { o.User = "h\nQUIT" },
		"a name with a line":   func(o *Options) { o.RealName = "h\nQUIT" },
		"two channels in one":  func(o *Options) { o.Channels = []string{"#a,#b"} },
		"a key with a line":    func(o *Options) { o.Channels = []string{"#a b\r\nQUIT"} },
		"a user without SASL":  func(o *Options) { o.SASLUser = "bot" },
		"SASL without a user":  func(o *Options) { o.SASLPassword = secret.New("hunter2") },
		"a password of lines":  func(o *Options) { o.ServerPassword = secret.New("hunter2\r\nQUIT") },
		"a CA without TLS":     func(o *Options) { o.CAFile = "/etc/ca.pem" },
		"a CA that is absent":  func(o *Options) { o.TLS, o.CAFile = true, "/absent/ca.pem" },
	} {
		o := good
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q", name, err)
		}
	}
}
