package main

import (
	"errors"
	"strings"
	"testing"
)

// A run as go test -json writes it: a table with a failed case, a skip, and a
// package that did not build.
const stream = `
{"Action":"run","Package":"m/a","Test":"TestTable"}
{"Action":"run","Package":"m/a","Test":"TestTable/good"}
{"Action":"run","Package":"m/a","Test":"TestTable/bad"}
{"Action":"output","Package":"m/a","Test":"TestTable/bad","Output":"    a_test.go:7: 1 is not 2\n"}
{"Action":"fail","Package":"m/a","Test":"TestTable/bad"}
{"Action":"pass","Package":"m/a","Test":"TestTable/good"}
{"Action":"fail","Package":"m/a","Test":"TestTable"}
{"Action":"run","Package":"m/a","Test":"TestDocker"}
{"Action":"output","Package":"m/a","Test":"TestDocker","Output":"    a_test.go:9: needs docker: not installed\n"}
{"Action":"output","Package":"m/a","Test":"TestDocker","Output":"--- SKIP: TestDocker (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestDocker"}
{"Action":"fail","Package":"m/a"}
{"Action":"output","Package":"m/b","Output":"FAIL\tm/b [build failed]\n"}
{"Action":"fail","Package":"m/b"}
`

func TestReportCountsCasesOnceAndNamesSkips(t *testing.T) {
	var b strings.Builder
	r := newReport(&b, false)
	if err := r.read(strings.NewReader(strings.TrimSpace(stream))); err != nil {
		t.Fatal(err)
	}
	r.finish()
	if want := (counts{Passed: 1, Failed: 2, Skipped: 1}); r.counts != want {
		t.Errorf("counts = %+v, want %+v", r.counts, want)
	}
	for _, want := range []string{
		"1 is not 2", "TestDocker: a_test.go:9: needs docker: not installed", "[build failed]",
		"\n1 passed, 2 failed, 1 skipped\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("report lacks %q:\n%s", want, b.String())
		}
	}
}

func TestReportOfARunThatDied(t *testing.T) {
	var b strings.Builder
	r := newReport(&b, false)
	_ = r.read(strings.NewReader(`{"Action":"output","Package":"m/a","Test":"TestX","Output":"panic: oh\n"}`))
	r.finish()
	if r.counts.Failed != 1 || !strings.Contains(b.String(), "panic: oh") {
		t.Errorf("counts %+v, report:\n%s", r.counts, b.String())
	}
}

func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		counts  counts
		goTest  error
		noSkips bool
		want    string
	}{
		"good":            {counts: counts{Passed: 1, Skipped: 1}},
		"failed":          {counts: counts{Passed: 1, Failed: 2}, want: "2 failed"},
		"nothing ran":     {want: "no test ran"},
		"go test":         {counts: counts{Passed: 1}, goTest: errors.New("exit status 2"), want: "exit status 2"},
		"skips forbidden": {counts: counts{Passed: 1, Skipped: 1}, noSkips: true, want: "1 skipped"},
	} {
		t.Run(name, func(t *testing.T) {
			err := verdict(c.counts, c.goTest, c.noSkips)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestTotalsAddUp(t *testing.T) {
	path := t.TempDir() + "/totals"
	for _, c := range []counts{{Passed: 3}, {Passed: 4, Failed: 1}} {
		if err := appendCounts(path, c); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	if err := printSum(&b, path); err != nil || b.String() != "7 passed, 1 failed\n" {
		t.Fatalf("%q, %v", b.String(), err)
	}
}
