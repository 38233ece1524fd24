# Everything happens in .venv, which the first target makes and later ones find in order (scripts/environment.sh).
# Settings can be given on the command line: make run PORT=9000

PYTHON ?=
# Processes that run tests at the same time: more than two cores, because tests wait for the processes they start.
WORKERS ?= 3
# Goes to the program behind the target: make test ARGS="-k inbox"
ARGS ?=
# make lock UPGRADE=1 moves to the newest versions; without it only what pyproject.toml asks for changes.
UPGRADE ?=

export PYTHON
BIN := .venv/bin
ENVIRONMENT_FOR = @MAKE_TARGET=$@ sh scripts/environment.sh
COMPILE = uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
	$(if $(UPGRADE),--upgrade) pyproject.toml --extra postgres --group build

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help audit sbom run test test-long check format-check lint types imports unreachable migrations locks format bench planted-faults lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

run: ## start the service on http://127.0.0.1:8000
	$(ENVIRONMENT_FOR) run
	@exec $(BIN)/yral-chat serve $(ARGS)

test: ## all tests but the long ones
	$(ENVIRONMENT_FOR) dev
	@exec $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not long" $(ARGS)

test-long: ## the long ones: crashes, histories, fuzzing
	$(ENVIRONMENT_FOR) dev
	@exec $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m long $(ARGS)

check: format-check lint types imports unreachable migrations locks ## format, lint, types, import rules, migrations, locks

format-check:
	$(ENVIRONMENT_FOR) dev
	$(BIN)/python -m ruff format --check .

lint:
	$(ENVIRONMENT_FOR) dev
	$(BIN)/python -m ruff check .

types:
	$(ENVIRONMENT_FOR) dev
	$(BIN)/python -m mypy

imports:
	$(ENVIRONMENT_FOR) dev
	$(BIN)/lint-imports --no-logo

unreachable:
	$(ENVIRONMENT_FOR) dev
	$(BIN)/python -m checks.unreachable_modules

migrations:
	$(ENVIRONMENT_FOR) dev
	$(BIN)/python -m checks.migrations_in_step

locks:
	$(ENVIRONMENT_FOR) dev
	$(BIN)/python -m checks.locks_in_step

audit: ## ask whether faults of what is installed are known (skipped where nobody can be asked)
	$(ENVIRONMENT_FOR) dev
	@exec $(BIN)/python -m checks.audit

sbom: ## write what is delivered, with licences, to dist/sbom.cdx.json
	$(ENVIRONMENT_FOR) dev
	@exec $(BIN)/python -m checks.sbom dist/sbom.cdx.json

format: ## rewrite the code in the project's format
	$(ENVIRONMENT_FOR) dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

bench: ## measure, and write docs/benchmarks.md
	$(ENVIRONMENT_FOR) dev
	@exec $(BIN)/python -m benchmarks $(ARGS)

planted-faults: ## plant known bugs, one at a time, and see whether the tests notice (an hour)
	$(ENVIRONMENT_FOR) dev
	@exec $(BIN)/python -m checks.planted_faults $(ARGS)

lock: ## write the lock files anew from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "error: make lock needs uv on PATH" >&2; exit 1; }
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --group dev --constraint requirements.lock --output-file requirements-dev.lock
