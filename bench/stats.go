package main

import (
	"math"
	"slices"
)

// median is the middle of values, the mean of the two middle ones if their
// number is even, and NaN if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// ratio is the median of a[i]/b[i]: measured side by side, what slows the
// machine down for a while slows both of a pair. Values without a partner and
// pairs over zero are left out.
func ratio(a, b []float64) float64 {
	return median(pairwise(a, b, func(x, y float64) float64 { return x / y }))
}

// difference is the median of a[i]-b[i].
func difference(a, b []float64) float64 {
	return median(pairwise(a, b, func(x, y float64) float64 { return x - y }))
}

func pairwise(a, b []float64, of func(x, y float64) float64) []float64 {
	var values []float64
	for i := range min(len(a), len(b)) {
		if v := of(a[i], b[i]); !math.IsInf(v, 0) && !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	return values
}
