# `make` lists the targets. Everything runs in .venv, which is built if it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FILE ?=
PEERS ?= 4
JOBS ?= 4

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench bench-tracker simulate chaos fuzz audit wheels docs clean

help: ## show these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.run: setup.cfg tools/venv.sh
	@sh tools/venv.sh "$(PYTHON)" $(VENV) ""
	@touch $@

$(VENV)/.dev: setup.cfg tools/venv.sh
	@sh tools/venv.sh "$(PYTHON)" $(VENV) "[dev]"
	@touch $@ $(VENV)/.run

$(VENV)/.bench: setup.cfg tools/venv.sh
	@sh tools/venv.sh "$(PYTHON)" $(VENV) "[bench]"
	@touch $@

$(VENV)/.wheels: setup.cfg tools/venv.sh
	@sh tools/venv.sh "$(PYTHON)" $(VENV) "[wheels]"
	@touch $@

$(VENV)/.audit: setup.cfg tools/venv.sh
	@sh tools/venv.sh "$(PYTHON)" $(VENV) "[audit]"
	@touch $@

# The compiled data path is optional: without it Python does its work, and its tests are skipped.
$(VENV)/.native: $(VENV)/.dev $(wildcard native/*.py native/*/*.c native/*/*.h native/*/*.S)
	@echo "building the compiled data path"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall ./native || \
	    echo "WARNING: the compiled data path could not be built; its tests are skipped"
	@touch $@

demo: $(VENV)/.run ## run a swarm on this machine: make demo FILE=path PEERS=4
	$(BIN)/mini-torrent demo --peers $(PEERS) $(if $(FILE),"$(FILE)")

test: $(VENV)/.dev $(VENV)/.native ## all tests that finish in minutes
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests

check: $(VENV)/.dev ## ruff and mypy; promtool where it is installed
	$(BIN)/ruff --version && $(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy --version && $(BIN)/mypy
	@$(BIN)/python -m tools.check_metrics

format: $(VENV)/.dev ## format the code with ruff
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(VENV)/.dev $(VENV)/.bench $(VENV)/.native ## our figures beside those of other programs (minutes; root for all of it)
	$(BIN)/python -m benchmarks.touch
	$(BIN)/python -m benchmarks

bench-tracker: $(VENV)/.dev ## trackers under load (minutes)
	$(BIN)/python -m benchmarks.tracker

simulate: $(VENV)/.dev ## whole swarms on a virtual clock, from a seed
	$(BIN)/python -m benchmarks.simulate

chaos: $(VENV)/.dev $(VENV)/.native ## the long fault rows, from a printed seed (up to 30 minutes)
	$(BIN)/python -m tests.chaos

fuzz: $(VENV)/.dev $(VENV)/.native ## long fuzzing of every decoder (20 minutes)
	@[ $(VENV)/.fuzz -nt setup.cfg ] || { sh tools/venv.sh "$(PYTHON)" $(VENV) "[fuzz]" && touch $(VENV)/.fuzz; } || \
	    echo "fuzz: atheris could not be installed; continuing with Hypothesis alone"
	@if command -v clang >/dev/null && $(BIN)/python native/build_library.py $(VENV)/fuzz-native --fuzzer; then \
	    $(VENV)/fuzz-native -max_total_time=120 -max_len=4096 -len_control=0; \
	else echo "fuzz: clang is not installed; libFuzzer does not run on the compiled data path"; fi
	$(BIN)/python -m tests.fuzz

audit: $(VENV)/.dev $(VENV)/.audit ## known weaknesses of our dependencies
	@$(BIN)/python tools/audit.py

wheels: $(VENV)/.wheels ## wheels of the compiled data path in dist/, by ziglang, checked
	$(BIN)/python tools/wheels.py dist

docs: $(VENV)/.dev ## generate docs/commands.md and the test columns of docs/
	$(BIN)/python tools/write_docs.py

clean: ## remove everything that can be built again
	rm -rf $(VENV) build dist *.egg-info native/build native/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
