# Each target does all the set-up it needs: a machine with Python >= 3.11 and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Threads that wait asleep leave the cores to each other when several processes run, as the tests do (see cli/app.py).
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test check bench links mutants clean
.DELETE_ON_ERROR:

# torch first: whatever depends on it must find exactly this version in place.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "heedful needs Python 3.11 or newer, and '$(PYTHON)' is older: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

demo: $(READY)
	$(BIN)/heedful demo --dir demo-run

# Two processes of one thread each are twice as fast as one of two; a file's tests share their models, so files stay whole.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python benchmarks/run.py $(BENCH)

links: $(READY)
	$(BIN)/python tests/support/line_links.py --fix

# From nothing each time: mutmut would not try a survivor again on account of a new test.
mutants: $(READY)
	rm -rf mutants
	OMP_NUM_THREADS=1 $(BIN)/mutmut run
	$(BIN)/python tests/mutants.py

clean:
	rm -rf $(VENV) build dist mutants .mypy_cache .ruff_cache .pytest_cache .hypothesis
