package config

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// yamlText is a file beside its tree.
type yamlText struct {
	data    []byte // without a byte order mark
	lines   []int  // where each line starts
	eol     string
	root    ast.Node        // nil: nothing but comments
	aliased map[string]bool // anchors that something refers to
}

func readText(data []byte) (*yamlText, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	file, err := parse(data)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(bytes.ReplaceAll(data, []byte("\r\n"), nil), []byte("\r")) {
		return nil, errByHand // the parser counts such lines in its own way
	}
	y := &yamlText{data: data, lines: []int{0}, eol: "\n", aliased: map[string]bool{}}
	for i, c := range data {
		if c == '\n' {
			y.lines = append(y.lines, i+1)
		}
	}
	if bytes.Contains(data, []byte("\r\n")) {
		y.eol = "\r\n"
	}
	if y.root, err = (&walker{}).body(file); err != nil {
		return nil, errByHand
	}
	if y.root != nil {
		ast.Walk(y, y.root)
	}
	return y, nil
}

// Visit notes every alias.
func (y *yamlText) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AliasNode); ok {
		y.aliased[a.Value.GetToken().Value] = true
	}
	return y
}

// spot is a pair of a mapping; without a key it is the root.
type spot struct {
	name  string // the whole of it, such as model.fallback
	key   ast.MapKeyNode
	value ast.Node // nil: the root of an empty file
	flow  bool     // the pair stands in a {mapping}
}

// find returns the pair called key, if there is one, and the deepest section
// that has it or would have it.
func (y *yamlText) find(key string) (pair *spot, section spot, err error) {
	section = spot{value: y.root}
	err = y.search(section, key, &pair, &section)
	return pair, section, err
}

func (y *yamlText) search(in spot, key string, pair **spot, section *spot) error {
	n, err := y.own(in.value)
	if err != nil {
		return err
	}
	in.value = n
	if len(in.name) >= len(section.name) {
		*section = in
	}
	m, ok := n.(ast.MapNode)
	if !ok {
		return nil
	}
	for iter := m.MapRange(); iter.Next(); {
		s := spot{name: iter.Key().GetToken().Value, key: iter.Key(), value: iter.Value(), flow: in.flow || isFlow(n)}
		if in.name != "" {
			s.name = in.name + "." + s.name
		}
		switch {
		case s.name == key:
			*pair = &s
		case strings.HasPrefix(key, s.name+"."):
			if err := y.search(s, key, pair, section); err != nil {
				return err
			}
		}
	}
	return nil
}

// own leads through anchors that nobody refers to; what is shared with another
// place is not one setting's to change.
func (y *yamlText) own(n ast.Node) (ast.Node, error) {
	for {
		switch v := n.(type) {
		case *ast.AliasNode:
			return nil, errByHand
		case *ast.AnchorNode:
			if y.aliased[v.Name.GetToken().Value] {
				return nil, errByHand
			}
			n = v.Value
		default:
			return n, nil
		}
	}
}

func isFlow(n ast.Node) bool {
	switch v := n.(type) {
	case *ast.MappingNode:
		return v.IsFlowStyle
	case *ast.SequenceNode:
		return v.IsFlowStyle
	}
	return false
}

// valueOf returns where the value of pair starts and ends. An empty range is a
// value that is not there, right behind the colon.
func (y *yamlText) valueOf(pair spot) (from, to int, err error) {
	n := pair.value
	if _, isAlias := n.(*ast.AliasNode); !isAlias {
		if n, err = y.own(n); err != nil {
			return 0, 0, err
		}
	}
	from = y.offset(n.GetToken().Position)
	n = untagged(n)
	switch v := n.(type) {
	case *ast.MappingNode:
		if v.IsFlowStyle {
			return from, y.offset(v.End.Position) + 1, nil
		}
		return y.mappingOf(v.Values)
	case *ast.MappingValueNode:
		return y.mappingOf([]*ast.MappingValueNode{v})
	case *ast.SequenceNode:
		if v.IsFlowStyle {
			return from, y.offset(v.End.Position) + 1, nil
		}
		return from, y.extent(pair, true, false), nil
	case *ast.LiteralNode:
		return from, y.extent(pair, false, true), nil
	case *ast.NullNode:
		if !bytes.HasPrefix(y.data[from:], []byte("~")) && !bytes.HasPrefix(bytes.ToLower(y.data[from:]), []byte("null")) {
			return from, from, nil
		}
	case *ast.StringNode:
		if t := v.GetToken().Type; t == token.SingleQuoteType || t == token.DoubleQuoteType {
			return y.quoted(from, y.offset(v.GetToken().Position))
		}
	}
	return from, y.plainEnd(pair, from), nil
}

func untagged(n ast.Node) ast.Node {
	for {
		switch v := n.(type) {
		case *ast.TagNode:
			n = v.Value
		case *ast.AnchorNode:
			n = v.Value
		default:
			return n
		}
	}
}

// mappingOf is valueOf for a mapping in lines of its own.
func (y *yamlText) mappingOf(pairs []*ast.MappingValueNode) (from, to int, err error) {
	if len(pairs) == 0 {
		return 0, 0, errByHand
	}
	last := pairs[len(pairs)-1]
	_, to, err = y.valueOf(spot{key: last.Key, value: last.Value})
	return y.offset(pairs[0].Key.GetToken().Position), to, err
}

// quoted finds the end of a value in quotes that opens at open.
func (y *yamlText) quoted(from, open int) (start, end int, err error) {
	quote := y.data[open]
	for i := open + 1; i < len(y.data); i++ {
		switch {
		case y.data[i] == '\\' && quote == '"':
			i++
		case y.data[i] == quote && quote == '\'' && i+1 < len(y.data) && y.data[i+1] == quote:
			i++
		case y.data[i] == quote:
			return from, i + 1, nil
		}
	}
	return 0, 0, errByHand
}

// plainEnd is where a value without quotes ends.
func (y *yamlText) plainEnd(pair spot, from int) int {
	end := len(y.data)
	if pair.flow {
		if i := bytes.IndexAny(y.data[from:], ",]}"); i >= 0 {
			end = from + i
		}
	} else {
		end = max(y.extent(pair, false, false), y.lineEnd(from))
	}
	for i := from; i < end; i++ {
		if y.data[i] == '#' && i > from && unicode.IsSpace(rune(y.data[i-1])) {
			end = i
		}
	}
	return from + len(bytes.TrimRight(y.data[from:end], " \t\r\n"))
}

// extent is the end of the last line that belongs to pair by its indentation.
func (y *yamlText) extent(pair spot, sequence, literal bool) int {
	indent, line := -1, pair.value.GetToken().Position.Line
	if pair.key != nil {
		indent, line = pair.key.GetToken().Position.Column-1, pair.key.GetToken().Position.Line
	}
	end := y.lineEnd(y.lines[line-1])
	for _, start := range y.lines[line:] {
		text := string(y.data[start:y.lineEnd(start)])
		content := strings.TrimLeft(text, " ")
		deep := len(text) - len(content)
		comment := strings.HasPrefix(content, "#") && !(literal && deep > indent)
		item := sequence && deep == indent && (content == "-" || strings.HasPrefix(content, "- "))
		switch {
		case strings.TrimSpace(content) == "" || comment:
		case deep > indent || item:
			end = start + len(text)
		default:
			return end
		}
	}
	return end
}

// lineEnd is where the line that at stands in ends, before its line break.
func (y *yamlText) lineEnd(at int) int {
	if i := bytes.IndexByte(y.data[at:], '\n'); i >= 0 {
		return at + len(bytes.TrimSuffix(y.data[at:at+i], []byte("\r")))
	}
	return len(y.data)
}

// offset turns a line and a column in characters into a place in data.
func (y *yamlText) offset(p *token.Position) int {
	if p.Line > len(y.lines) {
		return len(y.data)
	}
	at := y.lines[p.Line-1]
	for range p.Column - 1 {
		_, size := utf8.DecodeRune(y.data[at:])
		at += size
	}
	return at
}
