package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hermesgw/hermes/internal/config"
	"github.com/hermesgw/hermes/internal/supervise"
)

// markdown returns the pages for users by their path.
func markdown(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	read := func(path string) error {
		data, err := os.ReadFile(path)
		pages[path] = string(data)
		return err
	}
	err := filepath.WalkDir(docsDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		return read(path)
	})
	if err == nil {
		err = read("../../README.md")
	}
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// commandsIn returns the hermes commands that a page tells people to type: in
// its shell blocks and in its code spans.
func commandsIn(text string) [][]string {
	var list [][]string
	for _, line := range shellLines(text) {
		line, _, _ = strings.Cut(line, "# ")
		line, _, _ = strings.Cut(line, " > ")
		list = append(list, hermesArguments(strings.Fields(strings.TrimPrefix(line, "$ "))))
	}
	for _, span := range regexp.MustCompile("`(hermes [^`\n]+)`").FindAllStringSubmatch(text, -1) {
		list = append(list, hermesArguments(strings.Fields(span[1])))
	}
	return slices.DeleteFunc(list, func(args []string) bool { return len(args) == 0 })
}

// shellLines are the lines of blocks marked sh or not at all, continued lines
// in one piece.
func shellLines(text string) []string {
	var lines []string
	inside, shell := false, false
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		if kind, fence := strings.CutPrefix(strings.TrimSpace(line), "```"); fence {
			inside = !inside
			shell = inside && (kind == "sh" || kind == "")
			continue
		}
		if shell {
			lines = append(lines, line)
		}
	}
	return lines
}

// hermesArguments are the words behind hermes, or behind the image in docker
// run; nil where a line runs something else.
func hermesArguments(words []string) []string {
	if len(words) > 2 && words[0] == "docker" && words[1] == "exec" {
		words = words[slices.IndexFunc(words, func(w string) bool { return w == "hermes" })+1:] // the container
	}
	switch {
	case len(words) > 2 && words[0] == "docker" && words[1] == "run":
		image := slices.Index(words, "hermes:dev")
		if image < 0 {
			return nil // another image
		}
		if args := words[image+1:]; len(args) > 0 && args[0] != "bash" {
			return args
		}
	case len(words) > 0 && words[0] == "hermes":
		return words[1:]
	}
	return nil
}

func TestCommandsInTheDocsExist(t *testing.T) {
	found := 0
	for path, text := range markdown(t) {
		if filepath.Base(path) == "commands.md" {
			continue // the code wrote it
		}
		for _, args := range commandsIn(text) {
			found++
			if err := understands(args); err != nil {
				t.Errorf("%s: hermes %s: %v", path, strings.Join(args, " "), err)
			}
		}
	}
	if found < 30 {
		t.Errorf("found %d commands in the documentation; there were 30 and more", found)
	}
}

// understands says whether hermes has this command, with these flags and as
// many arguments.
func understands(args []string) error {
	cmd, rest, err := newRoot(&options{}).Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if words := cmd.Flags().Args(); cmd.HasSubCommands() && len(words) > 0 {
		return fmt.Errorf("%s has no command %q", cmd.CommandPath(), words[0])
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

func TestVariablesInTheDocsExist(t *testing.T) {
	var known []string
	for _, s := range config.Settings() {
		known = append(known, s.Names()...)
	}
	// Of the tests, and of nobody's configuration.
	known = append(known, "HERMES_TEST_REQUIRE")
	names := regexp.MustCompile(`\b(?:HERMES|API_SERVER|IRC|WEBHOOK)_[A-Z0-9_]*[A-Z0-9]\b`)
	for path, text := range markdown(t) {
		for _, name := range names.FindAllString(text, -1) {
			if !slices.Contains(known, name) {
				t.Errorf("%s: there is no variable %s", path, name)
			}
		}
	}
}

// The page must name exactly the S6_ variables that the code looks at.
func TestS6VariablesAreThoseOfTheCode(t *testing.T) {
	name := regexp.MustCompile(`\bS6_[A-Z0-9_]*[A-Z0-9]\b`)
	inCode := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, n := range name.FindAllString(string(data), -1) {
			inCode[n] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(referenceDir, "s6-variables.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "## Honoured variables\n")
	table, _, ok2 := strings.Cut(table, "\n## ")
	if !ok || !ok2 {
		t.Fatal("s6-variables.md has no section of honoured variables")
	}
	inPage := map[string]bool{}
	for _, n := range name.FindAllString(table, -1) {
		inPage[n] = true
	}
	if len(inCode) == 0 || !reflect.DeepEqual(inCode, inPage) {
		t.Errorf("the code looks at %v, the page honours %v", inCode, inPage)
	}
}

// The example of the page has every key of the report and no other.
func TestStatusExampleIsAReport(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(referenceDir, "status-json.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("status-json.md has no example")
	}
	var report supervise.Report
	dec := json.NewDecoder(bytes.NewReader(block[1]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&report); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var want, got any
	if err := json.Unmarshal(block[1], &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(again, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the example lacks keys, or has others:\n%s\nthe code writes:\n%s", block[1], again)
	}
	for _, key := range jsonKeys(reflect.TypeFor[supervise.Service]()) {
		if !strings.Contains(string(page), "| `"+key+"`") && !strings.Contains(string(page), "`, `"+key+"` |") {
			t.Errorf("status-json.md does not explain the key %q", key)
		}
	}
}

func jsonKeys(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		keys = append(keys, name)
	}
	return keys
}
