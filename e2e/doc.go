// Package e2e looks at the image as its users do: it drives the docker command
// and reads what a container prints, answers and leaves behind. It imports
// nothing of the product but testenv, so it keeps passing when the product is
// rewritten, and fails when a promise is broken.
//
// Each test starts containers of its own, with a label, and removes them also
// when it fails; then it prints their logs first. Nothing sleeps to prove a
// point: until polls a condition up to a deadline.
//
//	make e2e                                     # builds nothing: make image does
//	HERMES_TEST_IMAGE=hermes:dev go test -run TestRedirect ./e2e
package e2e
