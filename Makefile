# Everything sets itself up: only Python 3.11 (or later) and make are assumed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test soak bench check lint types clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The stamp names what was installed: a changed pin or extra sets up again, else nothing is done.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY) ## train, export with Dagster, backfill with Airflow, read back: no account, no network
	@$(BIN)/python -m demo

test: $(READY) ## run the tests
	$(BIN)/python -m pytest

lint: $(READY) ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## check types
	$(BIN)/mypy

soak: $(READY) ## kill exports and backfills 200 times each (WB_OPS_KILLS, WB_OPS_SEED)
	WB_OPS_KILLS=$${WB_OPS_KILLS:-200} $(BIN)/python -m pytest tests/export/test_kill.py tests/backfill/test_kill.py --timeout 3600

bench: $(READY) ## measure the backfill against the loop of W&B's guide
	$(BIN)/python benchmarks/backfill.py

check: test lint types ## all that CI runs

clean: ## remove the environment and what the demo wrote
	rm -rf $(VENV) demo-output
