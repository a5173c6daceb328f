// Package archtest holds the rules of the house that a machine can check: who
// may import whom, that every package explains itself, and that files stay
// readable. It has no code of its own; its tests parse the tree they stand in.
//
// A new package belongs in the table of layers first:
//
//	go test ./internal/archtest
package archtest
