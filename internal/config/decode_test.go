package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/joho/godotenv"
	"pgregory.net/rapid"
)

func TestParseDotenv(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                                  {},
		"# c\n\n  \t\n":                     {},
		"A=1":                               {"A": "1"},
		"A=1\r\nB=2\r\n":                    {"A": "1", "B": "2"},
		"export A=1\n  B = two words  \n":   {"A": "1", "B": "two words"},
		"A=a#b\nB=a # c\nC=#c\nD= # c":      {"A": "a#b", "B": "a", "C": "", "D": ""},
		"A=\nB=''\nC=\"\"":                  {"A": "", "B": "", "C": ""},
		"A='it $HOME \\n'\nB=pa$$w0rd":      {"A": `it $HOME \n`, "B": "pa$$w0rd"},
		`A="q\"\\\n\t\$x\d" # c`:            {"A": "q\"\\\n\t$x\\d"},
		"A='x\ny'\nB=2\n":                   {"A": "x\ny", "B": "2"},
		"A=1\nA=2":                          {"A": "2"},
		"\ufeffA=1":                         {"A": "1"},
		"A=b=c":                             {"A": "b=c"},
		"A=\"-----BEGIN\nx\n-----END\"\r\n": {"A": "-----BEGIN\nx\n-----END"},
	} {
		got, _, err := parseDotenv(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if len(got) != len(want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
		for name, value := range want {
			if got[name].text != value {
				t.Errorf("%q: %s = %q, want %q", text, name, got[name].text, value)
			}
		}
	}
}

func TestParseDotenvErrors(t *testing.T) {
	for text, want := range map[string]string{
		"A":                    "1: expected NAME=value",
		"A=1\n=x":              "2: expected NAME=value",
		"A=1\n\n1A=x":          "3: expected NAME=value",
		"A B=x":                "1: expected NAME=value",
		"A='x\ny'\nB=\"\n\n":   `3: B: expected a closing "`,
		"A='x\ny' z\n":         "2: A: expected nothing after the closing quote",
		"A=1\nB: yaml style\n": "2: expected NAME=value",
	} {
		_, line, err := parseDotenv(text)
		if err == nil || fmt.Sprintf("%d: %v", line, err) != want {
			t.Errorf("%q: line %d: %v, want %s", text, line, err, want)
		}
	}
}

// Where a file uses what both understand, we read what godotenv reads.
func TestParseDotenvAgreesWithGodotenv(t *testing.T) {
	name := rapid.StringMatching(`[A-Z_][A-Z0-9_]{0,8}`)
	// Left out: two comments on a line, and a comment right behind the equals
	// sign, which godotenv takes for a value.
	plain := rapid.StringMatching(`[a-z0-9/:.,;@%+*-]{1,12}( [a-z]{1,5}#?)?`)
	single := rapid.Map(rapid.StringMatching(`[a-z #=]{1,12}`), func(s string) string { return "'" + s + "'" })
	double := rapid.Map(rapid.StringMatching(`[a-z #=]{1,12}`), func(s string) string { return `"` + s + `\n"` })
	tail := rapid.SampledFrom([]string{"\n", " # note\n", "\r\n", "\n\n# a comment\n"})
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		for range rapid.IntRange(0, 6).Draw(t, "lines") {
			b.WriteString(rapid.SampledFrom([]string{"", "export ", "  "}).Draw(t, "lead"))
			b.WriteString(name.Draw(t, "name") + "=" + rapid.OneOf(plain, single, double).Draw(t, "value") + tail.Draw(t, "tail"))
		}
		want, err := godotenv.Unmarshal(b.String())
		if err != nil {
			t.Skip("not a file for godotenv")
		}
		got, _, err := parseDotenv(b.String())
		if err != nil || len(got) != len(want) {
			t.Fatalf("%q: got %v (%v), godotenv says %v", b.String(), got, err, want)
		}
		for name, value := range want {
			if got[name].text != value {
				t.Fatalf("%q: %s = %q, godotenv says %q", b.String(), name, got[name].text, value)
			}
		}
	})
}

func FuzzParseDotenv(f *testing.F) {
	for _, seed := range []string{"", "A=1", "export A='x'\n", "A=\"\\n\" # c\r\n", "A='", "=", "A=\"\\", "\ufeff#"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		entries, line, err := parseDotenv(text)
		if lines := strings.Count(text, "\n") + 1; line < 1 || err != nil && line > lines {
			t.Errorf("line %d of %d (%v)", line, lines, err)
		}
		for name, e := range entries {
			if !validVariable(name) || e.line < 1 {
				t.Errorf("entry %q at line %d", name, e.line)
			}
		}
	})
}

func FuzzParseYAML(f *testing.F) {
	for _, seed := range []string{"", "model: {name: x}", "a: &a *a", "? [a]\n: b", "- - -", "model:\n\t", "<<: *x", "!!x", "\"\\x", "--- |\n...\n---", "model: *m", "log: &l {level: *l}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !utf8.Valid(data) && len(data) > 1<<10 {
			t.Skip("large noise teaches nothing")
		}
		for _, err := range parseYAML("config.yaml", data, len(data)%2 == 1).errors {
			if !strings.HasPrefix(err.Error(), "config.yaml:") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error without its place, or of several lines: %v", err)
			}
			if errors.Is(err, errParserBug) {
				t.Logf("the YAML parser gave up: %v", err)
			}
		}
	})
}

// A changed .env says what it said, but for the one setting.
func FuzzSetDotenv(f *testing.F) {
	for _, seed := range []string{"", "A=1", "export IRC_PASSWORD='a\nb' # c\r\nB=\"x\"\n", "IRC_PASSWORD_FILE=/k\nIRC_PASSWORD=1\nIRC_PASSWORD=2", "\ufeffIRC_PASSWORD=a"} {
		for _, value := range []string{"", "word", "two words", "it's \"$x\\n\"\r\n#", "ü"} {
			f.Add(seed, value)
		}
	}
	s, _ := Find("irc.password")
	f.Fuzz(func(t *testing.T, text, value string) {
		before, _, err := parseDotenv(text)
		if err != nil {
			return
		}
		after, err := setDotenv([]byte(text), s, value)
		if err != nil {
			return // a value that no quotes can hold
		}
		got, _, err := parseDotenv(string(after))
		if err != nil || got[s.Env].text != value {
			t.Fatalf("%q with %q is %q: %v", text, value, after, err)
		}
		for _, name := range s.Names() {
			delete(before, name)
			delete(got, name)
		}
		for name, e := range before {
			if got[name].text != e.text {
				t.Errorf("%q with %q is %q: %s was %q", text, value, after, name, e.text)
			}
		}
		if len(got) != len(before) {
			t.Errorf("%q with %q is %q", text, value, after)
		}
	})
}
