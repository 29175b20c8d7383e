# `make repro`: from a clean checkout to the report. `make test`: all tests that fit ten minutes.
# Each target sets up what it needs; nothing is done twice.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: repro test test-slow bench lint format ui clean

repro: $(VENV)/.installed
	python -m pipeline check
	dvc repro
	python -m pipeline sync || true # what could not be sent is sent another time
	python -m pipeline compare
	@echo "The report: $$(python -c 'from pipeline import params, paths; print(paths.report(params.load().scale))')/report.md"

test: $(VENV)/.installed-dev
	pytest

test-slow: $(VENV)/.installed-dev
	pytest -m 'slow or fault' --faults=reports/faults.md

bench: $(VENV)/.installed-dev
	python -m benchmarks

lint: $(VENV)/.installed-dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: $(VENV)/.installed-dev
	ruff check --fix .
	ruff format .

ui: $(VENV)/.installed
	python -m pipeline sync || true
	@echo "The runs: http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&compareRunsMode=CHART"
	mlflow ui --host 127.0.0.1 --workers 1 --backend-store-uri $${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}

clean: # downloads and the environment stay
	rm -rf data runs .state mlflow.db mlartifacts .dvc/cache .dvc/tmp

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# A torch that is there already is kept if it is of the pinned version, whatever its build (CPU or CUDA).
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,cluster]"
	@touch $@
