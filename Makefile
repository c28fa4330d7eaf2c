# Two commands do all the set-up on a fresh machine: make demo and make test. Both bring up a private Postgres and
# RabbitMQ (installing the Debian packages if they are missing and this is root), and take down what they brought up.
.DEFAULT_GOAL := help
BIN := .writ/bin
TOOL := go tool -modfile=internal/tools/go.mod

.PHONY: help build compiler python spin demo test lint fmt check storm matrix mutants model prove proof tempest theory drills limits kills drains bench bench-long clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the writ command, in .writ/bin
	@mkdir -p $(BIN)
	go build -o $(BIN)/writ ./cmd/writ

demo: build ## the story: comments become mails while things break; ends with a check; ARGS=--no-probe: a person decides
	go build -o $(BIN)/comments ./examples/comments
	$(BIN)/writ dev exec -- $(BIN)/comments demo $(ARGS)

# The race detector needs a C compiler.
compiler:
	@command -v cc >/dev/null || command -v gcc >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing gcc and libc6-dev for the race detector"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null; \
		else \
			echo "the race detector needs a C compiler; run: sudo apt-get install gcc libc6-dev" >&2; exit 1; \
		fi; }

# One example is a program in Python, with the drivers of Postgres and RabbitMQ.
python:
	@for p in python3 /usr/bin/python3; do $$p -c 'import psycopg2, pika' 2>/dev/null && exit 0; done; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing python3-psycopg2 and python3-pika for an example"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-psycopg2 python3-pika >/dev/null; \
		else \
			echo "an example in Python needs its drivers; run: sudo apt-get install python3-psycopg2 python3-pika" >&2; exit 1; \
		fi

# What passed is kept in .writ/tests: docs/origins.md names tests, and each must have passed in this very run.
test: build compiler python ## all tests under the race detector, on real servers
	go build -o $(BIN)/testrun ./internal/testrun/run
	$(BIN)/testrun -record .writ/tests/writ -- $(BIN)/writ dev exec -- go test -json -race -timeout 8m ./...
	$(BIN)/testrun -record .writ/tests/bench -- go -C cmd/bench test -json -race ./...
	$(BIN)/testrun -doc docs/origins.md .writ/tests/writ .writ/tests/bench

lint: ## go vet, staticcheck, formatting, modern forms
	go vet ./... && go vet -tags drill ./internal/drills && go -C cmd/bench vet ./...
	$(TOOL) staticcheck ./...
	cd cmd/bench && go tool -modfile=../../internal/tools/go.mod staticcheck ./...
	@out=$$(go fix -diff ./... 2>&1); [ -z "$$out" ] || { echo "old forms (go fix ./...):"; echo "$$out"; exit 1; }
	$(TOOL) staticcheck -tags drill ./internal/drills
	@out=$$($(TOOL) gofumpt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not formatted (make fmt):"; echo "$$out"; exit 1; }

fmt: ## format all Go files
	$(TOOL) gofumpt -w $$(git ls-files '*.go')

check: ## the whole gate: tests, linters, demo with and without a probe, a minute of storm, a few drains
	$(MAKE) test
	$(MAKE) lint
	$(MAKE) demo
	$(MAKE) demo ARGS=--no-probe
	$(MAKE) storm
	$(MAKE) drains DRAINS=6

drills: build ## faults on private servers of their own: outages, kills, zombies, purges, a million waiting (about 10 minutes)
	go test -tags drill -count=1 -v -timeout 30m ./internal/drills

limits: build ## 100 starts a second over 4 processes for 20 s, and places in the cluster, under SIGKILLs (about 2 minutes)
	go test -tags drill -count=1 -v -timeout 10m -run 'TestRateLimit|TestPlaces' ./internal/drills

# cmd/bench is a module of its own: the peers that it measures beside Writ are no dependency of Writ.
bench: build ## Writ beside its peers on private servers: throughput, latency, cost; ends with the targets (about 20 minutes)
	go -C cmd/bench build -o $(CURDIR)/$(BIN)/bench .
	$(BIN)/bench run

bench-long: build ## the benchmarks with millions of rows, and those with several processes (about 30 minutes)
	go -C cmd/bench build -o $(CURDIR)/$(BIN)/bench .
	$(BIN)/bench run -long

# Proof. What each part shows is in docs/proof.md and docs/model.md.
prove: build spin ## the crash matrix, the mutants, the model, and ten minutes of storm (about 15 minutes)
	$(BIN)/writ dev exec -- $(MAKE) -j2 EXEC= proof

# Each part waits a good deal of its time, so they run two at a time: matrix and mutants on the same servers, and after them the
# storm and the model, which needs none. The storm is the longest and follows the matrix, so that goes first.
proof: tempest theory
tempest: matrix
	$(MAKE) storm DURATION=10m SEED=$(SEED) INTENTS=50000 FAULTS=200
theory:
	nice -n 3 $(MAKE) mutants
	nice $(MAKE) model

# The servers that a part of the proof runs on: its own, but for one that is run on another's.
EXEC ?= $(BIN)/writ dev exec --

# Under the race detector it is part of «make test».
matrix: build ## each step of an intent's life, broken at an exact message
	$(EXEC) go test -count=1 ./internal/proof/matrix

model: spin ## the protocol's models, checked with spin: what must hold, and what must break (about a minute)
	go run ./internal/proof/model/run

# The models are checked by spin, which writes C.
spin: compiler
	@command -v spin >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing spin for the protocol's models"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends spin >/dev/null; \
		else \
			echo "the protocol's models need spin; run: sudo apt-get install spin" >&2; exit 1; \
		fi; }

mutants: build ## wrongs planted in the protocol's code, each of which a test must catch (about 3 minutes)
	$(EXEC) go run ./internal/proof/mutants/run

DURATION ?= 60s
SEED ?= 1
INTENTS ?= 0
FAULTS ?= 0
KILLS ?= 5m
DRAINS ?= 20
PAYOUTS ?= 20000
storm: build ## random faults for DURATION (60s), drawn from SEED, then the count of what was lost or done twice
	go build -o $(BIN)/storm ./internal/proof/cmd/storm
	$(BIN)/storm -duration $(DURATION) -seed $(SEED) -intents $(INTENTS) -faults $(FAULTS)

# Of a kind with a truthful probe every intent ends by itself; without one, what nobody knows stays flagged. Nothing is doubled.
kills: build ## SIGKILL of workers at random for KILLS (5m) over PAYOUTS (20000) intents, with a truthful probe and then without one
	go build -o $(BIN)/storm ./internal/proof/cmd/storm
	$(BIN)/storm -drill probed -duration $(KILLS) -seed $(SEED) -intents $(PAYOUTS)
	$(BIN)/storm -drill unprobed -duration $(KILLS) -seed $(SEED) -intents $(PAYOUTS)

# Workers are asked to end while there is more work than all can do: nothing may be flagged or doubled, and each must end in its time.
drains: build ## SIGTERM of workers under full load, DRAINS times (20): no intent flagged, none doubled, each drain within its bound
	go build -o $(BIN)/storm ./internal/proof/cmd/storm
	$(BIN)/storm -drill drains -duration 10m -seed $(SEED) -faults $(DRAINS)

clean: ## take down what make left running, and remove .writ
	-$(BIN)/writ dev down
	-$(BIN)/writ dev down --dir .writ/bench/stack
	rm -rf .writ
