package irc

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLine is the longest line that a server takes or relays, in bytes, with its
// source and its end (RFC 2812, 2.3).
const maxLine = 512

// fold brings a nick or a channel to the one form that the server compares:
// under "ascii" A-Z alone have lower forms, else []\~ have them too (RFC 2812,
// 2.2). The length stays.
func fold(casemapping, name string) string {
	last := byte('^') // of ] [ \ ^, whose lower forms are } { | ~
	switch casemapping {
	case "ascii":
		last = 'Z'
	case "rfc1459-strict":
		last = ']'
	}
	b := []byte(name)
	for i, c := range b {
		if 'A' <= c && c <= last {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// addressed returns what text says to nick, where it begins with "nick:" or
// "nick,".
func addressed(casemapping, nick, text string) (string, bool) {
	n := len(nick)
	if n == 0 || len(text) <= n || fold(casemapping, text[:n]) != fold(casemapping, nick) {
		return "", false
	}
	if text[n] != ':' && text[n] != ',' {
		return "", false
	}
	return strings.TrimSpace(text[n+1:]), true
}

// ctcp splits a message between \x01 bytes (modern.ircdocs.horse/ctcp) into its
// command, in capitals, and the rest.
func ctcp(text string) (command, rest string, ok bool) {
	text, ok = strings.CutPrefix(text, "\x01")
	if !ok {
		return "", "", false
	}
	text, _, _ = strings.Cut(text, "\x01")
	command, rest, _ = strings.Cut(text, " ")
	return strings.ToUpper(command), rest, true
}

// plain turns what somebody sent into valid UTF-8 without control characters
// and without the codes for colours (modern.ircdocs.horse/formatting).
func plain(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if !strings.ContainsFunc(text, unicode.IsControl) {
		return text
	}
	var b strings.Builder
	for text != "" {
		r, n := utf8.DecodeRuneInString(text)
		text = text[n:]
		switch {
		case r == '\x03':
			text = cutColour(text, 2, isDigit)
		case r == '\x04':
			text = cutColour(text, 6, isHex)
		case r == '\t' || !unicode.IsControl(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

// cutColour takes a colour, and a second one behind a comma, off the front of
// text; each has at most most characters of the kind.
func cutColour(text string, most int, kind func(byte) bool) string {
	first := run(text, most, kind)
	if first == 0 {
		return text
	}
	text = text[first:]
	if rest, ok := strings.CutPrefix(text, ","); ok {
		if second := run(rest, most, kind); second > 0 {
			return rest[second:]
		}
	}
	return text
}

func run(text string, most int, kind func(byte) bool) int {
	n := 0
	for n < len(text) && n < most && kind(text[n]) {
		n++
	}
	return n
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// split cuts text into lines of at most room bytes that IRC can carry: at its
// own line ends, then at spaces, then between runes. Empty lines, which IRC has
// not, and control characters, which could end a line or begin a command, are
// left out. Room is at least utf8.UTFMax.
func split(text string, room int) []string {
	var lines []string
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.ToValidUTF8(text, "\uFFFD"))
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRightFunc(strip(line), unicode.IsSpace)
		for len(line) > room {
			head, tail := cut(line, room)
			if strings.TrimSpace(head) != "" {
				lines = append(lines, head)
			}
			line = tail
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// strip leaves control characters out and makes a space of a tab.
func strip(line string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, line)
}

// cut parts line, longer than room, in two; the space between is left out.
func cut(line string, room int) (head, tail string) {
	if at := strings.LastIndexByte(line[:room+1], ' '); at > 0 {
		return line[:at], line[at+1:]
	}
	for !utf8.RuneStart(line[room]) {
		room--
	}
	return line[:room], line[room:]
}
