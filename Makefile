# `make demo` and `make test` do all the set-up themselves. PYTHON chooses the interpreter (>= 3.11).
PYTHON ?= python3
# Number of processes that run the tests. Each of them computes with one thread.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := src tests benchmarks docs setup.py
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check format fuzz audit bench clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## Install the project and its tools into .venv

$(INSTALLED): pyproject.toml constraints.txt setup.py $(wildcard src/retinanet/ops/native/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, found " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# Without its dependencies: it wants opencv-python, which needs a display's libraries and would replace the headless one.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps trackers
	@touch $@

demo: install  ## Make scenes, train on them, evaluate, draw: runs/demo/report.html
	$(BIN)/retinanet demo

test: install  ## Run the fast tests
	HYPOTHESIS_PROFILE=fast $(PYTEST) -m "not slow and not gpu"

test-all: install  ## Run all tests, the slow ones too
	$(PYTEST)

check: install  ## Lint, types, layers, spelling
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/lint-imports --config .importlinter-torch.toml
	$(BIN)/codespell $(SOURCES) docs README.md CHANGELOG.md CONTRIBUTING.md pyproject.toml Makefile

format: install  ## Put the code into the project's format
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

SECONDS ?= 60
fuzz: install  ## Fuzz every reader of untrusted input for SECONDS each (Linux, Python 3.11 to 3.13)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	@broke=0; for target in $$($(BIN)/python tests/fuzz/run.py --list); do \
	  echo "fuzz $$target"; $(BIN)/python tests/fuzz/run.py $$target -max_total_time=$(SECONDS) -print_final_stats=1 \
	    > build-fuzz.log 2>&1 || { broke=1; grep -a -A30 "Uncaught\|SUMMARY" build-fuzz.log; }; \
	done; rm -f build-fuzz.log; exit $$broke

audit: install  ## Known vulnerabilities of the pinned packages; needs a service that knows them, and fails without
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

bench: install  ## Compare with peers; takes long and wants a quiet machine
	$(BIN)/python benchmarks/run_all.py

clean:  ## Remove what was installed and built
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
