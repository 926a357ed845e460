# Everything runs in .venv, which is made on first use. `make help` lists the targets.
PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# Notebooks and tests call the package's own commands by name.
export PATH := $(abspath $(BIN)):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-data test-browser lab export clean prepare readme lint docs

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A half-made environment has no stamp, so an interrupted installation is taken up again.
$(STAMP): pyproject.toml settings.ini setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e ".[dev]"
	@touch $@

setup: $(STAMP)  ## make .venv, install the package and the tools, set up git's merge driver for notebooks
	$(BIN)/nbdev-install-hooks --diff false

demo: $(STAMP)  ## segment built-in scenes; scores on screen, figure in demo/
	$(BIN)/otseg-demo --output demo

# Fixed thread counts: a container with a CPU quota still reports every core of its host.
test: export HF_HUB_OFFLINE = 1
test: $(STAMP)  ## every notebook, then every test (no network, no data, no GPU)
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers $(WORKERS)
	OMP_NUM_THREADS=$(WORKERS) MPLBACKEND=Agg $(BIN)/python -m pytest

test-data: export HF_HUB_OFFLINE = 1
test-data: $(STAMP)  ## the checks that need the shared data folder (OTSEG_SHARED)
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers $(WORKERS) --flags data
	OMP_NUM_THREADS=$(WORKERS) MPLBACKEND=Agg $(BIN)/python -m pytest -m data

# The browser itself comes from the system: chromium on the PATH, or OTSEG_CHROMIUM. OTSEG_SHOTS keeps screenshots.
test-browser: $(STAMP)  ## the explorer in JupyterLab and as a page, in headless Chromium
	$(BIN)/python -c 'import ipyevents, playwright, voila' || $(BIN)/python -m pip install -e ".[browser]"
	MPLBACKEND=Agg $(BIN)/python -m pytest -m browser tests/test_browser.py

lab: $(STAMP)  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir nbs

export: $(STAMP)  ## write otseg/*.py from the notebooks
	$(BIN)/nbdev-export

clean: $(STAMP)  ## strip run counts and stray metadata from the notebooks
	$(BIN)/nbdev-clean

readme: $(STAMP)  ## write README.md from nbs/index.ipynb
	$(BIN)/python scripts/readme.py

prepare: $(STAMP)  ## before a commit: export, clean, readme, test
	$(MAKE) export
	$(MAKE) clean
	$(MAKE) readme
	$(MAKE) test

lint: $(STAMP)  ## ruff over modules, tests and scripts
	$(BIN)/ruff check

docs: $(STAMP)  ## the documentation site in _docs (needs Quarto)
	@command -v quarto >/dev/null || { echo 'make docs needs Quarto, which is not on the PATH: see quarto.org/docs/get-started' >&2; exit 1; }
	$(BIN)/nbdev-docs
