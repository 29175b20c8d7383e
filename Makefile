# `make help` lists the targets. Each sets up what it needs; nothing is done twice.
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 5000
OUT ?= gpu
MINUTES ?= 10
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: repro help repository test test-slow bench mutants gpu lint format ui clean new-environment

repro: repository $(VENV)/.installed ## from a clean checkout to the report (what `make` alone does)
	python -m pipeline check
	dvc repro
	python -m pipeline sync || true # what could not be sent is sent another time
	python -m pipeline compare
	@report="$$(python -c 'from pipeline import params, paths; print(paths.report(params.load().report))')"; \
	  echo; cat "$$report/summary.md"; echo; echo "The report: $$report/report.md"

test: $(VENV)/.installed-dev ## all tests but the slow ones, in one process for each core
	pytest --numprocesses=auto

test-slow: $(VENV)/.installed-dev ## the slow tests, and all that break something on purpose
	pytest -m 'slow or fault' --faults=reports/faults.md

bench: $(VENV)/.installed-dev ## speed beside a peer on the same work; needs an idle machine
	python -m benchmarks

mutants: $(VENV)/.installed-dev ## whether the tests notice changed numbers; an hour on two cores
	python -m benchmarks.mutants

# Packages that are there already are used as they are, so that a machine without a network needs no .venv.
gpu: ## on a GPU, in MINUTES=10: its tests, numbers and speeds, and two scales, written to OUT=gpu
	@$(PYTHON) -c 'import benchmarks.gpu, mdit_py_plugins, optuna, pytest, simplejpeg' 2>/dev/null || \
	  $(MAKE) $(VENV)/.installed-dev
	$(PYTHON) -m benchmarks.gpu --out $(OUT) --minutes $(MINUTES)

lint: $(VENV)/.installed-dev ## ruff, mypy, and the contracts about imports
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: $(VENV)/.installed-dev ## ruff's corrections and formatting
	ruff check --fix .
	ruff format .

ui: $(VENV)/.installed ## the runs in MLflow's pages; PORT=5050 sets another port than 5000
	python -m pipeline ui --port $(PORT)

clean: ## forget all runs and prepared images; asks first. Downloads and the environment stay
	@$(PYTHON) -m pipeline.tools.clean $(YES)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

repository: # before anything is installed
	@$(PYTHON) -m pipeline.runtime.git

# A mistyped target is answered with the list.
.DEFAULT:
	@echo "error: make has no target '$@'; accepted are:" >&2; $(MAKE) --no-print-directory help >&2; exit 2

# A virtual environment that works is kept. One that is half made, or of an older Python, is made anew.
ifneq ($(shell $(VENV)/bin/python -m pip --version >/dev/null 2>&1 && \
  $(VENV)/bin/python -c 'import sys; print(sys.version_info >= (3, 11))'),True)
NEW_ENVIRONMENT := new-environment
endif

new-environment:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: PYTHON = $(PYTHON) is\
	  $$($(PYTHON) --version 2>&1); accepted is Python 3.11 or newer, as in: make PYTHON=python3.12" >&2; exit 2; }
	@test ! -e $(VENV) || test -e $(VENV)/pyvenv.cfg || { echo "error: $(VENV) is there and is no virtual environment;\
	  move it away" >&2; exit 2; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) && $(VENV)/bin/python -m pip --version >/dev/null || { rm -rf $(VENV); echo "error:\
	  $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu run: sudo apt install python3-venv" >&2; exit 2; }

# A torch that is there already is kept if it is of the pinned version, whatever its build (CPU or CUDA). pip shows its
# progress, since this downloads gigabytes.
$(VENV)/.installed: pyproject.toml constraints.txt $(NEW_ENVIRONMENT)
	python -m pip install --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	python -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev,cluster]"
	@touch $@
