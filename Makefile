# Everything runs in .venv, which is made on first use. `make help` lists the targets.
PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

# Notebooks and tests call the package's own commands by name. The path to here may hold spaces, VENV itself may not.
export PATH := $(if $(filter /%,$(VENV)),$(BIN),$(CURDIR)/$(BIN)):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Nothing but the tests for a GPU sees one: results do not depend on the machine, and no driver is waited for.
HIDE_GPU := CUDA_VISIBLE_DEVICES= HIP_VISIBLE_DEVICES= OTSEG_DEVICE=cpu
RUN      := HF_HUB_OFFLINE=1 $(BIN)/python scripts/run_tests.py --workers $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help check-python setup demo test test-slow test-data test-gpu test-timing test-plain test-untouched test-newest test-lowest \
        test-browser test-bridges test-docs mutants clean-room constraints lab export clean outputs prepare readme lint docs

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A half-made environment has no stamp, so an interrupted installation is taken up again.
$(STAMP): pyproject.toml settings.ini setup.py constraints.txt scripts/environment.sh
	@sh scripts/environment.sh $(PYTHON) $(VENV) constraints.txt

# An environment that is there already is used, whichever Python made it; one that was asked for by name has to be that.
check-python: $(STAMP)
	@sh scripts/environment.sh --check $(PYTHON) $(VENV) $(if $(filter file default,$(origin PYTHON)),,asked)

setup: check-python  ## make .venv with the versions of constraints.txt; set up git's merge driver for notebooks
	$(BIN)/nbdev-install-hooks --diff false

demo: check-python  ## segment built-in scenes; scores on screen, figure in demo/
	$(BIN)/otseg-demo --output demo

test: check-python  ## every notebook, then every test (no network, no data, no GPU)
	@$(HIDE_GPU) $(RUN)

test-data: check-python  ## the checks that need the shared data folder (OTSEG_SHARED)
	@$(HIDE_GPU) $(RUN) --flags data -- -m data

test-slow: check-python  ## what takes longer than the limit of `make test` allows; WORDS="fuzz" runs those with one of the words
	@$(HIDE_GPU) $(RUN) --machine "" $(if $(WORDS),--only tests,--flags slow) -- -m slow $(if $(WORDS),-k "$(WORDS)")

test-gpu: check-python  ## the checks that need an NVIDIA GPU; without one, a list of them
	@$(RUN) --machine "" --gpu

test-timing: check-python  ## limits on time, for a machine that does nothing else
	@$(HIDE_GPU) $(RUN) --workers 1 --machine "" --only tests -- -m timing -s

# `make test` runs where matrix products round otherwise (tests/elsewhere); here is this machine as it is, and one with a GPU.
test-plain: check-python  ## every notebook and test with the rounding of this machine
	@$(HIDE_GPU) $(RUN) --machine ""

test-untouched: check-python  ## every notebook and test beside a pretended GPU that nobody may touch
	@$(HIDE_GPU) $(RUN) --machine cuda

# Two more environments, each in a folder of its own. uv resolves the lowest versions.
test-newest:  ## every notebook and test with the newest of everything, in .venv-newest
	@sh scripts/environment.sh $(PYTHON) .venv-newest
	@$(MAKE) test VENV=.venv-newest

test-lowest:  ## every notebook and test with the lowest version of each direct requirement, in .venv-lowest
	@sh scripts/environment.sh --lowest $(PYTHON) .venv-lowest
	@$(MAKE) test VENV=.venv-lowest

# The browser itself comes from the system: chromium on the PATH, or OTSEG_CHROMIUM. OTSEG_SHOTS keeps screenshots.
test-browser: check-python  ## the explorer in JupyterLab, the page of otseg-app and the Space, in headless Chromium
	@$(BIN)/python -c 'import axe_playwright_python, gradio, ipyevents, playwright' || $(BIN)/python -m pip install -q -c constraints.txt -e ".[browser]"
	@$(HIDE_GPU) MPLBACKEND=Agg $(BIN)/python -m pytest -m browser -rs tests/explore

test-bridges: check-python  ## the tutorial on other tools, with the libraries of the extra `bridges`
	@$(BIN)/python -c 'import av, pycocotools, rasterio, supervision' || $(BIN)/python -m pip install -q -c constraints.txt -e ".[bridges]"
	@$(HIDE_GPU) MPLBACKEND=Agg $(BIN)/python -m pytest -rs tests/predict/test_bridges.py

# WORDS="transport BGR" runs those with one of the words in name, module or tests.
mutants: check-python  ## faults made by hand in a copy of the package, each of which its tests have to see
	@$(HIDE_GPU) $(BIN)/python tests/mutants/run.py --workers $(WORKERS) $(WORDS)

clean-room: check-python  ## build wheel and sdist; install each far from here and run the demo there
	$(BIN)/python scripts/clean_room.py --python $(BIN)/python

# One set of versions for all Pythons and systems. PIN="torch==2.14.1 torchvision==0.29.1" gives some of them.
constraints: check-python  ## write constraints.txt anew, with the newest versions that fit together
	$(BIN)/python scripts/constraints.py $(PIN)

lab: check-python  ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir nbs

export: check-python  ## write otseg/*.py from the notebooks
	$(BIN)/nbdev-export

clean: check-python  ## strip run counts and stray metadata from the notebooks
	$(BIN)/nbdev-clean

# Those of all wings, then the pages for readers, but for two that need data sets or GPUs. NBS="nbs/05_show/*.ipynb" runs those alone.
NBS ?= $(sort $(wildcard nbs/[01][0-9]_*/*.ipynb)) $(filter-out nbs/tutorials/5_% nbs/tutorials/6_%,$(sort $(wildcard nbs/explanations/*.ipynb nbs/tutorials/*.ipynb)))
outputs: check-python  ## run notebooks in order, in place, and keep the figures and tables that they show
	@$(HIDE_GPU) HF_HUB_OFFLINE=1 $(BIN)/python scripts/outputs.py $(NBS)
	$(BIN)/nbdev-clean

readme: check-python  ## write README.md from nbs/index.ipynb
	$(BIN)/python scripts/readme.py

prepare: check-python  ## before a commit: export, clean, readme, test
	$(MAKE) export
	$(MAKE) clean
	$(MAKE) readme
	$(MAKE) test

lint: check-python  ## ruff over modules, tests and scripts
	$(BIN)/ruff check

# In an environment of its own: the site is made from what the notebooks hold, and nothing of the package is run.
DOCS := .venv-docs
$(DOCS)/.installed: settings.ini constraints.txt scripts/environment.sh
	@sh scripts/environment.sh --docs $(PYTHON) $(DOCS) constraints.txt

docs: $(DOCS)/.installed  ## the documentation site in _docs; a warning or a dead link is an error
	@$(DOCS)/bin/python scripts/pages.py build

# OTSEG_SHOTS keeps screenshots.
test-docs: check-python docs  ## the site in headless Chromium (chromium on the PATH, or OTSEG_CHROMIUM)
	@$(BIN)/python -c 'import playwright' || $(BIN)/python -m pip install -q -c constraints.txt -e ".[browser]"
	@$(HIDE_GPU) $(BIN)/python -m pytest -m browser -rs tests/project/test_site_browser.py
