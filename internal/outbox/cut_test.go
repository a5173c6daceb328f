package outbox_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hermesgw/hermes/internal/outbox"
)

func TestCutsWhereAReaderWould(t *testing.T) {
	para := strings.Repeat("word ", 10) + "end."
	for name, c := range map[string]struct {
		text  string
		limit int
		want  []string
	}{
		"short":      {"hello", 100, []string{"hello"}},
		"nothing":    {" \n\n ", 100, nil},
		"paragraphs": {para + "\n\n" + para, 80, []string{para, para}},
		"lines":      {para + "\n" + para, 80, []string{para, para}},
		"sentences":  {"This is the first sentence of them. And this is the second sentence, longer.", 64, []string{"This is the first sentence of them.", "And this is the second sentence, longer."}},
		"words":      {strings.Repeat("abcdefghi ", 8), 64, []string{strings.TrimSpace(strings.Repeat("abcdefghi ", 6)), "abcdefghi abcdefghi"}},
		"one word":   {strings.Repeat("x", 130), 64, []string{strings.Repeat("x", 60), strings.Repeat("x", 60), strings.Repeat("x", 10)}},
	} {
		got := outbox.Cut(c.text, c.limit, 0, true)
		if name == "one word" { // the reserve for a fence is not promised
			if strings.Join(got, "") != c.text {
				t.Errorf("%s: %q", name, got)
			}
			continue
		}
		if strings.Join(got, "|") != strings.Join(c.want, "|") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestCodeBlocksAreClosedAndOpenedAgain(t *testing.T) {
	var code strings.Builder
	for range 10_000 {
		code.WriteString("    if x { return y }\n")
	}
	text := "Here:\n```go\n" + code.String() + "```\nDone."
	parts := outbox.Cut(text, 1000, 0, true)
	var again strings.Builder
	for i, p := range parts {
		if len(p) > 1000 || strings.Count(p, "```")%2 != 0 {
			t.Fatalf("part %d: %d bytes, %d fences", i, len(p), strings.Count(p, "```"))
		}
		if i > 0 && i < len(parts)-1 && !strings.HasPrefix(p, "```go\n    if x") {
			t.Fatalf("part %d begins %q", i, p[:20])
		}
		again.WriteString(p)
	}
	if n := strings.Count(again.String(), "    if x { return y }"); n != 10_000 {
		t.Errorf("%d lines of code are left", n)
	}
	if !strings.HasSuffix(parts[len(parts)-1], "Done.") {
		t.Errorf("the end: %q", parts[len(parts)-1])
	}
}

// Short lines are cut by their number, and code is closed and opened again.
func TestManyShortLinesAreManyParts(t *testing.T) {
	text := "Here:\n```\n" + strings.Repeat("}\n", 100) + "```\nDone."
	parts := outbox.Cut(text, 1200, 16, true)
	code := 0
	for i, p := range parts {
		if n := strings.Count(p, "\n") + 1; n > 16 || i < len(parts)-1 && n < 12 || fenceLines(p)%2 != 0 {
			t.Errorf("part %d has %d lines: %q", i, n, p)
		}
		code += strings.Count(p, "}")
	}
	if code != 100 {
		t.Errorf("%d lines of code are left", code)
	}
}

// Whatever the text: no part is too long, every visible character is there in
// order, and no character is cut.
func FuzzCut(f *testing.F) {
	f.Add("hello\n\nworld. more ```go\ncode\n``` end", 64, 0)
	f.Add(strings.Repeat("ü", 200), 65, 0)
	f.Add("Look:\n```go\nfunc main() {}\n", 64, 0)
	f.Add("```\n"+strings.Repeat("x", 60)+"```"+strings.Repeat("y", 60), 64, 0)
	f.Add(strings.Repeat("a", 58)+"```\n"+strings.Repeat("b", 90), 64, 0)
	f.Add("```"+strings.Repeat("lang", 40)+"\nx\n"+strings.Repeat("y\n", 100), 70, 0)
	f.Add("a\n```\n"+strings.Repeat("}\n", 50)+"```\n\n\n\n\n\n\n\n\n\n\nend", 1000, 8)
	f.Add(strings.Repeat("\n", 50)+"x"+strings.Repeat("\ny", 50), 1000, 9)
	f.Fuzz(func(t *testing.T, text string, limit, lines int) {
		limit = 64 + abs(limit)%4000
		if lines = abs(lines) % 40; lines > 0 && lines < 8 {
			lines = 8
		}
		if !utf8.ValidString(text) || len(text) > 1<<16 {
			return
		}
		parts := outbox.Cut(text, limit, lines, false)
		for _, p := range parts {
			if lines > 0 && strings.Count(p, "\n") >= lines {
				t.Fatalf("a part has %d lines for %d: %q", strings.Count(p, "\n")+1, lines, p)
			}
			if len(p) > limit || !utf8.ValidString(p) || strings.TrimSpace(p) == "" {
				t.Fatalf("a part of %d bytes for %d: %q", len(p), limit, p)
			}
		}
		if squeeze(strings.Join(parts, "")) != squeeze(text) {
			t.Fatalf("%q became %q", text, parts)
		}
		parts = outbox.Cut(text, limit, lines, true)
		for _, p := range parts {
			if lines > 0 && strings.Count(p, "\n") >= lines {
				t.Fatalf("a part has %d lines for %d: %q", strings.Count(p, "\n")+1, lines, p)
			}
			if len(p) > limit || !utf8.ValidString(p) || strings.TrimSpace(p) == "" {
				t.Fatalf("with fences, a part of %d bytes for %d: %q", len(p), limit, p)
			}
			if fenceLines(p)%2 != 0 {
				t.Fatalf("with fences for %d, a block is open at the end of %q, cut from %q", limit, p, text)
			}
		}
		if missing := missing(squeeze(text), squeeze(strings.Join(parts, ""))); missing != "" {
			t.Fatalf("%q became %q: no %q", text, parts, missing)
		}
	})
}

// fenceLines counts the lines that open or close a block.
func fenceLines(text string) (n int) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimLeft(line, " "), "```") {
			n++
		}
	}
	return n
}

// missing is what of want does not come in got in the same order; more may stand
// between.
func missing(want, got string) string {
	for i, r := range want {
		at := strings.IndexRune(got, r)
		if at < 0 {
			return want[i:]
		}
		got = got[at+utf8.RuneLen(r):]
	}
	return ""
}

func abs(n int) int {
	if n < 0 {
		return -(n + 1)
	}
	return n
}

// squeeze leaves out blanks, which cuts may take.
func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }
