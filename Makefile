# Two commands do everything on a fresh machine: `make demo` and `make test`.
#
#   make demo ARGS="--posts 1000 --workers 3"    thousands of posts labelled before your eyes
#   make test                                    lint, types, unit, contract, integration tests
#   make generate                                schemas/ and the README's tables, from the code
#   make soak RECORDS=1000000                    does memory stay flat? (needs KAFKA_HOME)
#   make train                                   the bundled model's adapter, from its data
#
# PYTHON chooses the interpreter (3.11 or newer). Other builds of torch (CUDA, CPU only) are chosen
# as always with pip: by its index options in the environment or in pip.conf.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
PINS := --constraint deploy/constraints.txt
ARGS ?=
RECORDS ?= 1000000

.PHONY: demo test lint types unit soak generate train clean

demo: $(VENV)/.demo
	@$(BIN)/streamlabel demo $(ARGS)

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest --cov --cov-report= $(ARGS)
	$(BIN)/coverage report --include='worker/core/*,schemas/*' --fail-under=100 --show-missing --skip-covered

soak: $(VENV)/.dev
	@$(BIN)/python -m tests.soak $(RECORDS) $(ARGS)

generate: $(VENV)/.dev
	$(BIN)/python -m schemas.export
	$(BIN)/python -m worker.local.readme

train: $(VENV)/.dev
	$(BIN)/python -m worker.inference.bundled.train $(ARGS)

clean:
	rm -rf $(VENV) .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "streamlabel needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone: asked for by an exact version, pip takes the build that its index
# options offer; as a dependency of others it would take the newest and largest.
$(VENV)/.torch: deploy/constraints.txt | $(BIN)/python
	@echo "installing torch (once, a minute or two)"
	@$(PIP) torch==2.13.0
	@touch $@

$(VENV)/.demo: pyproject.toml deploy/constraints.txt | $(VENV)/.torch
	@echo "installing streamlabel and what the demo needs (once)"
	@$(PIP) $(PINS) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml deploy/constraints.txt | $(VENV)/.torch
	@echo "installing streamlabel and what its tests need (once)"
	@$(PIP) $(PINS) --editable '.[dev]'
	@touch $@ $(VENV)/.demo
