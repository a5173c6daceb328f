package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml/ast"
)

// A change of config.yaml replaces one range of its bytes: comments, order,
// quotes and blanks of all else stay because nobody touches them. The tree of
// the parser says where the range is; verifyEdit says whether it was the right
// one, so a form of YAML that is not foreseen here is refused, not damaged.

// errByHand is a form of YAML in which one setting cannot be told from others.
var errByHand = errors.New("it stands there in a form that cannot be changed by itself; change it with: hermes config edit")

// splice is a range of bytes and what comes in its place.
type splice struct {
	from, to int
	text     string
}

// setYAML returns data with value at key. s is the setting called key.
func setYAML(data []byte, s Setting, value string) ([]byte, error) {
	after, err := editYAML(data, s.Key, func(y *yamlText) (splice, error) { return y.set(s, value) })
	if err != nil {
		return nil, err
	}
	e, set := parseYAML(yamlName, after, false).entries[s.Key]
	if got, err := s.checkYAML(e.text); !set || err != nil || got != value {
		return nil, errByHand
	}
	return after, nil
}

// unsetYAML returns data without key.
func unsetYAML(data []byte, key string) ([]byte, error) {
	return editYAML(data, key, func(y *yamlText) (splice, error) { return y.unset(key) })
}

func editYAML(data []byte, key string, edit func(*yamlText) (splice, error)) (after []byte, err error) {
	defer func() {
		if recover() != nil { // the parser names places that are not in the file, for some strange ones
			after, err = nil, errByHand
		}
	}()
	y, err := readText(data)
	if err != nil {
		return nil, err
	}
	change, err := edit(y)
	if err != nil {
		return nil, err
	}
	bom := len(data) - len(y.data)
	after = slices.Concat(data[:bom+change.from], []byte(change.text), data[bom+change.to:])
	return after, verifyEdit(data, after, key)
}

func (y *yamlText) set(s Setting, value string) (splice, error) {
	pair, section, err := y.find(s.Key)
	if err != nil {
		return splice{}, err
	}
	if pair != nil {
		return y.replace(*pair, s, value)
	}
	names := strings.Split(strings.TrimPrefix(strings.TrimPrefix(s.Key, section.name), "."), ".")
	return y.insert(section, names, s.yaml(value))
}

// replace puts value in the place of the one that pair has.
func (y *yamlText) replace(pair spot, s Setting, value string) (splice, error) {
	from, to, err := y.valueOf(pair)
	if err != nil {
		return splice{}, err
	}
	text := s.yaml(value)
	if from == to { // `name:` with nothing behind it
		return splice{from, to, " " + text}, nil
	}
	if seq, ok := untagged(pair.value).(*ast.SequenceNode); ok && !seq.IsFlowStyle {
		column := seq.Start.Position.Column
		text = s.yamlBlock(value, y.eol+strings.Repeat(" ", column-1))
		if text == "" || s.Kind != List { // a value may not stand as far to the left as a dash
			text = "  " + s.yaml(value)
		}
	}
	return splice{from, to, text}, nil
}

// insert adds names, nested, below section.
func (y *yamlText) insert(section spot, names []string, value string) (splice, error) {
	flow := names[len(names)-1] + ": " + value
	for _, name := range slices.Backward(names[:len(names)-1]) {
		flow = name + ": {" + flow + "}"
	}
	if section.value == nil {
		text := y.block(0, names, value)
		if len(y.data) == 0 || bytes.HasSuffix(y.data, []byte("\n")) {
			text = strings.TrimPrefix(text, y.eol) + y.eol
		}
		return splice{len(y.data), len(y.data), text}, nil
	}
	if section.value.Type() == ast.NullType {
		return y.fill(section, names, value, "{"+flow+"}")
	}
	m, ok := section.value.(ast.MapNode)
	if !ok {
		return splice{}, errByHand
	}
	first := m.MapRange()
	if isFlow(section.value) {
		at := y.offset(section.value.GetToken().Position) + 1
		if first.Next() {
			flow += ", "
		}
		return splice{at, at, flow}, nil
	}
	if !first.Next() {
		return splice{}, errByHand
	}
	indent := first.Key().GetToken().Position.Column - 1
	_, end, err := y.valueOf(spot{key: section.key, value: section.value})
	if err != nil {
		return splice{}, err
	}
	at := y.lineEnd(end)
	if section.key == nil && onlyComments(y.data[at:]) {
		at = len(bytes.TrimRight(y.data, "\r\n"))
	}
	return splice{at, at, y.block(indent, names, value)}, nil
}

// fill gives an empty section its first setting.
func (y *yamlText) fill(section spot, names []string, value, flow string) (splice, error) {
	if section.key == nil {
		return splice{}, errByHand
	}
	from, to, err := y.valueOf(section)
	switch {
	case err != nil:
		return splice{}, err
	case from < to: // null or ~
		return splice{from, to, flow}, nil
	case section.flow:
		return splice{from, to, " " + flow}, nil
	}
	at := y.lineEnd(to)
	return splice{at, at, y.block(section.key.GetToken().Position.Column+1, names, value)}, nil
}

// block writes names nested in lines of their own, each after a line break.
func (y *yamlText) block(indent int, names []string, value string) string {
	var b strings.Builder
	for i, name := range names {
		b.WriteString(y.eol + strings.Repeat(" ", indent+2*i) + name + ":")
	}
	return b.String() + " " + value
}

func (y *yamlText) unset(key string) (splice, error) {
	pair, _, err := y.find(key)
	switch {
	case err != nil:
		return splice{}, err
	case pair == nil:
		return splice{}, nil
	}
	_, to, err := y.valueOf(*pair)
	if err != nil {
		return splice{}, err
	}
	from := y.offset(pair.key.GetToken().Position)
	if pair.flow {
		return y.cutFromFlow(from, to), nil
	}
	start := y.lines[pair.key.GetToken().Position.Line-1]
	if strings.Trim(string(y.data[start:from]), " ") != "" {
		return splice{}, errByHand
	}
	end := y.lineEnd(to)
	if next := bytes.IndexByte(y.data[end:], '\n'); next >= 0 {
		end += next + 1
	} else {
		end = len(y.data)
	}
	return splice{from: start, to: end}, nil
}

// cutFromFlow removes a pair of a {mapping} with one of the commas around it.
func (y *yamlText) cutFromFlow(from, to int) splice {
	rest := bytes.TrimLeft(y.data[to:], " \t\r\n")
	if bytes.HasPrefix(rest, []byte(",")) {
		rest = bytes.TrimLeft(rest[1:], " ")
		return splice{from: from, to: len(y.data) - len(rest)}
	}
	if before := bytes.TrimRight(y.data[:from], " \t\r\n"); bytes.HasSuffix(before, []byte(",")) {
		from = len(before) - 1
	}
	return splice{from: from, to: to}
}

func onlyComments(data []byte) bool {
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

// yaml writes a checked value of s for config.yaml.
func (s Setting) yaml(value string) string {
	switch s.Kind {
	case Text, URL:
		return quoteYAML(value)
	case List:
		var items []string
		for _, item := range listItems(value) {
			items = append(items, quoteYAML(item))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case Int, Port, Bool, Duration, Size, Enum:
	}
	return value
}

// yamlBlock writes a list in lines of its own; between separates them.
func (s Setting) yamlBlock(value, between string) string {
	var items []string
	for _, item := range listItems(value) {
		items = append(items, "- "+quoteYAML(item))
	}
	return strings.Join(items, between)
}

// plainYAML matches text that means itself in every place of a YAML file, but
// for the words in wordsOfYAML.
const plainYAML = `^[A-Za-z/_][A-Za-z0-9_./@+-]*(:[A-Za-z0-9_./@+-]+)*$`

func wordsOfYAML() []string {
	return []string{"true", "false", "yes", "no", "on", "off", "y", "n", "null"}
}

func quoteYAML(text string) string {
	switch {
	case regexp.MustCompile(plainYAML).MatchString(text) && !slices.Contains(wordsOfYAML(), strings.ToLower(text)):
		return text
	case strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return strconv.Quote(text)
	}
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

// verifyEdit says whether two files mean the same but for the setting called key.
func verifyEdit(before, after []byte, key string) error {
	old, err := meaning(before)
	if err != nil {
		return err
	}
	changed, err := meaning(after)
	if err != nil {
		return errByHand
	}
	for _, facts := range []map[string]string{old, changed} {
		for path := range facts {
			own := path == key || strings.HasPrefix(path, key+".") || strings.HasPrefix(path, key+" ")
			if own || path == "" || strings.HasPrefix(key, path+".") { // a section that was empty, or became it
				delete(facts, path)
			}
		}
	}
	if !maps.Equal(old, changed) {
		return errByHand
	}
	return nil
}

// meaning lists all that a file says, by path.
func meaning(data []byte) (map[string]string, error) {
	file, err := parse(bytes.TrimPrefix(data, []byte("\ufeff")))
	if err != nil {
		return nil, err
	}
	facts := map[string]string{}
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			describeTo(facts, "", doc.Body)
		}
	}
	return facts, nil
}

func describeTo(facts map[string]string, path string, n ast.Node) {
	switch v := n.(type) {
	case *ast.AnchorNode:
		facts[path+" &"] = v.Name.GetToken().Value
		describeTo(facts, path, v.Value)
	case *ast.TagNode:
		facts[path+" !"] = v.GetToken().Value
		describeTo(facts, path, v.Value)
	case *ast.AliasNode:
		facts[path] = "*" + v.Value.GetToken().Value
	case *ast.SequenceNode:
		facts[path] = fmt.Sprint("list of ", len(v.Values))
		for i, item := range v.Values {
			describeTo(facts, path+"."+strconv.Itoa(i), item)
		}
	case *ast.LiteralNode:
		facts[path] = "text " + v.Value.Value
	case *ast.StringNode:
		facts[path] = "text " + v.Value
	case ast.MapNode:
		facts[path] = "mapping"
		for iter := v.MapRange(); iter.Next(); {
			below := iter.Key().GetToken().Value
			if path != "" {
				below = path + "." + below
			}
			describeTo(facts, below, iter.Value())
		}
	default:
		facts[path] = n.Type().String() + " " + n.GetToken().Value
	}
}
