PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
# The tests of export and training run on any torch of this release; its CPU build is enough.
TORCH ?= torch==2.13.0

.PHONY: serve test check bench plot docs clean
.DELETE_ON_ERROR:

serve: $(VENV)/.daemon ## install what serving needs and start the daemon
	$(BIN)/delen-daemon

test: $(VENV)/.test check ## run all checks and tests
	$(BIN)/pytest

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
	$(PIP) install -q '$(TORCH)'
	$(PIP) install -q -e '.[daemon,test,check,plot]' onnx onnxscript tqdm
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
