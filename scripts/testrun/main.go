// Testrun runs go test and says what a reader wants to know: a line per
// package, every failure in full, every skip with its reason, and the counts.
// It fails when nothing ran, and, where HERMES_TEST_REQUIRE is "all", when
// anything was skipped: a test that could not run must be visible.
//
// It chooses no packages and sets no limits; go test's own arguments do:
//
//	go run ./scripts/testrun -totals .run/totals -- -race ./...
//	go run ./scripts/testrun -totals .run/totals -sum   # 120 passed, 0 failed
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	totals := flag.String("totals", "", "file that the counts are added to")
	sum := flag.Bool("sum", false, "only print what -totals adds up to")
	each := flag.Bool("each", false, "a line for each test too, as it ends")
	flag.Parse()

	var err error
	if *sum {
		err = printSum(os.Stdout, *totals)
	} else {
		err = run(os.Stdout, *totals, *each, flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		os.Exit(1)
	}
}

// run executes go test with args, reports to w and appends the counts to totals.
func run(w io.Writer, totals string, each bool, args []string) error {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r := newReport(w, each)
	readErr := r.read(out)
	waitErr := cmd.Wait()
	r.finish()
	if err := appendCounts(totals, r.counts); err != nil {
		return err
	}
	return errors.Join(readErr, verdict(r.counts, waitErr, os.Getenv("HERMES_TEST_REQUIRE") == "all"))
}

// verdict says why a run with these counts is not a good one; nil if it is.
func verdict(c counts, goTest error, noSkips bool) error {
	switch {
	case c.Failed > 0:
		return fmt.Errorf("%d failed", c.Failed)
	case goTest != nil:
		return fmt.Errorf("go test: %w", goTest)
	case c.Passed == 0:
		return errors.New("no test ran")
	case noSkips && c.Skipped > 0:
		return fmt.Errorf("%d skipped, and HERMES_TEST_REQUIRE demands that none is", c.Skipped)
	}
	return nil
}

// appendCounts adds one JSON line to the totals file; "" means none is kept.
func appendCounts(path string, c counts) error {
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewEncoder(f).Encode(c)
}

// printSum prints the closing line of a whole test run.
func printSum(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var sum counts
	for dec := json.NewDecoder(f); ; {
		var c counts
		if err := dec.Decode(&c); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("cannot read %q: %w", path, err)
		}
		sum.add(c)
	}
	fmt.Fprintln(w, sum)
	return nil
}
