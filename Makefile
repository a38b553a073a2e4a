# Two commands: `make book` and `make test`. Each makes what it needs, in .venv, runs/ and _build/.
# One environment with every extra: the book, the tests and the checks run what the others run.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready
RECIPE ?= simulated-human
ARGS   ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book pages test faults lint format bench bench-gpu address clean clean-venv

help:  ## list these commands
	@echo "make <command>   (PYTHON=python3.12 chooses another Python for .venv)"; echo
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

book: $(READY)  ## execute the notebooks and write the book to _build/html (RECIPE=name for other cells)
	$(PY) -m pci_core.cli book --recipe "$(RECIPE)" $(ARGS)

pages: $(READY)  ## open every page of the built book in headless Chromium: no fault, no other host, every picture there
	$(PY) -m tests.browser _build/html

test: $(READY)  ## run all tests (ARGS="-k name" for some)
	$(PY) -m pytest -q -n auto --dist worksteal $(ARGS)

faults: $(READY)  ## the fault suite in full: kills, full disks, damaged and hostile files (an hour and more; a small part of it is in `make test`)
	$(PY) -m pytest -q --thorough -n auto --dist worksteal tests/faults $(ARGS)

lint: $(READY)  ## ruff and mypy; changes nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(READY)  ## put all files into the one style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(READY)  ## every benchmark of benchmarks/, one after another
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py | grep -v bench_gpu); do echo "== $$script"; $(PY) "$$script" $(ARGS); done

bench-gpu: $(READY)  ## all figures of one GPU in eight minutes, with the goals (needs a PyTorch built for that GPU in .venv)
	$(PY) benchmarks/bench_gpu.py $(ARGS)

address: $(READY)  ## copy the repository's address from pyproject.toml to every file that needs it
	$(PY) tools/address.py

clean:  ## remove what was built (_build and caches); keeps runs/ and .venv
	rm -rf _build build .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

clean-venv:  ## remove .venv, to set it up anew
	rm -rf $(VENV)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "pci-core needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Install one and name it: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "setting up $(VENV) (some minutes, 1.5 to 2.5 GB; only when pyproject.toml or constraints.txt changed)"
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt setuptools wheel
	$(PY) -m pip install -q --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[all]'
	@touch $@
