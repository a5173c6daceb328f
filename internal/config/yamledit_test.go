package config

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Comments, order, quotes and blanks stay; one value changes.
func TestSetYAML(t *testing.T) {
	for _, c := range []struct{ before, key, value, after string }{
		// In the place of a value.
		{"model:\n  name: a # mine\n  delay: 1s\n", "model.name", "b", "model:\n  name: b # mine\n  delay: 1s\n"},
		{"model:\n  name:   'it''s'   # mine\n", "model.name", "x y", "model:\n  name:   'x y'   # mine\n"},
		{"model:\n  name: \"a\\\"b\" # c\n", "model.name", "b", "model:\n  name: b # c\n"},
		{"model:\n  name: a#b\n", "model.name", "b", "model:\n  name: b\n"},
		{"model: {name: a, delay: 1s} # mine\n", "model.name", "b", "model: {name: b, delay: 1s} # mine\n"},
		{"{\"model\": {\"name\": \"a\", \"delay\": null}}", "model.delay", "2s", "{\"model\": {\"name\": \"a\", \"delay\": 2s}}"},
		{"model:\n  name: a\n    b\n  # of delay\n  delay: 1s\n", "model.name", "c", "model:\n  name: c\n  # of delay\n  delay: 1s\n"},
		{"model:\n  name: |\n    # a\n    b\n# end\n", "model.name", "c", "model:\n  name: c\n# end\n"},
		{"model:\n  name: !!str 12 # x\n", "model.name", "007", "model:\n  name: '007' # x\n"},
		{"model:\n  name: # none yet\n  delay: 1s\n", "model.name", "a", "model:\n  name: a # none yet\n  delay: 1s\n"},
		{"model:\n  name: ~ # none\n", "model.name", "a", "model:\n  name: a # none\n"},
		{"n: &n word\nmodel:\n  name: *n # shared\nb: *n\n", "model.name", "a", "n: &n word\nmodel:\n  name: a # shared\nb: *n\n"},
		{"model: &m # anchored for nobody\n  name: &n a\n", "model.name", "b", "model: &m # anchored for nobody\n  name: &n b\n"},
		{"model.name: a\n", "model.name", "b", "model.name: b\n"},
		{"ä: {ö: ü}\nmodel: {ü: ä, name: ö}\n", "model.name", "ß", "ä: {ö: ü}\nmodel: {ü: ä, name: 'ß'}\n"},
		{"model:\r\n  name: a\r\n  delay: 1s\r\n", "model.name", "b", "model:\r\n  name: b\r\n  delay: 1s\r\n"},
		{"# all\r\n\r\nmodel: # one\r\n  name: a # mine\r\n  # of delay\r\n  delay: 1s\r\n", "model.delay", "2s", "# all\r\n\r\nmodel: # one\r\n  name: a # mine\r\n  # of delay\r\n  delay: 2s\r\n"},
		{"\ufeffmodel: {name: a}\n", "model.name", "b", "\ufeffmodel: {name: b}\n"},
		{"model: {name: a}", "model.base_url", "http://127.0.0.1:11434/v1", "model: {base_url: http://127.0.0.1:11434/v1, name: a}"},
		{"model: {name: a}\n", "model.name", "true", "model: {name: 'true'}\n"},
		{"model: {name: a}\n", "model.name", "a\nb", "model: {name: \"a\\nb\"}\n"},
		// Beside what is there.
		{"", "model.name", "a", "model:\n  name: a\n"},
		{"# nothing yet", "model.name", "a", "# nothing yet\nmodel:\n  name: a"},
		{"# nothing yet\n", "model.name", "a", "# nothing yet\nmodel:\n  name: a\n"},
		{"model:\n    delay: 1s # slow\n\n# logs\nlog: {}\n", "model.name", "a", "model:\n    delay: 1s # slow\n    name: a\n\n# logs\nlog: {}\n"},
		{"model:\n  name: a\nlog: {level: info}\n", "model.fallback.name", "b", "model:\n  name: a\n  fallback:\n    name: b\nlog: {level: info}\n"},
		{"model: {}\n", "model.fallback.name", "b", "model: {fallback: {name: b}}\n"},
		{"model: # the one\nlog: {level: info}\n", "model.name", "b", "model: # the one\n  name: b\nlog: {level: info}\n"},
		{"model: null # the one\n", "model.name", "b", "model: {name: b} # the one\n"},
		{"log:\n  level: info\n#  format: json\n", "chat.busy", "queue", "log:\n  level: info\n#  format: json\nchat:\n  busy: queue\n"},
		{"log:\n  level: info\n...\n", "chat.busy", "queue", "log:\n  level: info\nchat:\n  busy: queue\n...\n"},
		{"---\nlog:\r\n  level: info", "chat.busy", "queue", "---\nlog:\r\n  level: info\r\nchat:\r\n  busy: queue"},
		{"irc:\n  channels:\n    - '#a'\n  nick: b\n", "irc.tls", "false", "irc:\n  channels:\n    - '#a'\n  nick: b\n  tls: false\n"},
		{"irc:\n  nick: b\n  channels:\n  - '#a' # one\n", "irc.tls", "false", "irc:\n  nick: b\n  channels:\n  - '#a' # one\n  tls: false\n"},
		// Lists keep their form.
		{"irc:\n  channels: # all\n    - '#a' # one\n    - '#b'\n  nick: b\n", "irc.channels", "#c,#d", "irc:\n  channels: # all\n    - '#c'\n    - '#d'\n  nick: b\n"},
		{"irc:\n  channels:\n  - '#a'\n  nick: b\n", "irc.channels", "", "irc:\n  channels:\n    []\n  nick: b\n"},
		{"irc:\n  channels: ['#a',\n    '#b'] # all\n", "irc.channels", "#c", "irc:\n  channels: ['#c'] # all\n"},
		{"irc: {}\n", "irc.channels", "#c,#d", "irc: {channels: ['#c', '#d']}\n"},
	} {
		s, _ := Find(c.key)
		got, err := setYAML([]byte(c.before), s, c.value)
		if err != nil || string(got) != c.after {
			t.Errorf("%s=%s in %q:\n got %q (%v)\nwant %q", c.key, c.value, c.before, got, err, c.after)
		}
	}
}

func TestUnsetYAML(t *testing.T) {
	for _, c := range []struct{ before, key, after string }{
		{"model:\n  name: a # mine\n  # of delay\n  delay: 1s\n", "model.name", "model:\n  # of delay\n  delay: 1s\n"},
		{"model:\n  name: a\nlog: {}\n", "model.name", "model:\nlog: {}\n"},
		{"model: {name: a, delay: 1s}\n", "model.name", "model: {delay: 1s}\n"},
		{"model: {name: a, delay: 1s}\n", "model.delay", "model: {name: a}\n"},
		{"model: {name: a}\n", "model.name", "model: {}\n"},
		{"irc:\n  channels: # all\n  - '#a'\n  - '#b'\n  nick: b", "irc.channels", "irc:\n  nick: b"},
		{"model:\r\n  delay: 1s\r\n  name: |\r\n    a\r\n    # b\r\n", "model.name", "model:\r\n  delay: 1s\r\n"},
		{"log: {}\n", "model.name", "log: {}\n"},
		{"", "model.name", ""},
	} {
		got, err := unsetYAML([]byte(c.before), c.key)
		if err != nil || string(got) != c.after {
			t.Errorf("without %s in %q:\n got %q (%v)\nwant %q", c.key, c.before, got, err, c.after)
		}
	}
}

// What is shared with another place, or not to be told apart, is left to people.
func TestWhatIsChangedByHand(t *testing.T) {
	for _, text := range []string{
		"base: &b {name: a}\nmodel: *b\n",
		"model: &m {name: a}\nother: *m\n",
		"model:\n  name: &n a\nother: *n\n",
		"model: [a]\n",
		"model: a\n",
		"- a\n",
		"~\n",
		"log: {}\n---\nlog: {}\n",
		"model:\n  name: \"a\"# c\n",
		"model:\n  base_url: |+ # the blank line is part of it\n    http://h/\n\nlog: {}\n",
	} {
		s, _ := Find("model.name")
		if got, err := setYAML([]byte(text), s, "x"); err == nil {
			t.Errorf("%q became %q", text, got)
		}
	}
	if _, err := unsetYAML([]byte("model:\n  name: &n a\nother: *n\n"), "model.name"); !errors.Is(err, errByHand) {
		t.Errorf("an anchor in use was removed: %v", err)
	}
}

// A change of any file gives exactly that change, or is refused: one range of
// bytes differs, all other settings and unknown keys mean what they meant.
func FuzzEditYAML(f *testing.F) {
	for _, seed := range []string{
		"", "\r ", "#\r\n", "# c", "model: {name: x}", "model:\n  name: |+\n    a\n\n# c\nlog:\n  level: info\n", "irc:\n  channels:\n  - '#a'\n",
		"a: &a 1\nmodel:\n  name: *a\n", "{\"model\": {\"name\": \"x\"}}", "model:\r\n  name: ä\r\n", "? model\n: name: x\n", "model: &m\n  name: a\n  \"delay\": 'b",
		"--- # x\nmodel:\n  name:\n...\n", "model:\n  name: a\n   b: c\n", "model: {name: a # x\n , delay: 1s}\n", "model: !!map {name: !!str a}\n",
	} {
		for n := range len(editKeys()) {
			f.Add([]byte(seed), n, "value")
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, n int, value string) {
		keys := editKeys()
		s, _ := Find(keys[(n%len(keys)+len(keys))%len(keys)])
		value, err := s.checkYAML(value)
		if err != nil || value == "" {
			value = map[Kind]string{List: "#a,#b", Text: "a b"}[s.Kind]
		}
		old := parseYAML(yamlName, data, false)
		if after, err := setYAML(data, s, value); err == nil {
			exactly(t, old, data, after, s.Key, value)
			if again, err := setYAML(after, s, value); err != nil || !bytes.Equal(again, after) {
				t.Errorf("%q: the same again: %q, %v", data, again, err)
			}
			if without, err := unsetYAML(after, s.Key); err == nil {
				exactly(t, old, after, without, s.Key, "")
			}
		}
	})
}

func editKeys() []string {
	return []string{"model.name", "irc.channels", "model.fallback.name", "irc.realname"}
}

// exactly says that after differs from before by one value in one place.
func exactly(t *testing.T, old *walker, before, after []byte, key, value string) {
	t.Helper()
	changed := parseYAML(yamlName, after, false)
	for name, e := range changed.entries {
		if name != key && e.text != old.entries[name].text {
			t.Errorf("%q -> %q: %s was %q and is %q", before, after, name, old.entries[name].text, e.text)
		}
	}
	names := func(w *walker) []string {
		return slices.Sorted(maps.Keys(maps.Collect(func(yield func(string, bool) bool) {
			for name := range w.entries {
				if name != key && !yield(name, true) {
					return
				}
			}
		})))
	}
	if !slices.Equal(names(old), names(changed)) {
		t.Errorf("%q -> %q: settings %v became %v", before, after, names(old), names(changed))
	}
	s, _ := Find(key)
	if got, _ := s.checkYAML(changed.entries[key].text); got != value {
		t.Errorf("%q -> %q: %s is %q, not %q", before, after, key, got, value)
	}
	if err := verifyEdit(before, after, key); err != nil {
		t.Errorf("%q -> %q: more than %s changed", before, after, key)
	}
}

// Files as people write them are changed, not refused.
func TestSetYAMLOfOrdinaryFiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		comment := rapid.SampledFrom([]string{"", " # why: because", "  #x"})
		filler := rapid.SampledFrom([]string{"", "\n", "# a comment\n", "  # indented: comment\n\n"})
		word := rapid.SampledFrom([]string{"a", "'b c'", "\"d\\n\"", "e f", "http://h:1/x", "ä ö", "12", ""})
		var b strings.Builder
		for _, section := range rapid.Permutation([]string{"model", "irc", "agent", "log2"}).Draw(t, "order")[:rapid.IntRange(0, 4).Draw(t, "sections")] {
			b.WriteString(filler.Draw(t, "before") + section + ":" + comment.Draw(t, "of the section") + "\n")
			for _, key := range rapid.Permutation([]string{"name", "realname", "nickname"}).Draw(t, "keys")[:rapid.IntRange(1, 3).Draw(t, "n")] {
				b.WriteString("  " + key + ": " + word.Draw(t, "value") + comment.Draw(t, "of the value") + "\n" + filler.Draw(t, "after"))
			}
		}
		data := []byte(b.String())
		key := rapid.SampledFrom(editKeys()).Draw(t, "key")
		s, _ := Find(key)
		value := map[Kind]string{List: "#a,#b", Text: "x: y # z"}[s.Kind]
		after, err := setYAML(data, s, value)
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		without, err := unsetYAML(after, key)
		if err != nil {
			t.Fatalf("%q: %v", after, err)
		}
		if err := verifyEdit(data, without, key); err != nil {
			t.Fatalf("%q -> %q -> %q", data, after, without)
		}
		for line := range strings.Lines(b.String()) { // every comment is still there
			if _, text, found := strings.Cut(line, "#"); found && !strings.Contains(string(after), text) {
				t.Fatalf("%q -> %q lost %q", data, after, text)
			}
		}
	})
}
