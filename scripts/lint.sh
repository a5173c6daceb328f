#!/bin/sh
# Formatting, go vet, staticcheck and shellcheck over the whole tree, and the types
# of hermes on the systems named (GOOS/GOARCH …). Every finding is printed; any of
# them fails.
set -eu
cd "$(dirname "$0")/.."
bad=0

unformatted=$(git ls-files -co --exclude-standard '*.go' | while read -r f; do [ ! -f "$f" ] || echo "$f"; done | xargs go tool gofumpt -l)
if [ -n "$unformatted" ]; then
	echo "lint: not formatted (go tool gofumpt -w FILE):" >&2
	echo "$unformatted" >&2
	bad=1
fi
go vet ./... || bad=1
go tool staticcheck ./... || bad=1
[ $# = 0 ] || go run ./scripts/elsewhere ./cmd/hermes "$@" || bad=1
shellcheck scripts/*.sh docker/*.sh .ci/run || bad=1
[ $bad = 0 ] && echo "lint: clean"
exit $bad
