# Two commands set everything up: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo app test lint notebooks tables verl clean

demo: .venv/demo
	$(BIN)/attnscope demo --output demo --force

# ARGS is a folder of traces, a trace or a model.
app: .venv/app
	$(BIN)/attnscope app $(ARGS)

test: .venv/all lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --ignore tests/app/browser
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/app/browser

lint: .venv/all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

# Every notebook anew, with its outputs.
notebooks: .venv/all
	$(BIN)/python -m notebooks.execute

# Every table of figures in the documents that takes minutes on an idle machine. The longer ones (digits,
# hallucination, flight, credit) and those of a GPU (cuda) have commands of their own.
tables: .venv/all
	$(BIN)/python -m benchmarks.families
	$(BIN)/python -m benchmarks.timm_families
	$(BIN)/python -m benchmarks.capture
	$(BIN)/python -m benchmarks.gradients
	$(BIN)/python -m benchmarks.traces
	$(BIN)/python -m benchmarks.neighborhood
	$(BIN)/python -m benchmarks.mechanisms
	$(BIN)/python -m benchmarks.zoom
	$(BIN)/python -m benchmarks.credit_overhead
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.glimpse
	$(BIN)/python -m benchmarks.interventions

.venv/python: constraints.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit('attnscope needs Python 3.11 or newer; try make PYTHON=python3.11') if sys.version_info < (3, 11) else None"
	$(PYTHON) -m venv .venv
	@touch $@

.venv/demo: .venv/python
	$(PIP) --editable ".[figures]"
	@touch $@

.venv/app: .venv/python
	$(PIP) --editable ".[app]"
	@touch $@

.venv/all: .venv/python
	$(PIP) --editable ".[all,dev]"
	@touch $@ .venv/demo .venv/app

# The plug-in for verl against the real package, in an environment of its own: some gigabytes.
verl:
	PYTHON=$(PYTHON) tests/verl/run.sh

clean:
	rm -rf .venv demo
