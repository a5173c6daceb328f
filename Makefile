# make run and make test are all a newcomer needs; make help lists the rest.

IMAGE   ?= hermes:dev
ARCH    ?= $(shell go env GOARCH)
VERSION ?= $(shell git describe --tags --always 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null)
DIRTY   := $(shell test -z "$$(git status --porcelain 2>/dev/null)" || echo true)

INFO    := github.com/hermesgw/hermes/internal/buildinfo
LDFLAGS := -s -w -X $(INFO).version=$(VERSION) -X $(INFO).commit=$(COMMIT) -X $(INFO).dirty=$(DIRTY)
# What lint type-checks is what build compiled: the same settings, once.
STATIC  := CGO_ENABLED=0 GOFLAGS='$(shell go env GOFLAGS) -trimpath'
BUILD   := $(STATIC) go build -ldflags '$(LDFLAGS)'
# The systems beside Linux that hermes compiles for.
ELSEWHERE := darwin/amd64 darwin/arm64 freebsd/amd64 windows/amd64
TESTRUN := go run ./scripts/testrun -totals .run/totals

# Whole-tree tests but for those that need the image or build mutants.
UNIT = $(shell go list ./... | grep -v -e '/e2e$$' -e '/e2e/chaos$$' -e '/mutation$$')

.DEFAULT_GOAL := help
.PHONY: help build build-linux build-arm64 build-elsewhere image run stop test lint unit mutation e2e chaos bench docs vuln deps clean totals
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' Makefile

build: ## bin/hermes for this machine (static)
	@$(BUILD) -o bin/hermes ./cmd/hermes

build-linux:
	@GOOS=linux GOARCH=$(ARCH) $(BUILD) -o bin/linux-$(ARCH)/hermes ./cmd/hermes

build-arm64: ## bin/linux-arm64/hermes
	@GOOS=linux GOARCH=arm64 $(BUILD) -o bin/linux-arm64/hermes ./cmd/hermes

# Each of these takes nearly three minutes of CPU when nothing is cached, most of it for SQLite. So
# make test does not: lint checks the types of all of it for each system in seconds (scripts/elsewhere).
build-elsewhere: ## build for macOS, FreeBSD and Windows, to nowhere
	@for system in $(ELSEWHERE); do \
		echo "$$system"; GOOS=$${system%/*} GOARCH=$${system#*/} $(BUILD) -o /dev/null ./cmd/hermes || exit 1; done

image: build-linux ## the image hermes:dev
	@scripts/image.sh $(IMAGE) $(ARCH) $(VERSION) $(COMMIT)

run: build image ## start Hermes in Docker and say hello to it
	@scripts/run.sh $(IMAGE)

stop: ## stop what make run started; its data stays in the volume hermes-data
	@docker stop hermes >/dev/null && docker rm hermes >/dev/null && echo "stopped; the data is still in the volume hermes-data"

test: deps totals lint build build-arm64 unit image mutation e2e ## every test
	@go run ./scripts/testrun -totals .run/totals -sum

# The counts of the test runs of one make test add up in this file.
totals:
	@rm -f .run/totals

deps: ## install what the tests need and this machine lacks
	@scripts/deps.sh cc s6 chromium shellcheck docker-compose podman ngircd promtool systemd-analyze

lint: ## gofumpt, go vet, staticcheck, shellcheck, types for other systems
	@$(STATIC) scripts/lint.sh $(ELSEWHERE)

unit: ## unit tests, with the race detector
	@$(TESTRUN) -- -race $(UNIT)

mutation: ## remove each load-bearing guard: its named test must fail
	@$(TESTRUN) -each -- -count=1 ./mutation

e2e: ## black-box tests of the image on a real Docker engine
	@HERMES_TEST_IMAGE=$(IMAGE) $(TESTRUN) -each -- -count=1 -timeout 20m -p 1 ./e2e ./e2e/chaos

chaos: image ## a thousand faults, a quarter of an hour (CHAOS='-seed 7 -faults 50'); the result goes into the docs
	@HERMES_TEST_IMAGE=$(IMAGE) go test -count=1 -v -timeout 2h -parallel 7 -run TestChaos ./e2e/chaos \
		-worlds 7 -faults 1000 -report $(CURDIR)/docs/explanation/chaos.txt $(CHAOS)

bench: image build-arm64 ## Hermes beside its peers: medians and ratios (BENCH='-runs 5 -only stop')
	@scripts/deps.sh strace
	@go run ./bench -image $(IMAGE) $(BENCH)

docs: ## write the generated pages of docs/reference anew
	@go test ./internal/cli -run TestReference -update

vuln: ## known vulnerabilities of what we depend on (needs the network)
	@go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

clean: ## remove what was built
	@rm -rf bin .run/totals
