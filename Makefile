# make test    what CI runs: an environment from constraints.txt, then lint, types and the quick tests; then `make label`
#              and the tests of the annotation server
# make label   .venv-label, an environment for `semi-med label` from constraints-label.txt
# make demo    drawings -> two trainings -> a report, in demo/
# make bundles write the committed bundles again from semi_med/recipes
# make lint    ruff and mypy
# make clean   remove what these commands made, but not the environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL := -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/python $(INSTALL) --constraint constraints.txt
LABEL_VENV ?= .venv-label
LABEL_BIN := $(LABEL_VENV)/bin
LABEL_STAMP := $(LABEL_VENV)/.installed
LABEL_PIP := $(LABEL_BIN)/python $(INSTALL)

.PHONY: test label demo bundles lint clean

test: lint $(LABEL_STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu"
	OMP_NUM_THREADS=1 $(LABEL_BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu" tests/label_app

label: $(LABEL_STAMP)

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

# the same, but that nothing is resolved after torch: see constraints-label.txt
$(LABEL_STAMP): pyproject.toml constraints-label.txt
	test -x $(LABEL_BIN)/python || $(PYTHON) -m venv $(LABEL_VENV)
	$(LABEL_PIP) --constraint constraints-label.txt torch
	$(LABEL_PIP) --no-deps --requirement constraints-label.txt
	$(LABEL_PIP) --no-deps --editable .
	touch $@

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find semi_med tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
