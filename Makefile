# make test    what CI runs: an environment from constraints.txt, then lint, types and the quick tests
# make demo    drawings -> two trainings -> a report, in demo/
# make bundles write the committed bundles again from semi_med/recipes
# make lint    ruff and mypy
# make clean   remove what these commands made, but not the environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: test demo bundles lint clean

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu"

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

demo: $(STAMP)
	$(BIN)/semi-med demo -o demo --overwrite

bundles: $(STAMP)
	set -e; for folder in bundles/*_*; do \
	  name=$$(basename $$folder); \
	  $(BIN)/semi-med compose $${name%_*} $${name##*_} $$folder; \
	done

# torch comes first and alone: whichever build of it the index has (CPU or CUDA), the rest is then resolved against it
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable ".[dev]"
	touch $@

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find semi_med tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
