package config

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// readDotenv reads a .env file; a missing one is empty. An error names
// path:line and never repeats a line: it may hold a secret.
func readDotenv(o Options, path string) (map[string]entry, error) {
	data, err := o.readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read settings: %w", err)
	}
	entries, line, err := parseDotenv(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", path, line, err)
	}
	return entries, nil
}

// parseDotenv reads lines of the form
//
//	# comment
//	[export ]NAME=plain value   # comment
//	NAME='taken as it is'
//	NAME="with \n, \", \\ and \$"
//
// A quoted value may span lines. The last of several lines for a name counts.
// Nothing is expanded: a password with a dollar sign stays what it is. On an
// error, line says where (from 1).
func parseDotenv(text string) (entries map[string]entry, line int, err error) {
	entries = map[string]entry{}
	line, err = eachAssignment(text, func(name string, e entry) { entries[name] = e })
	if err != nil {
		return nil, line, err
	}
	return entries, line, nil
}

// eachAssignment calls visit with every assignment in text, in its order.
func eachAssignment(text string, visit func(name string, e entry)) (line int, err error) {
	text = strings.TrimPrefix(text, "\ufeff")
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for line = 1; text != ""; {
		first, rest, _ := strings.Cut(text, "\n")
		name, raw, err := cutAssignment(first)
		if err != nil {
			return line, err
		}
		if name == "" {
			text, line = rest, line+1
			continue
		}
		if raw == "" || raw[0] != '"' && raw[0] != '\'' {
			visit(name, entry{text: stripComment(raw), line: line, end: line})
			text, line = rest, line+1
			continue
		}
		quoted := text[len(first)-len(raw):]
		value, used, err := unquote(quoted)
		if err != nil {
			return line, fmt.Errorf("%s: %w", name, err)
		}
		last := line + strings.Count(quoted[:used], "\n")
		visit(name, entry{text: value, line: line, end: last})
		line = last + 1
		tail, rest, _ := strings.Cut(quoted[used:], "\n")
		if strings.TrimSpace(stripComment(" "+tail)) != "" {
			return last, fmt.Errorf("%s: expected nothing after the closing quote", name)
		}
		text = rest
	}
	return line, nil
}

// cutAssignment splits NAME=raw; name is empty for a blank or comment line.
// raw starts at its first character that is not blank.
func cutAssignment(line string) (name, raw string, err error) {
	line = strings.TrimLeft(line, " \t")
	if line == "" || line == "\r" || line[0] == '#' {
		return "", "", nil
	}
	name, raw, found := strings.Cut(line, "=")
	if after, ok := strings.CutPrefix(name, "export "); ok {
		name = after
	}
	name = strings.TrimSpace(name)
	if !found || !validVariable(name) {
		return "", "", errors.New("expected NAME=value")
	}
	return name, strings.TrimLeft(raw, " \t"), nil
}

func validVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
		if !letter && (i == 0 || r != '.' && (r < '0' || r > '9')) {
			return false
		}
	}
	return name != ""
}

// stripComment cuts a plain value at a # that follows a blank.
func stripComment(raw string) string {
	for i := range len(raw) {
		if raw[i] == '#' && (i == 0 || raw[i-1] == ' ' || raw[i-1] == '\t') {
			raw = raw[:i]
			break
		}
	}
	return strings.TrimSpace(raw)
}

// unquote reads the quoted value that text starts with and says how many bytes
// it took, quotes included.
func unquote(text string) (value string, used int, err error) {
	quote := text[0]
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == quote:
			return b.String(), i + 1, nil
		case c == '\\' && quote == '"' && i+1 < len(text):
			i++
			b.WriteString(unescape(text[i]))
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, fmt.Errorf("expected a closing %c", quote)
}

// unescape returns what a backslash and c mean in double quotes; an escape
// that is not one keeps its backslash.
func unescape(c byte) string {
	switch c {
	case 'n':
		return "\n"
	case 'r':
		return "\r"
	case 't':
		return "\t"
	case '"', '\\', '$':
		return string(c)
	}
	return "\\" + string(c)
}
