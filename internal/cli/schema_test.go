package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/hermesgw/hermes/internal/config"
)

// schemaOf returns the published schema as a validator would read it.
func schemaOf(t *testing.T) map[string]any {
	t.Helper()
	var schema map[string]any
	if err := json.Unmarshal(config.Schema(), &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

// validate holds value against the part of JSON schema that Schema uses. A word
// of a schema that it does not know is an error: nothing passes unseen.
func validate(schema map[string]any, value any, path string) error {
	for word, rule := range schema {
		if err := hold(word, rule, schema, value, path); err != nil {
			return err
		}
	}
	return nil
}

func hold(word string, rule any, schema map[string]any, value any, path string) error {
	wrong := fmt.Errorf("%s: %v breaks %s: %v", path, value, word, rule)
	number, isNumber := value.(float64)
	text, isText := value.(string)
	switch word {
	case "$schema", "title", "description", "default", "writeOnly", "additionalProperties":
		return nil // read with properties, or for people
	case "type":
		if !slices.ContainsFunc(wordsOf(rule), func(kind string) bool { return isOf(kind, value) }) {
			return wrong
		}
	case "enum":
		if !slices.Contains(rule.([]any), value) {
			return wrong
		}
	case "pattern":
		if isText && !regexp.MustCompile(rule.(string)).MatchString(text) {
			return wrong
		}
	case "minimum":
		if isNumber && number < rule.(float64) {
			return wrong
		}
	case "maximum":
		if isNumber && number > rule.(float64) {
			return wrong
		}
	case "anyOf":
		if !slices.ContainsFunc(rule.([]any), func(s any) bool { return validate(s.(map[string]any), value, path) == nil }) {
			return wrong
		}
	case "items":
		list, _ := value.([]any)
		for i, item := range list {
			if err := validate(rule.(map[string]any), item, fmt.Sprint(path, "[", i, "]")); err != nil {
				return err
			}
		}
	case "properties":
		return holdProperties(rule.(map[string]any), schema["additionalProperties"], value, path)
	default:
		return fmt.Errorf("the schema says %q, which this test does not know", word)
	}
	return nil
}

func holdProperties(rule map[string]any, additional, value any, path string) error {
	object, _ := value.(map[string]any)
	for key, below := range object {
		sub, known := rule[key].(map[string]any)
		if !known {
			if additional != false {
				continue
			}
			return fmt.Errorf("%s has no property %q", path, key)
		}
		if err := validate(sub, below, path+"."+key); err != nil {
			return err
		}
	}
	return nil
}

func wordsOf(rule any) []string {
	if word, ok := rule.(string); ok {
		return []string{word}
	}
	var words []string
	for _, word := range rule.([]any) {
		words = append(words, word.(string))
	}
	return words
}

func isOf(kind string, value any) bool {
	switch v := value.(type) {
	case nil:
		return kind == "null"
	case bool:
		return kind == "boolean"
	case string:
		return kind == "string"
	case float64:
		return kind == "number" || kind == "integer" && v == float64(int64(v))
	case []any:
		return kind == "array"
	case map[string]any:
		return kind == "object"
	}
	return false
}

// asJSON reads YAML as a validator of JSON sees it.
func asJSON(t *testing.T, text string) any {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return value
}

// loads says what the gateway thinks of a config.yaml; a warning counts.
func loads(t *testing.T, text string) error {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Options{Home: dir})
	if err == nil && len(c.Warnings) > 0 {
		err = fmt.Errorf("%s", c.Warnings)
	}
	return err
}

// Every example of config.yaml in the documentation is one, to an editor that
// has the schema and to the gateway.
func TestExamplesOfSettings(t *testing.T) {
	schema, found := schemaOf(t), 0
	sections := schema["properties"].(map[string]any)
	for path, text := range markdown(t) {
		for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(text, -1) {
			if strings.Contains(block[1], "\n---\n") {
				continue // several documents are no config.yaml
			}
			object, ok := asJSON(t, block[1]).(map[string]any)
			if !ok || !slices.ContainsFunc(slices.Collect(maps.Keys(object)), func(key string) bool { return sections[key] != nil }) {
				continue // a file of another program
			}
			found++
			if err := validate(schema, object, path); err != nil {
				t.Error(err)
			}
			if err := loads(t, block[1]); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if found < 1 {
		t.Error("no example of config.yaml was found")
	}
}

// The schema and the gateway agree about one setting by itself.
func TestSchemaAndLoaderAgree(t *testing.T) {
	schema := schemaOf(t)
	for text, right := range map[string]bool{
		"irc: {server: h, channels: ['#a', '&b']}": true, "irc: {channels: [a]}": false, "irc: {channels: [[a]]}": false, "irc: {channels: 5}": false,
		"irc: {nick: 'her[mes]'}": true, "irc: {nick: 'a b'}": false, "irc: {nick: '1a'}": false, "irc: {realname: \"a\\nb\"}": false,
		"irc: {server: 'h:6697'}": true, "irc: {server: 'irc://h'}": false, "irc: {tls: 'no?'}": false,
		"access: {allow: ['irc:account:a']}": true, "access: {allow: 'irc:account:a,irc:account:b'}": true, "access: {allow: [a]}": false,
		"limits: {message_bytes: 65536, answer_bytes: 2MiB}": true, "limits: {message_bytes: 5}": false, "limits: {message_bytes: 1MB}": false,
		"limits: {running: 1}": true, "limits: {running: 0}": false, "limits: {running: many}": false,
		"model: {timeout: 1m30s}": true, "model: {timeout: 1.5h}": true, "model: {timeout: 5}": false, "model: {timeout: -5s}": false, "model: {timeout: soon}": false,
		"model: {base_url: 'http://h:1/v1'}": true, "model: {base_url: h}": false, "model: {base_url: 'http://u:p@h/'}": false,
		"model: {provider: openai}": true, "model: {provider: clever}": false, "model: {fallback: {provider: openai, name: x}}": true,
		"api_server: {port: 0, requests: 7}": true, "api_server: {port: 65536}": false, "api_server: {prot: 1}": false,
		"model:\nirc:\n": true, "model: x": false, "modle: {}": false, "dashboard: {enabled: true}": true, "dashboard: {enabled: treu}": false,
	} {
		schemaSays, loaderSays := validate(schema, asJSON(t, text), "config.yaml"), loads(t, text)
		if (schemaSays == nil) != right || (loaderSays == nil) != right {
			t.Errorf("%q, right: %v\nthe schema says %v\nthe loader says %v", text, right, schemaSays, loaderSays)
		}
	}
}

// Each default is one of the values that the schema takes, in the place where
// the setting stands.
func TestSchemaTakesTheDefaults(t *testing.T) {
	for _, s := range config.Settings() {
		if s.Key == "" {
			continue
		}
		node := schemaOf(t)
		for _, name := range strings.Split(s.Key, ".") {
			node, _ = node["properties"].(map[string]any)[name].(map[string]any)
		}
		if node == nil || node["description"] != s.Doc || s.Secret != (node["writeOnly"] == true) {
			t.Errorf("%s is %v in the schema", s.Key, node)
		} else if value, set := node["default"]; set == (s.Default == "") || set && validate(node, value, s.Key) != nil {
			t.Errorf("%s: the schema does not take its default %v", s.Key, value)
		}
	}
}
