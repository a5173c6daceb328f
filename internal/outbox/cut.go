package outbox

import (
	"strings"
	"unicode/utf8"
)

// fence is what opens and closes a code block of Markdown.
const fence = "```"

// leastLines is the least that a limit of lines counts for.
const leastLines = 8

// Cut splits text into parts of at most limit bytes and lines lines (0: any
// number; below 8 it counts as 8): at the end of a paragraph,
// else of a line, a sentence, a word, and in the middle of a word only where
// nothing else is left; never inside a character. With fences, a code block that
// is cut is closed at the end of a part and opened again, with its language, in
// the next, and one that was never closed is closed at the end. A limit under 64 counts as 64. A text without anything visible gives
// no part.
func Cut(text string, limit, lines int, fences bool) []string {
	limit = max(limit, 64)
	if lines <= 0 {
		lines = len(text) + 2 // more than there can be
	}
	lines = max(lines, leastLines)
	text = strings.TrimRight(text, " \t\r\n")
	var parts []string
	reopen := "" // the line that opens the block which the next part is in
	for strings.TrimSpace(text) != "" {
		head := ""
		if reopen != "" {
			head = reopen + "\n"
		}
		room, left := limit-len(head), lines-strings.Count(head, "\n")
		fits := strings.Count(text, "\n") < left
		if last := head + text; fits && len(text) <= room && (!fences || openBlock(last) == "") {
			parts = append(parts, last)
			break
		} else if strings.Count(text, "\n")+1 < left && len(last)+len("\n"+fence) <= limit { // a block that was never closed
			parts = append(parts, last+"\n"+fence)
			break
		}
		if fences { // what closes a block has a place
			room, left = room-len("\n"+fence), left-1
		}
		part, rest := cutOnce(text, min(room, endOfLine(text, left)), reopen != "")
		text = rest
		body := head + part
		if fences {
			if reopen = openBlock(body); len(reopen) > limit/4 {
				reopen = fence // a language of that length is none
			}
			if reopen != "" {
				body += "\n" + fence
			}
		}
		if strings.TrimSpace(part) != "" {
			parts = append(parts, body)
		}
	}
	return parts
}

// endOfLine is where line n of text ends, from 1; the end of text if it has fewer.
func endOfLine(text string, n int) int {
	for i := range len(text) {
		if text[i] == '\n' {
			if n--; n == 0 {
				return i
			}
		}
	}
	return len(text)
}

// cutOnce splits text at the best place within limit bytes. Inside code, lines
// are the unit and leading blanks are kept.
func cutOnce(text string, limit int, code bool) (part, rest string) {
	window := text[:limit+1] // a break right behind the last byte counts
	if code {
		if i := strings.LastIndexByte(window, '\n'); i > 0 {
			return text[:i], text[i+1:]
		}
	}
	least := limit / 3 // do not make crumbs for the sake of a better place
	if i := strings.LastIndex(window, "\n\n"); i > least {
		return text[:i], strings.TrimLeft(text[i:], "\n")
	}
	if i := strings.LastIndexByte(window, '\n'); i > least {
		return text[:i], text[i+1:]
	}
	if i := lastSentence(window); i > least {
		return text[:i], strings.TrimLeft(text[i:], " ")
	}
	if i := strings.LastIndexByte(window, ' '); i > 0 {
		return text[:i], strings.TrimLeft(text[i:], " ")
	}
	end := limit
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	if end == 0 { // not UTF-8 at all
		end = limit
	}
	return text[:end], text[end:]
}

// lastSentence is where the last sentence ends in s that is followed by a blank,
// or -1.
func lastSentence(s string) int {
	for i := len(s) - 1; i > 0; i-- {
		if s[i] == ' ' && strings.ContainsRune(".!?:;", rune(s[i-1])) {
			return i
		}
	}
	return -1
}

// openBlock returns the line that opens the code block in which text ends, or
// nothing.
func openBlock(text string) string {
	open := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if !strings.HasPrefix(strings.TrimLeft(line, " "), fence) {
			continue
		}
		if open == "" {
			open = strings.TrimSpace(line)
		} else {
			open = ""
		}
	}
	return open
}
