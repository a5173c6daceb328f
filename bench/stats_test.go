package main

import (
	"encoding/json"
	"math"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 100}, 3.5},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing = %v, want NaN", got)
	}
}

func TestMedianLeavesItsInputInOrder(t *testing.T) {
	values := []float64{3, 1, 2}
	median(values)
	if values[0] != 3 {
		t.Errorf("the values were reordered: %v; pairs would no longer match", values)
	}
}

// A machine that turns slow half-way must not change a ratio.
func TestRatioComparesPairs(t *testing.T) {
	a := []float64{2, 2, 2, 20, 20}
	b := []float64{1, 1, 1, 10, 10}
	if got := ratio(a, b); got != 2 {
		t.Errorf("ratio = %v, want 2", got)
	}
	if got := ratio([]float64{1, 4, 9}, []float64{0, 2}); got != 2 {
		t.Errorf("ratio with a zero and a missing partner = %v, want 2", got)
	}
	if got := difference([]float64{5, 50, 7}, []float64{1, 46, 4}); got != 4 {
		t.Errorf("difference = %v, want 4", got)
	}
}

func TestVerdictIsHonest(t *testing.T) {
	for _, c := range []struct {
		measured, floor, goal float64
		want                  string
	}{
		{0.15, 0.4, 0.2, "goal met"},
		{0.2, 0.4, 0.2, "goal met"},
		{0.3, 0.4, 0.2, "floor met, goal missed"},
		{0.5, 0.4, 0.2, "floor missed"},
		{1.2, 0, 1.1, "goal missed"},
		{170, 0, 0, "recorded"},
		{math.NaN(), 0.4, 0.2, "not measured"},
	} {
		claim := Claim{Measured: c.measured, Floor: c.floor, Goal: c.goal}
		if got := claim.Verdict(); got != c.want {
			t.Errorf("verdict of %v (floor %v, goal %v) = %q, want %q", c.measured, c.floor, c.goal, got, c.want)
		}
	}
}

func TestWhatWasNotMeasuredIsNullInJSON(t *testing.T) {
	for measured, want := range map[float64]string{
		math.NaN(): `{"what":"w","unit":"ms","floor":2,"goal":1,"measured":null,"verdict":"not measured"}`,
		1.5:        `{"what":"w","unit":"ms","floor":2,"goal":1,"measured":1.5,"verdict":"floor met, goal missed"}`,
	} {
		got, err := json.Marshal(Claim{What: "w", Unit: milliseconds, Floor: 2, Goal: 1, Measured: measured})
		if err != nil || string(got) != want {
			t.Errorf("%v: got %s, %v, want %s", measured, got, err, want)
		}
	}
}

func TestReplaceBlockKeepsTheProse(t *testing.T) {
	page := "# Title\n\nbefore\n\n" + blockBegin + "\nold\n" + blockEnd + "\n\nafter\n"
	got, err := replaceBlock(page, "new\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := "# Title\n\nbefore\n\n" + blockBegin + "\nnew\n" + blockEnd + "\n\nafter\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := replaceBlock("no marks", "new"); err == nil {
		t.Error("a page without marks was accepted")
	}
}

func TestReadyStamps(t *testing.T) {
	logs := "2026-01-01T00:00:02.5Z [b] level=INFO msg=\"gateway ready\" profile=b\n" +
		"2026-01-01T00:00:01.5Z [a] level=INFO msg=\"gateway ready\" profile=a\n" +
		"2026-01-01T00:00:03Z [a] level=INFO msg=other\n" + "not a stamp gateway ready\n"
	stamps := readyStamps(logs)
	if len(stamps) != 2 || stamps[0].Second() != 1 || stamps[1].Second() != 2 {
		t.Errorf("%v", stamps)
	}
}
