// Package mutation proves that the tests guard what they say they guard: it
// takes each load-bearing line away in turn and requires the test named for it
// to fail, with the words that name the loss. A guard whose test still passes
// without it is not guarded.
//
// The tree is never touched: the mutant is compiled through go's -overlay.
//
//	make mutation
//
// A new guard is one row in table_test.go. This is no general mutation engine:
// it removes what people know to be load-bearing, not every operator in turn.
package mutation
