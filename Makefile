# Everything runs in .venv; needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := $(VENV)/.demo
WORKERS ?= auto
COUNT ?= 300
MINUTES ?= 10
SEED ?=
KEEP ?=
# On Linux pip takes builds of torch with CUDA, several gigabytes. For CPUs alone name the index of CPU builds, which torch's own
# installation page gives: make demo TORCH_INDEX=...
TORCH_INDEX ?=
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test test-fast check docs torture lock bench clean
help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

define MAKE_VENV
@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "graftwork needs Python 3.11 or newer; set PYTHON=...")'
test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url '$(TORCH_INDEX)' torch torchvision)
endef

$(INSTALLED): pyproject.toml requirements/data.txt
	$(MAKE_VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --requirement requirements/data.txt
	@touch $@

# Where everything is installed, the demo needs nothing more.
$(DEMO): pyproject.toml requirements/demo.txt
	$(MAKE_VENV)
	test -f $(INSTALLED) || $(BIN)/python -m pip install --quiet --editable '.[demo]'
	test -f $(INSTALLED) || $(BIN)/python -m pip install --quiet --no-deps --requirement requirements/demo.txt
	@touch $@

install: $(INSTALLED)  ## make .venv and install graftwork with everything

demo: $(DEMO)  ## run the embedded demo suite: data to model, report and verdict in about six minutes
	$(BIN)/graftwork fit

test: $(INSTALLED)  ## run all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-fast: $(INSTALLED)  ## run the tests that take seconds
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not slow and not browser'

check: $(INSTALLED)  ## lint, format, types, doctests, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --doctest-modules src/graftwork/core src/graftwork/data src/graftwork/evaluation src/graftwork/math -p no:cacheprovider
	$(BIN)/python -m pytest tests/architecture

docs: $(INSTALLED)  ## build the documentation site into site/
	$(BIN)/python docs/generate.py
	$(BIN)/mkdocs build --strict

torture: $(INSTALLED)  ## attack files, runs, repeats and servers, for about an hour (COUNT=, MINUTES=, SEED=, KEEP=)
	$(BIN)/python -m tests.torture --count $(COUNT) --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(KEEP),--keep $(KEEP))

lock: $(INSTALLED)  ## write the installed versions of all dependencies into requirements/lock.txt
	$(BIN)/python requirements/lock.py

bench: $(INSTALLED)  ## measure speed and memory beside the peers (needs an idle machine)
	$(BIN)/python -m benchmarks

clean:  ## remove what the targets above made
	rm -rf $(VENV) site docs/generated .mypy_cache .ruff_cache .pytest_cache .hypothesis
