PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
.PHONY: serve test zoo check bench plot clean
.DELETE_ON_ERROR:

serve: $(VENV)/.daemon ## install what serving needs and start the daemon
	$(BIN)/delen-daemon

test: $(VENV)/.test check ## run all checks and tests
	OMP_NUM_THREADS=1 $(PYTEST) tests/multiexit_models tests/unit
	$(PYTEST) tests/e2e tests/integration

zoo: $(VENV)/.test ## export every network of the zoo and hold it against torch
	$(BIN)/pytest tests/multiexit_models/export/test_zoo.py -m 'zoo or not zoo'

check: $(VENV)/.test ## lint, types and layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test ## every claim of the README on speed, size and accuracy
	$(BIN)/python -m benchmarks

plot: $(VENV)/.test ## docs/exits.png from this machine's own profile
	$(BIN)/python -m benchmarks.plot_exits docs/exits.png

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.daemon: setup.py delen/version.py | $(VENV)/bin/python
	$(PIP) install -q -e '.[daemon]'
	touch $@

$(VENV)/.test: $(VENV)/.daemon
	$(PIP) install -q -e '.[daemon,train,wav2vec2,plot,test,check]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
