package main

import (
	"encoding/json"
	"math"
	"slices"
)

// unit is what a number counts.
type unit string

const (
	milliseconds unit = "ms"
	megabytes    unit = "MB" // 1e6 bytes
	times        unit = "×"
)

// Report is everything that one run found out.
type Report struct {
	Machine Machine  `json:"machine"`
	Image   string   `json:"image"`
	Results []Result `json:"results"`
}

// Result is what one job measured.
type Result struct {
	Job    string   `json:"job"`
	Title  string   `json:"title"`
	How    string   `json:"how"`
	Base   string   `json:"base"` // the series that ratios are given to; "" for none
	Series []Series `json:"series"`
	Claims []Claim  `json:"claims"`
	Notes  []string `json:"notes"`
}

// Series is what one contestant took, in the order of the rounds.
type Series struct {
	Name    string    `json:"name"`
	Unit    unit      `json:"unit"`
	Samples []float64 `json:"samples"`
}

// Claim is one promise and what became of it. Smaller is better throughout.
type Claim struct {
	What     string  `json:"what"`
	Unit     unit    `json:"unit"`
	Floor    float64 `json:"floor"` // must not be exceeded; 0 is none
	Goal     float64 `json:"goal"`  // should not be exceeded; 0 is none
	Measured float64 `json:"measured"`
}

// Verdict says which limits were met, without rounding in anyone's favour.
func (c Claim) Verdict() string {
	switch {
	case math.IsNaN(c.Measured):
		return "not measured"
	case c.Floor == 0 && c.Goal == 0:
		return "recorded"
	case c.Floor > 0 && c.Measured > c.Floor:
		return "floor missed"
	case c.Goal == 0:
		return "floor met"
	case c.Measured <= c.Goal:
		return "goal met"
	case c.Floor > 0:
		return "floor met, goal missed"
	default:
		return "goal missed"
	}
}

// MarshalJSON adds the verdict, and says null for what was not measured.
func (c Claim) MarshalJSON() ([]byte, error) {
	type plain Claim
	out := struct {
		plain
		Measured *float64 `json:"measured"`
		Verdict  string   `json:"verdict"`
	}{plain(c), &c.Measured, c.Verdict()}
	if math.IsNaN(c.Measured) {
		out.Measured = nil
	}
	return json.Marshal(out)
}

func (r *Result) add(name string, u unit, value float64) {
	i := slices.IndexFunc(r.Series, func(s Series) bool { return s.Name == name })
	if i < 0 {
		r.Series = append(r.Series, Series{Name: name, Unit: u})
		i = len(r.Series) - 1
	}
	r.Series[i].Samples = append(r.Series[i].Samples, value)
}

func (r *Result) claim(c Claim) { r.Claims = append(r.Claims, c) }

// compareWith names the series that the others' ratios are given to.
func (r *Result) compareWith(base string) { r.Base = base }

// samples returns nothing for a series that was not measured.
func (r *Result) samples(name string) []float64 {
	for _, s := range r.Series {
		if s.Name == name {
			return s.Samples
		}
	}
	return nil
}
