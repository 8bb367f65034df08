# Convoy. `make` runs every quick check; `make demo` and `make test` set everything up by themselves.
SHELL := /bin/bash
.DEFAULT_GOAL := check
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := contracts audit models node coordinator demo
RUNTIME ?= embedded
DATA ?= $(or $(CONVOY_SHARED),../shared)/data
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: install check format demo demo-reset test bench bench-risk bench-audit bench-decide soak compose-check clean help

help: ## What there is to type
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F':.*?## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): constraints.txt requirements-dev.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	@test -x $(BIN)/python || $(PY) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Convoy needs Python 3.11 or newer; call make PY=python3.11")'
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -r requirements-dev.txt \
	  -e ./contracts -e ./audit -e './models[neural,ckks]' -e './node[warehouse]' -e './coordinator[federation,postgresql]' -e ./demo
	@touch $@

install: $(STAMP) ## One virtual environment with everything

check: $(STAMP) ## Format, lint, types, layers, unit + property + docs tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -m "not slow" tests/unit tests/property tests/docs

format: $(STAMP) ## Let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: $(STAMP) ## A carmaker, three insurers, a charging operator: two joint models (RUNTIME=deployed for real Flower processes)
	$(BIN)/convoy-demo run --runtime $(RUNTIME) --home run/demo $(if $(ARGS),$(ARGS),)

demo-reset: $(STAMP) ## Remove the demo's folders, its ledgers included
	$(BIN)/convoy-demo reset --home run/demo

test: $(STAMP) ## Every test
	$(BIN)/python -m pytest

bench: bench-decide bench-audit bench-risk ## Every benchmark; results go to bench/results/

bench-risk: $(STAMP) ## freMTPL2 with the carmaker and five insurers (DATA=folder of the data set)
	$(BIN)/python bench/risk.py --dataset bench/data/fremtpl2.yaml --data $(DATA) --epsilon 4 1 --json bench/results/risk-fremtpl2.json

bench-audit: $(STAMP) ## The log beside its peers
	$(BIN)/python bench/audit.py --json bench/results/audit.json

bench-decide: $(STAMP) ## The decision engine
	$(BIN)/python bench/decide.py --json bench/results/decide.json

clean: ## Remove build and cache folders (not run/)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
