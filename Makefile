# Everything one can do here. `make` alone prints this list. Each target sets up what it needs and says what it waits for.

SHELL := /bin/sh
BIN := .venv/bin
QUICK := tests/unit tests/behaviour/test_line.py
JUDGES := tests/conformance/judges
WORKERS ?= 2
SEED ?= 1
STEPS ?= 1000
# Compiled modules are kept, whatever the caller's environment says: every start without them costs three seconds.
export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/pytest
SOURCES := chaincode gateway kvr_sync network requirements tests

# The first Python of at least 3.11, unless PYTHON names one.
FIND_PYTHON = for candidate in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14; do \
	    if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$${python:-}" ]; then echo "Python 3.11 or later is needed (on Debian and Ubuntu: apt-get install python3 python3-venv)" >&2; exit 1; fi

.PHONY: help setup setup-runtime setup-hfc setup-judges demo demo-recorded test test-native differential test-quick record-chains check format lock lock-upgrade bench bench-sync bench-network bench-lag clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## everything for development, into .venv alone
	@$(FIND_PYTHON); $$python requirements/install.py dev

setup-runtime: # what users need, into .venv alone
	@$(FIND_PYTHON); $$python requirements/install.py runtime

setup-hfc: setup ## also Hyperledger's older Python client, for peers without a Gateway service
	@$(FIND_PYTHON); $$python requirements/install.py hfc

setup-judges: setup-hfc ## also Fabric's own clients and shims, which the tests are judged by, into a cache of the user's
	@$(BIN)/python -m tests.support.judge_programs

demo: setup-runtime ## a week of customer service on a live network, through its REST service, as tables
	@$(BIN)/kvr demo

demo-recorded: setup-runtime ## a recorded week of a real network as tables; then forged, and refused
	@$(BIN)/kvr demo recorded

test: export KVR_REQUIRE ?= postgres,hfc
test: setup-judges ## every test, as CI runs them
	@set -e; \
	echo "[1/2] packaging: our four names are ours"; \
	$(PYTEST) -qq -o addopts=--import-mode=importlib --no-header --no-summary tests/unit/test_packaging.py -k resolve; \
	echo "[2/2] every test on $(WORKERS) workers (a closing table gives each folder)"; \
	$(PYTEST) -n $(WORKERS) tests

test-native: export KVR_REQUIRE = postgres,fabric,fabric-lts,go,hfc,node
test-native: setup-judges ## the tests of networks, on real nodes of Fabric 3.1 (Raft, BFT) and 2.5 as well; needs their programs
	@$(PYTEST) -n $(WORKERS) tests/fabric $(JUDGES)

differential: export KVR_REQUIRE = fabric
differential: export KVR_DIFFERENTIAL_SEED = $(SEED)
differential: export KVR_DIFFERENTIAL_STEPS = $(STEPS)
differential: setup ## one seeded workload on an embedded network and on real nodes, compared step by step: SEED=1 STEPS=1000
	@$(PYTEST) $(JUDGES)/test_differential.py

test-quick: setup ## a minute or two: pure functions, and the line into SQLite
	@$(PYTEST) -n $(WORKERS) -k "not postgresql" $(QUICK)

record-chains: setup ## record tests/vectors/kvr-* again, each on a network of real nodes; needs the programs of Fabric 3.1 and 2.5
	@rm -rf build/vectors && $(BIN)/python -m tests.support.recorder build/vectors && rm -rf tests/vectors/kvr-* && mv build/vectors/kvr-* tests/vectors/

check: setup ## format, lint, strict types, import contracts, pinned files in step
	@failed=""; \
	step() { name="$$1 $$2"; echo "[$$name]"; shift 2; "$$@" || failed="$$failed [$$name]"; }; \
	step 1/5 "format: mended by make format" $(BIN)/ruff format --check --quiet $(SOURCES); \
	step 2/5 "lint" $(BIN)/ruff check --quiet $(SOURCES); \
	step 3/5 "strict types" $(BIN)/mypy --no-error-summary; \
	step 4/5 "import contracts" $(BIN)/lint-imports --no-logo --cache-dir .import_linter_cache; \
	step 5/5 "pinned files" $(BIN)/python requirements/locks.py check; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

format: setup ## rewrite the sources in the one format, and mend what the linter can mend
	@$(BIN)/ruff check --quiet --fix-only $(SOURCES); $(BIN)/ruff format $(SOURCES)

lock: setup ## make the pinned files again from pyproject.toml (minutes; pins that still fit stay)
	@$(BIN)/python requirements/locks.py compile

lock-upgrade: setup ## the same, with every pin moved to its newest version
	@$(BIN)/python requirements/locks.py compile --upgrade

bench: bench-sync bench-network bench-lag ## every benchmark

bench-sync: setup ## transactions per second: decoding, the whole line, and plain COPY of the same rows
	@$(BIN)/python -m tests.benchmarks.sync

bench-network: setup ## the embedded network: seconds to the first transaction, transactions per second, memory
	@$(BIN)/python -m tests.benchmarks.network

bench-lag: setup ## from a peer's block to visible rows, at full rate and at half: milliseconds
	@$(BIN)/python -m tests.benchmarks.lag

clean: ## remove every trace: environment, caches, builds, output of the demo
	@rm -rf .venv .venv-install.log build dist demo-data demo-live .coverage .coverage.* \
	    .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find chaincode gateway kvr_sync network requirements tests -name __pycache__ -type d -prune -exec rm -rf {} +
