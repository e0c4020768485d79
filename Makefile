# `make demo` and `make test` are all that is needed; both make the environment first. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
# `make test PY=python` runs in the environment that is active, as it is.
PY ?= $(VENV)/bin/python
DEMO_ARGS ?=
TEST_ARGS ?=
TEST_WORKERS ?= 2
VENV_ONEDL ?= .venv-onedl

# The environment keeps its Python, unless PYTHON is given.
SAME_PYTHON := $(if $(filter file default undefined,$(origin PYTHON)),,--same-python)

.DEFAULT_GOAL := help
.PHONY: help env demo test test-onedl lint typecheck format clean clean-env

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## /\1\t/' | expand -t 12
	@echo
	@echo 'Variables: PYTHON=python3.12 (makes the environment), VENV=.venv (where it is), PY=python (use another one,'
	@echo '           as it is), DEMO_ARGS=--short, TEST_ARGS="-k attention", TEST_WORKERS=2 (tests side by side)'

env:  ## Make the environment (.venv) or bring it up to date
ifeq ($(origin PY),file)
	@command -v $(PYTHON) >/dev/null || { echo '$(PYTHON) was not found. On Debian and Ubuntu: sudo apt-get install -y python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). With another one: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py $(SAME_PYTHON) $(BOOTSTRAP_ARGS) $(VENV)
endif

demo: env  ## Run the demo (DEMO_ARGS=--short: shortened)
	$(PY) tools/demo.py $(DEMO_ARGS)

test: env  ## Run the whole test suite
	$(PY) -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile $(TEST_ARGS)

test-onedl:  ## Run it with the maintained forks onedl-*, in an environment of their own (.venv-onedl)
	@$(MAKE) --no-print-directory test VENV='$(VENV_ONEDL)' BOOTSTRAP_ARGS='--openmmlab requirements/onedl.txt'

lint: env  ## Check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

typecheck: env  ## Check types
	$(PY) -m mypy

format: env  ## Fix what can be fixed of style and formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

clean:  ## Remove caches and what building leaves
	rm -rf build dist eyetoy_mm.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path './$(VENV)' -prune -o -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

clean-env:  ## Remove the environment, if `make` made it
	@test ! -e '$(VENV)' || test -e '$(VENV)/eyetoy-mm.json' || { echo '$(VENV) was not made by this Makefile.' >&2; exit 1; }
	rm -rf '$(VENV)'
