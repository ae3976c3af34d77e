# Two commands set everything up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint format bench package clean

quickstart: $(VENV)/.installed-train  ## environment, install, train on the embedded digits, evaluate, predict, picture
	$(BIN)/python -m van.tools.quickstart

test: $(VENV)/.installed-dev  ## the default test suite: CPU, offline
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev  ## ruff (check and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev  ## ours against the transformers 4.57 network on this CPU, written to docs/results.json
	$(BIN)/python benchmarks/cpu_inference.py

package: $(VENV)/.installed-dev  ## wheel and sdist into dist/
	$(BIN)/python -m build --outdir dist .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-train: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[train,keras]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed-train

clean:
	rm -rf $(VENV) build dist quickstart .mypy_cache .ruff_cache .pytest_cache
