package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// formats are the ways to print a report.
func formats() map[string]func(Report, io.Writer) error {
	return map[string]func(Report, io.Writer) error{
		"text": Report.text,
		"json": func(r Report, w io.Writer) error {
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "  ")
			return encoder.Encode(r)
		},
		"markdown": func(r Report, w io.Writer) error {
			_, err := io.WriteString(w, r.markdown())
			return err
		},
	}
}

func (m Machine) String() string {
	return fmt.Sprintf("%s, Hermes %s on %d × %s, %.0f GB, %s, Linux %s, Docker %s (%s, cgroup v%s), load %s before and %s after",
		m.Date.Format("2006-01-02"), m.Version, m.Cores, m.CPU, m.Memory/1e9, m.System, m.Kernel, m.Docker, m.Storage, m.Cgroup,
		m.LoadBefore, m.LoadAfter)
}

// claimRows is the table of promises, heading first.
func (r Report) claimRows() [][]string {
	rows := [][]string{{"job", "floor", "goal", "measured", "verdict"}}
	for _, result := range r.Results {
		for _, c := range result.Claims {
			rows = append(rows, []string{
				c.What, limit(c.Floor, c.Unit), limit(c.Goal, c.Unit), amount(c.Measured, c.Unit), c.Verdict(),
			})
		}
	}
	return rows
}

// seriesRows is the table of contestants, heading first.
func (r Result) seriesRows() [][]string {
	rows := [][]string{{"", "median", "min – max", "runs", "ratio"}}
	if r.Base != "" {
		rows[0][4] = "÷ " + r.Base
	}
	for _, s := range r.Series {
		row := []string{
			s.Name, amount(median(s.Samples), s.Unit),
			amount(slices.Min(s.Samples), s.Unit) + " – " + amount(slices.Max(s.Samples), s.Unit),
			fmt.Sprint(len(s.Samples)), "",
		}
		if r.Base != "" {
			row[4] = amount(ratio(s.Samples, r.samples(r.Base)), times)
		}
		rows = append(rows, row)
	}
	return rows
}

func limit(value float64, u unit) string {
	if value == 0 {
		return "—"
	}
	return "≤ " + amount(value, u)
}

// amount prints three digits or the whole part, whichever is more.
func amount(value float64, u unit) string {
	if math.IsNaN(value) {
		return "—"
	}
	decimals := 2
	switch size := math.Abs(value); {
	case size >= 100:
		decimals = 0
	case size >= 10:
		decimals = 1
	}
	return fmt.Sprintf("%.*f %s", decimals, value, u)
}

func (r Report) text(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, result := range r.Results {
		fmt.Fprintf(out, "%s: %s\n", result.Job, result.Title)
		for _, row := range result.seriesRows() {
			fmt.Fprintf(out, "  %s\n", strings.Join(row, "\t"))
		}
		for _, note := range result.Notes {
			fmt.Fprintf(out, "  %s\n", note)
		}
		fmt.Fprintln(out)
	}
	for _, row := range r.claimRows() {
		fmt.Fprintln(out, strings.Join(row, "\t"))
	}
	fmt.Fprintf(out, "\n%s\n", r.Machine)
	return out.Flush()
}

func (r Report) markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s.\n\n", r.Machine)
	writeTable(&out, r.claimRows())
	for _, result := range r.Results {
		fmt.Fprintf(&out, "\n### %s\n\n%s\n\n", result.Title, result.How)
		writeTable(&out, result.seriesRows())
		for _, note := range result.Notes {
			fmt.Fprintf(&out, "\n%s.\n", note)
		}
	}
	return out.String()
}

func writeTable(out *strings.Builder, rows [][]string) {
	for i, row := range rows {
		fmt.Fprintf(out, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(out, "|%s\n", strings.Repeat("---|", len(row)))
		}
	}
}

// The marks between which a page's tables stand.
const (
	blockBegin = "<!-- bench:begin, written by go run ./bench -into; do not edit -->"
	blockEnd   = "<!-- bench:end -->"
)

// into puts the markdown between the marks of the page at path.
func (r Report) into(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("cannot read the page: %w", err)
	}
	text, err := replaceBlock(string(page), r.markdown())
	if err != nil {
		return fmt.Errorf("cannot write %q: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

func replaceBlock(page, block string) (string, error) {
	before, rest, began := strings.Cut(page, blockBegin)
	_, after, ended := strings.Cut(rest, blockEnd)
	if !began || !ended {
		return "", fmt.Errorf("it lacks the lines %q and %q", blockBegin, blockEnd)
	}
	return before + blockBegin + "\n" + block + blockEnd + after, nil
}
