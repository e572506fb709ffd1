# The targets install what they need into .venv. PYTHON is the interpreter that creates .venv (>= 3.11).
PYTHON ?= python3
# Number of processes that run the tests: one per core, from 2 to 4. Each process uses one thread.
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 2 ? 2 : n > 4 ? 4 : n)))
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
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python >= 3.11, found " \
	  + sys.version + ": set PYTHON, for example make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# --no-deps: trackers requires opencv-python, which needs display libraries and replaces opencv-python-headless.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps trackers
	@touch $@

demo: install  ## Generate scenes, train, evaluate, and write runs/demo/report.html
	$(BIN)/retinanet demo

test: install  ## Run the fast tests
	HYPOTHESIS_PROFILE=fast $(PYTEST) -m "not slow and not gpu"

test-all: install  ## Run all tests, including the slow tests
	$(PYTEST)

check: install  ## Check style, types, layers and spelling
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/lint-imports --config .importlinter-torch.toml
	$(BIN)/codespell $(SOURCES) docs README.md CHANGELOG.md CONTRIBUTING.md pyproject.toml Makefile

format: install  ## Format the code
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

SECONDS ?= 60
fuzz: install  ## Fuzz each reader of untrusted input for SECONDS seconds (Linux, Python 3.11 to 3.13)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	@broke=0; for target in $$($(BIN)/python tests/fuzz/run.py --list); do \
	  echo "fuzz $$target"; $(BIN)/python tests/fuzz/run.py $$target -max_total_time=$(SECONDS) -print_final_stats=1 \
	    > build-fuzz.log 2>&1 || { broke=1; grep -a -A30 "Uncaught\|SUMMARY" build-fuzz.log; }; \
	done; rm -f build-fuzz.log; exit $$broke

audit: install  ## Search the pinned packages for known vulnerabilities; needs access to pip-audit's service
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

bench: install  ## Run the benchmarks against other projects; takes long and needs an idle machine
	$(BIN)/python benchmarks/run_all.py

clean:  ## Remove .venv and all build files
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
