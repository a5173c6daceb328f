// Package dbosproof holds the proof on DBOS Transact as the durable engine: small
// programs, kept as tests, that answer one question each, and the same way of a
// message built without it, so that one program measures both. It has no code of
// its own and nothing imports it; docs/decisions/0015-durable-engine.md has the
// figures and what follows from them.
//
//	go test ./internal/durable/dbosproof
//
// The long form, which the record is made with:
//
//	HERMES_PROOF_RUNS=500 go test -v -timeout 60m -run Kill ./internal/durable/dbosproof
//	HERMES_PROOF_SCALE=40 HERMES_PROOF_STRACE=1 go test -v -timeout 60m -run Measure ./internal/durable/dbosproof
package dbosproof
