// Package doctest keeps the Markdown of this repository whole: a link leads to
// a file that is there and a heading that is in it, and every page can be
// reached from the index. It does not judge what pages say; the tests beside
// the code they speak of do. It has no code of its own:
//
//	go test ./internal/doctest
package doctest
