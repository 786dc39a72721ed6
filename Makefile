.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast up lint format bench migrate lock check-api clean env servers

PY := .venv/bin/python
# Processes that run the tests, file by file: each has servers of its own. One more than two cores: tests of crashes wait.
TESTERS ?= 3

# One thread each: the same weights on every run, and no fight for cores between processes.
demo test test-fast bench: export OMP_NUM_THREADS = 1
demo test test-fast bench: export MKL_NUM_THREADS = 1

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: env servers ## set up the environment and what the tests need

env:
	@sh scripts/setup.sh

servers: env
	@sh scripts/servers.sh

demo: env ## run the main job end to end on this machine, with nothing but the environment
	@$(PY) -m service.cli.main demo

up: env ## serve the API and console on http://127.0.0.1:8000, with worker and scheduler, until Ctrl-C
	@.venv/bin/lethe up

test: env ## run the whole test suite
	@sh scripts/servers.sh --require
	$(PY) -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

test-fast: env ## run the tests that need no browser, no started service and little time
	$(PY) -m pytest -m "not slow and not e2e and not browser and not gpu"

lint: env ## check style, types and import contracts
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

format: env ## sort imports and format the code
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

bench: servers ## run the benchmarks: tables on the screen, JSON in benchmarks/results
	$(PY) -m benchmarks

migrate: env ## bring the database to the newest schema
	@.venv/bin/lethe db upgrade

lock: ## resolve the dependencies anew; FLAGS=--upgrade moves the versions
	@sh scripts/lock.sh $(FLAGS)

check-api: env ## install the API alone, without torch, and start it
	@sh scripts/check_api.sh

clean: ## remove what can be made again, except the environment and LETHE_HOME
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find service workers tests migrations benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
