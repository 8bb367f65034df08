# Convoy. `make` runs every quick check; `make demo` and `make test` set everything up by themselves.
SHELL := /bin/bash
.DEFAULT_GOAL := check
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := contracts audit models node coordinator demo
RUNTIME ?= embedded
JOBS ?= 3
BENCHES := decide audit register risk recommend population severity dpsgd protocol privacy connectors runtimes exchange many recovery
DATA ?= $(or $(CONVOY_SHARED),../shared)/data
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
unexport PYTHONDONTWRITEBYTECODE # else every process that a demo or a test starts compiles our packages again (half a second each)

.PHONY: install check format demo demo-reset test bench soak compose-check docs clean help $(addprefix bench-,$(BENCHES) network)

help: ## What there is to type
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F':.*?## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): constraints.txt requirements-dev.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	@test -x $(BIN)/python || $(PY) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Convoy needs Python 3.11 or newer; call make PY=python3.11")'
	@test -x $(BIN)/python || $(PY) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -r requirements-dev.txt \
	  -e ./contracts -e ./audit -e './models[neural,ckks]' -e './node[warehouse]' -e './coordinator[federation,postgresql,timestamps]' -e ./demo
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # on every core; templates that are no Python do not matter
	@touch $@

install: $(STAMP) ## One virtual environment with everything

check: $(STAMP) ## Format, lint, types, layers, unit + property + docs tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow" tests/unit tests/property tests/docs

format: $(STAMP) ## Let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: $(STAMP) ## A carmaker, three insurers, a charging operator: two joint models (RUNTIME=deployed for real Flower processes)
	$(BIN)/convoy-demo run --runtime $(RUNTIME) --home run/demo $(if $(ARGS),$(ARGS),)

demo-reset: $(STAMP) ## Remove the demo's folders, its ledgers included
	$(BIN)/convoy-demo reset --home run/demo

test: $(STAMP) ## Every test (JOBS=how many files at a time; end-to-end tests begin, because they wait most)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

bench: $(addprefix bench-,$(BENCHES)) ## Every benchmark, one after the other (about two hours); results go to bench/results/

bench-decide: $(STAMP) ## The decision engine, warm and cold
	$(BIN)/python bench/decide.py --json bench/results/decide.json

bench-audit: $(STAMP) ## The log beside pymerkle and a locked hash-chain table on PostgreSQL (ARGS=--full for a million entries)
	$(BIN)/python bench/audit.py --json bench/results/audit.json $(ARGS)

bench-register: $(STAMP) ## The consent register at a million records
	$(BIN)/python bench/register.py --json bench/results/register.json $(ARGS)

bench-risk: $(STAMP) ## freMTPL2, five region zones, beside every rival (DATA=folder of the data set)
	$(BIN)/python bench/risk.py --dataset bench/data/fremtpl2-zones.yaml --data $(DATA) --epsilon 4 1 --json bench/results/risk-fremtpl2-zones.json $(ARGS)

bench-recommend: $(STAMP) ## Coupon and Dundee (DATA=folder of the data sets); two towers beside item-item in the generated world
	$(BIN)/python bench/recommend.py --dataset bench/data/coupon.yaml --data $(DATA) --epsilon 4 --json bench/results/recommend-coupon.json
	$(BIN)/python bench/recommend.py --dataset bench/data/dundee.yaml --data $(DATA) --epsilon 4 --json bench/results/recommend-dundee.json
	$(BIN)/python bench/recommend_world.py --json bench/results/recommend-world.json

bench-population: $(STAMP) ## The generated world: joint, alone, pooled, fairness to the young
	$(BIN)/python bench/population.py --json bench/results/population.json $(ARGS)

bench-severity: $(STAMP) ## Claim amounts (Gamma): generated world and freMTPL2 (DATA=folder of the data set)
	$(BIN)/python bench/severity.py --fremtpl2 $(DATA) --json bench/results/severity.json

bench-dpsgd: $(STAMP) ## A private step of the neural residual beside a plain one
	$(BIN)/python bench/dpsgd.py --json bench/results/dpsgd.json

bench-protocol: $(STAMP) ## Sums over joint rows beside plaintext; a round beside a bare Flower round
	$(BIN)/python bench/protocol.py --json bench/results/protocol.json $(ARGS)

bench-privacy: $(STAMP) ## The empirical privacy audit: planted defects and none
	$(BIN)/python bench/privacy_audit.py --json bench/results/privacy-audit.json

bench-connectors: $(STAMP) ## Ten million persons, thirty columns, in bounded memory
	$(BIN)/python bench/connectors.py --json bench/results/connectors.json $(ARGS)

bench-runtimes: $(STAMP) ## The demo in both runtimes: seconds a query, bytes, memory
	$(BIN)/python bench/runtimes.py --json bench/results/runtimes.json

bench-exchange: $(STAMP) ## One exchange with six nodes: stock Flower beside ours
	$(BIN)/python bench/exchange.py --json bench/results/exchange.json

bench-many: $(STAMP) ## Fifty nodes in a run (ARGS="--deployed 50" for as many real processes)
	$(BIN)/python bench/many.py --json bench/results/many.json $(ARGS)

bench-recovery: $(STAMP) ## Kill every process at every step; writes the table of docs/reliability.md
	$(BIN)/python bench/recovery.py --json bench/results/recovery.json --table docs/reliability.md $(ARGS)

bench-network: $(STAMP) ## Slow and cut links through network namespaces (Linux, unshare)
	$(BIN)/python bench/network.py --json bench/results/network.json

soak: $(STAMP) ## A thousand runs, a thousand kills on each database, ten thousand worlds (about an hour)
	$(BIN)/python bench/soak.py --runs 1000 --json bench/results/soak.json
	$(BIN)/python bench/kills.py --kills 1000 --json bench/results/kills.json
	CONVOY_EXAMPLES=10000 $(BIN)/python -m pytest -q tests/property/contracts tests/fault/node/test_ledger_points.py

compose-check: $(STAMP) ## docker-compose.yml against the compose specification and our rules; the same topology as local processes (ARGS=--demo for its demo)
	$(BIN)/python deploy/compose_check.py $(ARGS)

docs: $(STAMP) ## Write the pages that are derived from the programs, and bench/results/README.md
	$(BIN)/python docs/generate.py
	$(BIN)/python bench/report.py

clean: ## Remove build and cache folders (not run/)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
