package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// counts are of tests without subtests: a table of ten cases counts ten.
type counts struct {
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
}

func (c *counts) add(o counts) {
	c.Passed += o.Passed
	c.Failed += o.Failed
	c.Skipped += o.Skipped
}

// String is the closing line; skips are named only if there were any.
func (c counts) String() string {
	s := fmt.Sprintf("%d passed, %d failed", c.Passed, c.Failed)
	if c.Skipped > 0 {
		s += fmt.Sprintf(", %d skipped", c.Skipped)
	}
	return s
}

// event is one line of go test -json (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64 // seconds
}

// report turns the event stream into lines for people.
type report struct {
	w        io.Writer
	each     bool
	counts   counts
	packages map[string]*packageRun
}

// packageRun is what is known of one package while it runs.
type packageRun struct {
	counts counts
	output map[string]*strings.Builder // by test; "" is the package's own
	split  map[string]bool             // tests that have subtests
	failed map[string]bool             // tests that failed or whose subtests did
}

func newReport(w io.Writer, each bool) *report {
	return &report{w: w, each: each, packages: map[string]*packageRun{}}
}

// read consumes the stream to its end. Lines that are not JSON (a linker's
// warning, say) are passed on.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20) // one line of test output can be long
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(r.w, lines.Text())
			continue
		}
		r.handle(e)
	}
	return lines.Err()
}

func (r *report) handle(e event) {
	p := r.of(e.Package)
	switch e.Action {
	case "run":
		p.start(e.Test)
	case "output":
		p.out(e.Test).WriteString(e.Output)
	case "build-output":
		fmt.Fprint(r.w, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, p)
			return
		}
		r.endTest(e, p)
	}
}

func (r *report) of(name string) *packageRun {
	p := r.packages[name]
	if p == nil {
		p = &packageRun{output: map[string]*strings.Builder{}, split: map[string]bool{}, failed: map[string]bool{}}
		r.packages[name] = p
	}
	return p
}

func (p *packageRun) start(test string) {
	if i := strings.LastIndexByte(test, '/'); i > 0 {
		p.split[test[:i]] = true
	}
}

func (p *packageRun) out(test string) *strings.Builder {
	b := p.output[test]
	if b == nil {
		b = &strings.Builder{}
		p.output[test] = b
	}
	return b
}

func (r *report) endTest(e event, p *packageRun) {
	switch e.Action {
	case "pass":
		if !p.split[e.Test] {
			p.counts.Passed++
		}
	case "skip":
		p.counts.Skipped++
		fmt.Fprintf(r.w, "skip %s %s: %s\n", short(e.Package), e.Test, reason(p.out(e.Test).String()))
	case "fail":
		p.fail(e.Test)
		fmt.Fprintf(r.w, "FAIL %s %s\n%s", short(e.Package), e.Test, indent(p.out(e.Test).String()))
	}
	if r.each && e.Action == "pass" && !p.split[e.Test] {
		fmt.Fprintf(r.w, "  ok %-60s %6.1fs\n", e.Test, e.Elapsed)
	}
	delete(p.output, e.Test)
}

// fail counts a test once: not again as the parent of a case that failed.
func (p *packageRun) fail(test string) {
	if !p.failed[test] {
		p.counts.Failed++
	}
	for i := strings.LastIndexByte(test, '/'); i > 0; i = strings.LastIndexByte(test, '/') {
		test = test[:i]
		p.failed[test] = true
	}
}

func (r *report) endPackage(e event, p *packageRun) {
	if e.Action == "fail" && p.counts.Failed == 0 { // it did not build, or died
		p.counts.Failed++
	}
	r.counts.add(p.counts)
	delete(r.packages, e.Package)
	switch {
	case e.Action == "fail":
		fmt.Fprintf(r.w, "FAIL %s (%s)\n%s%s", short(e.Package), p.counts, indent(p.out("").String()), p.unfinished())
	case p.counts != counts{}:
		fmt.Fprintf(r.w, "ok   %-36s %6.1fs  %s\n", short(e.Package), e.Elapsed, p.counts)
	}
}

// unfinished is the output of tests that never ended: after a panic or a
// timeout the reason stands there.
func (p *packageRun) unfinished() string {
	var b strings.Builder
	for test, out := range p.output {
		if test != "" {
			fmt.Fprintf(&b, "  unfinished: %s\n%s", test, indent(out.String()))
		}
	}
	return b.String()
}

// finish accounts for packages whose end was never reported.
func (r *report) finish() {
	for name, p := range r.packages {
		if name != "" && len(p.output) > 0 {
			r.endPackage(event{Action: "fail", Package: name}, p)
		}
	}
	fmt.Fprintln(r.w, r.counts)
}

func short(pkg string) string {
	return strings.TrimPrefix(strings.TrimPrefix(pkg, "github.com/hermesgw/hermes"), "/")
}

// reason is the text given to t.Skip: the last line before the verdict.
func reason(output string) string {
	why := "no reason given"
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			why = line
		}
	}
	return why
}

// indent leaves out the lines by which go test marks its own progress.
func indent(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if !strings.HasPrefix(line, "=== ") {
			b.WriteString("    " + strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	return b.String()
}
