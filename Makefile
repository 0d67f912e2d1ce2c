# `make` alone lists what there is. Everything runs in .venv, which the first target that needs it makes.

PYTHON ?= python3
KILLS ?= 1000
MINUTES ?= 30
# What the kill suite runs on: sqlite, postgres or mysql.
DATABASE ?= sqlite
# Options for what a target runs, as in `make bench ARGS=--help`.
ARGS ?=

BIN := .venv/bin
CHECKED := $(wildcard src tests scripts benchmarks examples)
TYPED := $(wildcard src tests scripts/*.py benchmarks examples/*.py)
# What the A2A clients are made of that tests talk with.
CLIENTS := $(wildcard requirements/clients-*.txt requirements/clients-npm-*/package-lock.json)
EXTRAS := --extra local --extra mysql --extra postgres --extra signing
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make pin' $(ARGS)

export PYTHON

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The checks of `test` come one after the other, so that the first failure ends the output.
.NOTPARALLEL:
.PHONY: help demo setup test format-check lint types imports unit test-long bench kill-suite conformance chaos format pin clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.ready-run ## see Hector keep a conversation through a crash
	@$(BIN)/python scripts/demo.py $(ARGS)

setup: .venv/.ready-test ## make .venv with all that developers need

test: format-check lint types imports unit ## every check before a commit: format, lint, types, imports, tests

format-check: .venv/.ready-test
	$(BIN)/ruff format --check $(CHECKED)

lint: .venv/.ready-test
	$(BIN)/ruff check $(CHECKED)

types: .venv/.ready-test
	$(BIN)/mypy $(TYPED)

imports: .venv/.ready-test
	$(BIN)/lint-imports --no-logo

# In the order of the files: those with few tests, which take longest, are not to be left for the end.
unit: .venv/.ready-test
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: .venv/.ready-test ## all tests, the long ones and those with the big model too
	$(BIN)/python -m pytest -m '' --timeout 900 $(ARGS)

bench: .venv/.ready-test ## measure
	$(BIN)/python -m benchmarks $(ARGS)

kill-suite: .venv/.ready-test ## make KILLS faults under load on a DATABASE and look for what was lost
	$(BIN)/python -m tests.chaos --database $(DATABASE) --kills $(KILLS) $(ARGS)

conformance: .venv/.ready-test ## run A2A's conformance suites; TCK is a clone of a2a-tck (docs/conformance.md)
	@$(BIN)/python -m tests.conformance $(if $(TCK),"$(TCK)",$(error TCK is not set: git clone https://github.com/a2aproject/a2a-tck ../a2a-tck, and then make conformance TCK=../a2a-tck)) $(ARGS)

chaos: .venv/.ready-test ## the same for MINUTES, on each database in turn
	for database in sqlite postgres mysql; do \
	  $(BIN)/python -m tests.chaos --database $$database --minutes $(MINUTES) $(ARGS) || exit; done

format: .venv/.ready-test ## format, and mend what can be mended by machine
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/ruff check --fix $(CHECKED)

pin: ## pin the newest versions that pyproject.toml allows (needs uv, npm; ARGS=--upgrade to move)
	$(COMPILE) pyproject.toml $(EXTRAS) requirements/build.in --output-file requirements/run.txt
	$(COMPILE) pyproject.toml $(EXTRAS) requirements/build.in --group dev \
	  --constraint requirements/run.txt --output-file requirements/test.txt
	for apart in clients-python-0.3 clients-adk clients-nodejs tck; do \
	  $(COMPILE) requirements/$$apart.in --output-file requirements/$$apart.txt || exit; done
	for client in newest 0.3; do \
	  (cd requirements/clients-npm-$$client && npm install --package-lock-only --omit-lockfile-registry-resolved \
	    --no-audit --no-fund) || exit; done

clean: ## remove .venv and everything made by tools
	rm -rf .venv build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# A .venv that came along when the checkout was moved or copied still names the old place.
ifneq ($(shell cat .venv/.made-in 2>/dev/null),$(CURDIR))
.PHONY: .venv/.ready-run .venv/.ready-test
endif

.venv/.ready-run: requirements/run.txt pyproject.toml scripts/setup.sh
	@scripts/setup.sh run

.venv/.ready-test: requirements/test.txt $(CLIENTS) pyproject.toml scripts/setup.sh
	@scripts/setup.sh test
