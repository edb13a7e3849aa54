PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
EXTRAS := daemon,grpc,fleet,otel,audio,video,train,wav2vec2,plot,test,check
# constraints/py311.txt holds the tested versions for Python 3.11, and so on. For a Python without
# a file pip takes the newest versions within the bounds of setup.py. `make constraints` moves the
# file of this Python to these; run `make test` before you commit it.
minor = $(shell $(1) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
TESTED = $(wildcard constraints/$(call minor,$(BIN)/python).txt)
INSTALL = $(PIP) install -q $(TESTED:%=-c %)
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
VERSION = $(shell $(PYTHON) -c 'exec(open("delen/version.py").read()); print(VERSION)')
PYTHONS ?= python3.10 python3.11 python3.12 python3.13
.PHONY: serve test zoo check bench trust results plot constraints proto dist pythons deb deb-check clean
.DELETE_ON_ERROR:

serve: $(VENV)/.daemon ## install what serving needs and start the daemon
	$(BIN)/delen-daemon

test: $(VENV)/.test check ## run all checks and tests
	OMP_NUM_THREADS=1 $(PYTEST) tests/multiexit_models tests/unit
	$(PYTEST) tests/e2e tests/integration

zoo: $(VENV)/.test ## export every network of the zoo, and build backbones of torchvision and timm
	$(BIN)/pytest tests/multiexit_models/export/test_zoo.py -m 'zoo or not zoo'
	$(BIN)/python -m benchmarks backbones

check: $(VENV)/.test ## lint, types, layers and images
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile docker/jetson.Dockerfile

bench: $(VENV)/.test ## every claim beside its baseline
	$(BIN)/python -m benchmarks

trust: $(VENV)/.test ## faults of every kind under load; trust_kills and trust_soak are its long form
	$(BIN)/python -m benchmarks trust

results: plot ## docs/results.md: what bench prints, on this machine; a missed claim is no failure
	$(BIN)/python -m benchmarks --markdown docs/results.md || test $$? -eq 1

plot: $(VENV)/.test ## docs/exits.png from this machine's own profile
	$(BIN)/python -m benchmarks.plot_exits docs/exits.png

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.daemon: setup.py delen/version.py $(wildcard constraints/*.txt) | $(VENV)/bin/python
	@$(if $(TESTED),,echo "constraints/ has no versions for this Python: installing the newest")
	$(INSTALL) -e '.[daemon,audio]'
	touch $@

$(VENV)/.test: $(VENV)/.daemon
	$(INSTALL) -e '.[$(EXTRAS)]'
	touch $@

constraints: FRESH := build/constraints
constraints: ## move the tested versions to the newest within the bounds of setup.py
	$(PYTHON) -m venv --clear $(FRESH)
	$(FRESH)/bin/pip --disable-pip-version-check install -q -e '.[$(EXTRAS)]'
	$(FRESH)/bin/pip freeze --exclude-editable > $(FRESH)/frozen
	mkdir -p $@
	(echo "# What make serve and make test install on this minor version of Python. make constraints"; \
	 echo "# moves it, make test tests it. Resolved by $$($(PYTHON) -V) on $$(uname -sm)."; \
	 sed -n 's/^\([A-Za-z0-9._-]*==[^+ ]*\).*/\1/p' $(FRESH)/frozen) > $@/$(call minor,$(PYTHON)).txt
	rm -rf $(FRESH)

proto: $(VENV)/bin/python ## api/oip/inference.desc from the .proto beside it
	$(INSTALL) grpcio-tools
	$(BIN)/python -m grpc_tools.protoc -I api/oip --descriptor_set_out=api/oip/inference.desc inference.proto

dist: $(VENV)/bin/python ## the sdist, and the wheel that is built from it
	$(INSTALL) build
	$(BIN)/python -m build

pythons: dist ## install the wheel in an empty environment of each of PYTHONS, and have it answer
	for python in $(PYTHONS); do \
	  $$python -m venv --clear build/pythons/$$python && \
	  build/pythons/$$python/bin/pip install -q 'dist/delen-$(VERSION)-py3-none-any.whl[daemon,audio,grpc]' && \
	  echo "$$($$python -V): $$(tests/installed.sh $(CURDIR)/build/pythons/$$python/bin $(CURDIR)/docs/cat.png)" || exit 1; \
	done

deb: ## a package for the Debian or Ubuntu of this machine, in dist/; debhelper builds it
	deb/build.sh

deb-check: ## install that package in a Debian made by debootstrap, have it answer, remove it; as root
	deb/check.sh dist/delen_$(VERSION)_$(shell dpkg --print-architecture).deb

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
