# `make demo` runs the main job, `make up` the whole platform, `make test` passes the suite.
PYTHON ?= python3.11
VENV   ?= .venv
PROFILE ?= quick
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed
ROOMS   = tradewind registry serving policy assets pipelines

.DEFAULT_GOAL := help
.PHONY: help install demo up test test-slow test-all check docs bench-serving pictures format lock clean hooks bento

help:  ## Show what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(STAMP)  ## Create the environment from the lock

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11 with venv, or pass PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check -q --no-build-isolation --no-deps -e .
	@touch $(STAMP)

demo: install  ## The main job, end to end, on real bars (PROFILE=full for the whole)
	TRADEWIND_PROFILE=$(PROFILE) $(BIN)/tradewind demo

up: install  ## Everything at once, watched: MLflow, Dagster, serving, paper engine (Ctrl-C stops)
	@$(BIN)/tradewind up

test: install  ## The fast suite
	$(BIN)/python -m pytest -m "not slow"

test-slow: install  ## The slow tier: end to end, crash loops, real servers
	$(BIN)/python -m pytest -m slow

test-all: test test-slow  ## Both tiers

check: install docs  ## ruff, mypy, import contracts, Dagster definitions, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/dg check defs
	$(BIN)/dagster definitions validate

docs: install  ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

bento: install  ## Serving as a folder that runs outside the repository, into var/bento
	TRADEWIND_HOME=var BENTOML_HOME=$(CURDIR)/var/bento BENTOML_DO_NOT_TRACK=true \
	  $(BIN)/bentoml build --version $$(git rev-parse --short HEAD 2>/dev/null || echo dev) .

bench-serving: install  ## Measure serving, alone on the machine (about 10 minutes)
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m benchmarks.serving

pictures: install  ## Take the documentation's screenshots anew (needs Chromium and bars)
	PICTURES=docs/pictures $(BIN)/python -m pytest tests/browser -m slow

format: install  ## Rewrite the code in the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: install  ## Install the local pre-commit hooks
	$(BIN)/pre-commit install

lock: install  ## Write requirements.lock from the environment
	@{ echo '# Exact versions tested together on Python 3.11, Linux, CPU. Made by `make lock`.'; \
	   $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:  ## Remove state and caches (not the environment)
	rm -rf var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache site summary.json
