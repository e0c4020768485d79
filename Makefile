# `make demo` and `make test` are all that is needed; both make the environment first. `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
# `make test PY=python` runs in the environment that is active, as it is.
PY ?= $(VENV)/bin/python
DEMO_ARGS ?=
TEST_ARGS ?=
TEST_WORKERS ?= 2
VENV_ONEDL ?= .venv-onedl
NPM ?= npm
WEB ?= build/web
MODEL ?=
DOCS_PACKAGES = mkdocs-material 'mkdocstrings[python]' latex2mathml
PYTHONS ?= python3.10 python3.11 python3.12 python3.13

# The environment keeps its Python, unless PYTHON is given.
SAME_PYTHON := $(if $(filter file default undefined,$(origin PYTHON)),,--same-python)

.DEFAULT_GOAL := help
.PHONY: help env demo demo-detect test test-onedl test-matrix lint typecheck format docs notebook web lock licences clean clean-env

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## /\1\t/' | expand -t 12
	@echo
	@echo 'Variables: PYTHON=python3.12 (makes the environment), VENV=.venv (where it is), PY=python (use another one,'
	@echo '           as it is), DEMO_ARGS=--short, TEST_ARGS="-k attention", TEST_WORKERS=2 (tests side by side),'
	@echo '           PYTHONS="python3.11 /path/to/python3.12" (for test-matrix)'

env:  ## Make the environment (.venv) or bring it up to date
ifeq ($(origin PY),file)
	@command -v $(PYTHON) >/dev/null || { echo '$(PYTHON) was not found. On Debian and Ubuntu: sudo apt-get install -y python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). With another one: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) tools/bootstrap.py $(SAME_PYTHON) $(BOOTSTRAP_ARGS) $(VENV)
endif

demo: env  ## Run the demo of semantic segmentation (DEMO_ARGS=--short: shortened)
	$(PY) tools/demo.py $(DEMO_ARGS)

demo-detect: env  ## Run the demo of instance segmentation
	$(PY) tools/demo.py detect $(DEMO_ARGS)

test: env  ## Run the whole test suite
	$(PY) -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(TEST_ARGS)

test-onedl:  ## Run it with the maintained forks onedl-*, in an environment of their own (.venv-onedl)
	@$(MAKE) --no-print-directory test VENV='$(VENV_ONEDL)' BOOTSTRAP_ARGS='--openmmlab requirements/onedl.txt'

test-matrix:  ## Run it with each Python of PYTHONS, in environments of their own (.venv-3.10 ...)
	@run=; missing=; failed=; for python in $(PYTHONS); do \
	    version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || { missing="$$missing $$python"; continue; }; \
	    echo "==> Python $$version ($$python)"; run="$$run $$version"; \
	    $(MAKE) --no-print-directory test PYTHON=$$python VENV=.venv-$$version || failed="$$failed $$version"; \
	done; \
	echo; echo "Python:$${run:- none}. Failed:$${failed:- none}. Not installed:$${missing:- none}."; \
	test -n "$$run" -a -z "$$failed"

lint: env  ## Check style and formatting
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

typecheck: env  ## Check types
	$(PY) -m mypy

format: env  ## Fix what can be fixed of style and formatting
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: env  ## Build the documentation site into build/site; a warning is an error
	@$(PY) -c 'import latex2mathml, material, mkdocstrings' 2>/dev/null || \
	    $(PY) -m pip install --quiet --constraint requirements/constraints.txt $(DOCS_PACKAGES)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo 'build/site/index.html'

notebook: env  ## Run the notebook of examples/, shortened
	@$(PY) -c 'import ipykernel, nbclient' 2>/dev/null || \
	    $(PY) -m pip install --quiet --constraint requirements/constraints.txt ipykernel nbclient
	$(PY) -m pytest tests/test_examples.py -k test_it_runs

web:  ## Build the page that runs exported models in a browser, into build/web (MODEL=model.onnx puts a model beside it)
	@command -v $(NPM) >/dev/null || { echo 'npm was not found: https://nodejs.org has it' >&2; exit 1; }
	mkdir -p '$(WEB)'
	cp web/index.html web/page.css web/*.js web/package.json web/package-lock.json '$(WEB)'
	$(NPM) ci --prefix '$(WEB)' --no-audit --no-fund --ignore-scripts
	cp '$(WEB)'/node_modules/onnxruntime-web/dist/ort.wasm.min.mjs \
	    '$(WEB)'/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.mjs \
	    '$(WEB)'/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm '$(WEB)'
	rm -rf '$(WEB)'/node_modules '$(WEB)'/package*.json
	@test -z '$(MODEL)' || cp '$(MODEL)' '$(WEB)'/model.onnx
	@echo "Any web server serves it, as it is: $(PYTHON) -m http.server --directory $(WEB)"

lock: env  ## Write requirements/lock.txt: every version with its hashes, for all supported Pythons
	rm -rf .venv-lock
	$(PY) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --constraint requirements/constraints.txt uv
	{ echo '# Made by `make lock`. Every file that may be installed, for Python 3.10 to 3.13 and all platforms; used as'; \
	  echo '# `pip install --require-hashes --no-deps -r requirements/lock.txt`, then `pip install --no-deps .` (SECURITY.md).'; \
	  .venv-lock/bin/uv pip compile setup.py requirements/lock.in --extra lite --extra dev --universal \
	      --constraint requirements/constraints.txt --python-version 3.10 --generate-hashes --no-header --no-annotate \
	      --no-emit-index-url --no-emit-package eyetoy-mm --no-emit-package opencv-python --quiet; } > .venv-lock/lock.txt
	mv .venv-lock/lock.txt requirements/lock.txt
	rm -rf .venv-lock

licences: env  ## Write docs/licences.md: the licences of what is installed in the environment
	$(PY) benchmarks/licences.py --into docs/licences.md

clean:  ## Remove caches and what building leaves
	rm -rf build dist eyetoy_mm.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -path './.venv*' -prune -o -path './$(VENV)' -prune -o -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

clean-env:  ## Remove the environment, if `make` made it
	@test ! -e '$(VENV)' || test -e '$(VENV)/eyetoy-mm.json' || { echo '$(VENV) was not made by this Makefile.' >&2; exit 1; }
	rm -rf '$(VENV)'
