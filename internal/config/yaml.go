package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/hermesgw/hermes/internal/typo"
)

// readYAML reads config.yaml into raw values by key; a missing file is empty.
// Keys that nobody reads become warnings, not errors: a file written for
// another version still loads. What is wrong is named as a whole, beside the
// values that are not; in an inherited home values in another shape than ours
// are warnings too.
func readYAML(o Options, inherited bool) *walker {
	path := filepath.Join(o.Home, yamlName)
	data, err := o.readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &walker{}
	}
	if err != nil {
		return &walker{errors: []error{fmt.Errorf("cannot read settings: %w", err)}}
	}
	return parseYAML(path, data, inherited)
}

func parseYAML(path string, data []byte, inherited bool) *walker {
	file, err := parse(bytes.TrimPrefix(data, []byte("\ufeff")))
	if err != nil {
		return &walker{errors: []error{syntaxError(path, err)}}
	}
	w := &walker{inherited: inherited, path: path, entries: map[string]entry{}, anchors: map[string]ast.Node{}, sections: map[string]bool{}, keys: map[string]Kind{}}
	for _, s := range Settings() {
		w.expect(s.Key, s.Kind)
	}
	if inherited {
		for key := range predecessorKeys() {
			w.expect(key, Text)
		}
	}
	body, err := w.body(file)
	if err != nil {
		w.errors = append(w.errors, err)
	} else if body != nil {
		ast.Walk(w, body)
		w.mapping("", body)
	}
	return w
}

// errParserBug stands for a panic of the YAML parser, which some broken files
// provoke; whoever wrote the file needs a line, not a stack trace.
var errParserBug = errors.New("the parser cannot make sense of it; simplify the file until it loads")

// parse hides Windows' line ends from the parser, which counts a line twice
// whose comment ends in one.
func parse(data []byte) (file *ast.File, err error) {
	defer func() {
		if recover() != nil {
			err = errParserBug
		}
	}()
	return parser.ParseBytes(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), 0)
}

// syntaxError puts a parser error into FILE:LINE:COL: message, on one line.
func syntaxError(path string, err error) error {
	var y yaml.Error
	if !errors.As(err, &y) || y.GetToken() == nil || y.GetToken().Position == nil {
		return fmt.Errorf("%s:1:1: expected valid YAML: %s", path, firstLine(err.Error()))
	}
	p := y.GetToken().Position
	return fmt.Errorf("%s:%d:%d: expected valid YAML: %s", path, p.Line, p.Column, firstLine(y.GetMessage()))
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// walker collects the settings of one YAML file.
type walker struct {
	path     string
	keys     map[string]Kind // api_server.port
	sections map[string]bool // api_server
	anchors  map[string]ast.Node
	entries  map[string]entry
	warnings []string
	errors   []error

	inherited bool
	unknown   []string // keys that nobody reads, of an inherited file
}

func (w *walker) expect(key string, kind Kind) {
	if key == "" {
		return
	}
	w.keys[key] = kind
	if dot := strings.LastIndexByte(key, '.'); dot > 0 {
		w.sections[key[:dot]] = true
	}
}

// Visit notes every anchor, so that an alias can be followed.
func (w *walker) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok {
		w.anchors[a.Name.GetToken().Value] = a.Value
	}
	return w
}

// body returns the content of the only document, or nil when it is empty.
func (w *walker) body(file *ast.File) (ast.Node, error) {
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			return nil, w.errorAt(doc.Body, "expected one YAML document, found a second")
		}
		body = doc.Body
	}
	return body, nil
}

// mapping reads the keys below prefix ("" at the top).
func (w *walker) mapping(prefix string, n ast.Node) {
	n = w.follow(n)
	if n.Type() == ast.NullType {
		return
	}
	m, ok := n.(ast.MapNode)
	if !ok {
		w.fail(prefix, n, "%sexpected a mapping of settings (name: value), found %s", label(prefix), describe(n))
		return
	}
	for iter := m.MapRange(); iter.Next(); {
		w.pair(prefix, iter.Key(), iter.Value())
	}
}

func (w *walker) pair(prefix string, k ast.MapKeyNode, v ast.Node) {
	key := k.GetToken().Value
	if prefix != "" {
		key = prefix + "." + key
	}
	switch {
	case w.sections[key]:
		w.mapping(key, v)
	case w.keys[key] != "":
		w.setting(key, v)
	case w.inherited:
		w.unknown = append(w.unknown, key)
	default:
		w.warnings = append(w.warnings, w.errorAt(k, "unknown setting %q is ignored%s", key, w.meant(key)).Error())
	}
}

// meant is a hint at the setting, or section, that key looks like.
func (w *walker) meant(key string) string {
	known := slices.AppendSeq(slices.Collect(maps.Keys(w.keys)), maps.Keys(w.sections))
	slices.Sort(known) // the same hint every time
	if near := typo.Nearest(key, known); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// setting notes the value of one setting.
func (w *walker) setting(key string, n ast.Node) {
	n = w.follow(n)
	seq, isList := n.(*ast.SequenceNode)
	switch {
	case n.Type() == ast.NullType: // `port:` with nothing behind it is not set
	case w.keys[key] == List && isList:
		w.list(key, seq)
	default:
		if e, ok := w.scalar(key, n); ok {
			w.entries[key] = e
		}
	}
}

func (w *walker) list(key string, seq *ast.SequenceNode) {
	list := entryAt("", seq)
	texts := []string{}
	for _, n := range seq.Values {
		n = w.follow(n)
		e := entryAt("", n)
		if n.Type() != ast.NullType {
			var ok bool
			if e, ok = w.scalar(key, n); !ok {
				return
			}
		}
		texts, list.items = append(texts, e.text), append(list.items, e)
	}
	list.text = strings.Join(texts, ",")
	w.entries[key] = list
}

// scalar returns the text of one value as it stands in the file, so that a key
// of digits keeps its zeros.
func (w *walker) scalar(key string, n ast.Node) (entry, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return entryAt(v.Value, n), true
	case *ast.LiteralNode:
		return entryAt(strings.TrimSuffix(v.Value.Value, "\n"), n), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return entryAt(n.GetToken().Value, n), true
	}
	w.fail(key, n, "%sexpected a single value, found %s", label(key), describe(n))
	return entry{}, false
}

func entryAt(text string, n ast.Node) entry {
	p := n.GetToken().Position
	return entry{text: text, line: p.Line, col: p.Column}
}

// fail notes what is wrong with the value of key; "" is the whole file.
func (w *walker) fail(key string, n ast.Node, format string, args ...any) {
	err := w.errorAt(n, format, args...)
	if w.forgives(key) {
		w.warnings = append(w.warnings, err.Error()+"; it is ignored")
		return
	}
	w.errors = append(w.errors, err)
}

// maxAliases ends a chain of aliases that leads back to itself.
const maxAliases = 100

// follow leads through anchors, tags and aliases to the node itself.
func (w *walker) follow(n ast.Node) ast.Node {
	for range maxAliases {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.TagNode:
			n = v.Value
		case *ast.AliasNode:
			target, ok := w.anchors[v.Value.GetToken().Value]
			if !ok {
				return n
			}
			n = target
		default:
			return n
		}
	}
	return n
}

func (w *walker) errorAt(n ast.Node, format string, args ...any) error {
	p := n.GetToken().Position
	return fmt.Errorf("%s:%d:%d: %s", w.path, p.Line, p.Column, fmt.Sprintf(format, args...))
}

// label is "key: ", or nothing at the top of the file.
func label(key string) string {
	if key == "" {
		return ""
	}
	return key + ": "
}

// describe names the kind of n for people; never its content, which may be a
// secret in the wrong place.
func describe(n ast.Node) string {
	switch n.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "a mapping"
	case ast.SequenceType:
		return "a list"
	case ast.AliasType:
		return "an alias without its anchor"
	}
	return "a single value"
}
