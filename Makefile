# Everything a newcomer or a contributor runs. `make` alone lists it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS := build,minilm,train,report,dev

.PHONY: help install demo test check format bench clean

help:
	@echo "make install   a virtual environment in $(VENV) with everything"
	@echo "make demo      build domains from text, train, compare, show the report (CORPUS=path for your own text)"
	@echo "make test      the test suite"
	@echo "make check     formatting, lint, types, import directions"
	@echo "make format    apply formatting and the fixable lint"
	@echo "make bench     the stream beside its limit and its peers"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Braidstream needs Python 3.11 or newer; this is %s. Say which one to use: make PYTHON=python3.12 install" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

demo: install
	$(BIN)/python examples/demo.py --out demo-run $(if $(CORPUS),--corpus "$(CORPUS)")

# One thread per worker: the tests run side by side.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python benchmarks/stream.py

clean:
	rm -rf $(VENV) demo-run .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
