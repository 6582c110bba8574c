# Everything from nothing: `make study` runs the main study, `make test` the whole suite.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?= shift_vs_selector.yaml
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: study test check docs bench clean

study: $(VENV)/installed
	$(BIN)/ablate study $(STUDY)

test: $(VENV)/installed-dev check
	$(BIN)/python -m pytest -n auto --dist loadfile

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The reference from the code, the notebook from its cells; a test fails where they differ.
docs: $(VENV)/installed
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/notebook.py

bench: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/bench -m bench -q

# torch first and pinned: it takes a CPU build where one is at hand, and an open range would not.
$(VENV)/installed: setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip setuptools
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(PIP) install -c constraints.txt --no-deps axe-playwright-python # for the axe.min.js in it alone
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
