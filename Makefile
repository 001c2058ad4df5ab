# `make help` lists the contract.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLUSTER ?= default
PYTEST := $(BIN)/pytest -q
.DEFAULT_GOAL := help

.PHONY: help setup demo bench test test-fast test-cluster cluster cluster-down manifests manifests-check lint

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: $(VENV)/.installed ## the Python environment, from the lock file

$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

demo: setup ## the main job on a fresh machine: cluster, VM, backup, verdict (about half an hour cold, minutes when built)
	$(BIN)/python -m tests.e2e.demo --cluster $(CLUSTER)

bench: setup ## speed against restic, kopia, borg, rustic and plain copies; writes docs/benchmarks.md (minutes once built)
	$(BIN)/python -m tests.bench --docs

test: lint manifests-check test-fast test-cluster ## everything that CI runs

test-fast: setup ## unit and property tests: no root, no cluster
	$(PYTEST) tests/unit tests/property

test-cluster: setup ## the driver alone, then a cluster of its own with KubeVirt, everything on it, and its end
	$(BIN)/python -m tests.e2e.run

cluster: setup ## a real Kubernetes with KubeVirt on plain processes (builds everything once)
	$(BIN)/python -m tests.cluster up --name $(CLUSTER)

cluster-down: setup ## end it: no process, mount, loop device, cgroup or namespace stays
	$(BIN)/python -m tests.cluster down --name $(CLUSTER)

manifests: setup ## the CRDs from the models (manifests-check fails where they are stale)
	$(BIN)/python -m coeval.api.crd --output crds

manifests-check: setup
	$(BIN)/python -m coeval.api.crd --output crds --check

lint: setup ## ruff, mypy strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
