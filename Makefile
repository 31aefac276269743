# Everything a newcomer or a contributor runs. `make` alone lists it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := build,minilm,train,report,dev

.PHONY: help install demo test test-slow check format bench clean

help:
	@echo "make install   a virtual environment in $(VENV) with everything"
	@echo "make demo      build domains from text, train, compare, show the report (CORPUS=path for your own text)"
	@echo "make test      the test suite"
	@echo "make test-slow hundreds of kills at random moments instead of a few dozen, and most tests on Ray clusters"
	@echo "make check     formatting, lint, types, import directions"
	@echo "make format    apply formatting and the fixable lint"
	@echo "make bench     the stream beside its limits and its peers, in an environment of its own (an hour)"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Braidstream needs Python 3.11 or newer; this is %s. Say which one to use: make PYTHON=python3.12 install" % sys.version.split()[0])'
	@echo "Installing into $(VENV): about 8 GB, most of it torch; some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

demo: install
	$(BIN)/python examples/demo.py --out demo-run $(if $(CORPUS),--corpus "$(CORPUS)")

# One thread per worker: the tests run side by side, each worker's in a row, so that few fixtures are made twice.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --timeout 900

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The peers have pins of their own, so they live in an environment of their own.
$(VENV)/bench/.installed: pyproject.toml benchmarks/requirements.txt
	$(PYTHON) -m venv $(VENV)/bench
	$(VENV)/bench/bin/python -m pip install --quiet --editable . --requirement benchmarks/requirements.txt
	@touch $@

bench: $(VENV)/bench/.installed
	$(VENV)/bench/bin/python -m benchmarks.stream
	$(VENV)/bench/bin/python -m benchmarks.object_storage

clean:
	rm -rf $(VENV) demo-run .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
