package config

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
)

// schemaDialect is the version of JSON schema that Schema is written in.
const schemaDialect = "https://json-schema.org/draft/2020-12/schema"

// Patterns of what a text stands for, in the common part of the regular
// expressions of Go and of JSON schema (ECMA-262).
const (
	durationPattern = `^([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+$|^0$`
	sizePattern     = `^[0-9]+ ?(KiB|MiB|GiB)?$`
	urlPattern      = `^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@]+([/?#]|$)`
)

// schema is a node of a JSON schema; maps print in the order of their keys.
type schema map[string]any

// Schema returns the JSON schema of config.yaml. Keys that it does not know are
// wrong in it, so that an editor shows a typo; a gateway warns of them.
func Schema() []byte {
	root := section("Settings of one profile of Hermes: config.yaml in its home.")
	root["$schema"] = schemaDialect
	root["title"] = "config.yaml of Hermes"
	for _, s := range Settings() {
		if s.Key != "" {
			root.add(strings.Split(s.Key, "."), s.schema())
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(root) // maps of strings and numbers always encode
	return b.Bytes()
}

// section allows null: `irc:` with nothing below it is no setting.
func section(description string) schema {
	s := schema{"type": []string{"object", "null"}, "properties": schema{}, "additionalProperties": false}
	if description != "" {
		s["description"] = description
	}
	return s
}

func (s schema) add(path []string, leaf schema) {
	properties := s["properties"].(schema)
	if len(path) == 1 {
		properties[path[0]] = leaf
		return
	}
	below, ok := properties[path[0]].(schema)
	if !ok {
		below = section("")
		properties[path[0]] = below
	}
	below.add(path[1:], leaf)
}

// schema describes the values of s.
func (s Setting) schema() schema {
	n := s.shape()
	n["description"] = s.Doc
	if s.Secret {
		n["writeOnly"] = true
	}
	if s.Default != "" {
		n["default"] = s.natural(s.Default)
	}
	return n
}

func (s Setting) shape() schema {
	switch s.Kind {
	case Int:
		return s.within(schema{"type": "integer", "maximum": math.MaxInt32})
	case Port:
		return schema{"type": "integer", "minimum": 0, "maximum": maxPort}
	case Bool:
		return schema{"type": "boolean"}
	case Duration:
		return schema{"type": "string", "pattern": durationPattern}
	case Size:
		return schema{"anyOf": []schema{s.within(schema{"type": "integer"}), {"type": "string", "pattern": sizePattern}}}
	case Enum:
		return schema{"type": "string", "enum": s.Values}
	case URL:
		return schema{"type": "string", "pattern": urlPattern}
	case List:
		return schema{"anyOf": []schema{{"type": "array", "items": s.text()}, {"type": "string"}}}
	case Text:
	}
	return s.text()
}

func (s Setting) text() schema {
	if s.Pattern == "" {
		return schema{"type": "string"}
	}
	return schema{"type": "string", "pattern": "^(?:" + s.Pattern + ")$"}
}

func (s Setting) within(n schema) schema {
	n["minimum"] = s.Min
	if s.Max > 0 {
		n["maximum"] = s.Max
	}
	return n
}

// natural is a value as JSON writes it.
func (s Setting) natural(text string) any {
	switch s.Kind {
	case Int, Port:
		n, _ := strconv.ParseInt(text, 10, 64) // a default of the table
		return n
	case Bool:
		return Truthy(text)
	case Text, Duration, Size, Enum, URL, List:
	}
	return text
}
