# `make run` and `make test` need Python 3.10 or later and nothing else: each makes the virtual environment it uses.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What takes minutes for itself is apart: `make interop` (the real nameko), `make faults` (RabbitMQ cut and killed).
APART := tests.faults tests.interop
PACKAGES := $(patsubst tests/%/__init__.py,tests.%,$(wildcard tests/*/__init__.py))
MODULES := $(patsubst tests/%.py,tests.%,$(wildcard tests/test_*.py))
# What has the longest tests goes first, then the modules: at the end one process would wait for another's long test.
FIRST := tests.serialization tests.testing tests.page tests.web
TESTS ?= $(FIRST) $(MODULES) $(filter-out $(APART) $(FIRST),$(PACKAGES))
# How many processes run the tests; 1 runs them in make's own order. More than there are cores, since many tests wait; but
# each takes some four seconds of the processor for itself.
JOBS ?= $(shell echo $$(($$(nproc 2>/dev/null || echo 1) + 2)))
TRIAL := twisted.trial $(if $(filter-out 1,$(JOBS)),-j$(JOBS))
BRANCHES := import json; found = json.load(open("build/coverage.json"))["totals"]; \
	print("branches: {covered_branches} of {num_branches}, {percent_branches_covered:.1f} %".format(**found))

.PHONY: help run compiled test oldest slowest coverage trixie interop faults soak mutants lint docs bench pictures clean

help:
	@echo "make run    the example services on the embedded broker, a page that shows them, and what to type to call them"
	@echo "make test   the suite on every core (TESTS=tests.test_rpc for a part, JOBS=1 for one process)"
	@echo "make oldest  the suite with the oldest version of everything that pyproject.toml allows (PYTHON=python3.10)"
	@echo "make slowest  the tests that take longest, by clock and by processor (TESTS=tests.broker for a part)"
	@echo "make coverage  the suite, and what of txservices/ it runs: lines and branches, not fewer than pyproject.toml says"
	@echo "make trixie  the suite on Debian 13, with RabbitMQ 4.0 and Python 3.13 (as root, on a Debian with debootstrap)"
	@echo "make interop  with the real nameko in one cluster, in environments that it makes"
	@echo "make faults   RabbitMQ cut, killed and starved, in the long form: a cluster, more deaths, more seeds"
	@echo "make soak     ten minutes at load, after which no memory, file, channel or queue is kept (SOAK_SECONDS=60 for less)"
	@echo "make mutants  changes that no test notices (SAMPLE=20 of each module, all without it; MUTATED='rpc events' for some)"
	@echo "make lint   ruff, and mypy: --strict on txservices/, less on tests/"
	@echo "make docs   the guide, in build/docs/; a warning is an error"
	@echo "make bench  the benchmarks"
	@echo "make pictures  those of the page in the guide, taken of a real browser by its test"
	@echo "make clean  take away the virtual environment and everything made"

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed, $(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip' || { echo "$(PYTHON) has no venv: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(VENV)/installed
	$(BIN)/txservices run --page examples.rpc examples.events examples.event_broadcast examples.http examples.advanced_http

# Tests start hundreds of processes. Each would compile the package anew where PYTHONDONTWRITEBYTECODE is set, as in many
# containers: half of what it costs.
compiled: $(VENV)/installed
	@$(BIN)/python -m compileall -q txservices tests examples

test: compiled
	$(BIN)/python -m $(TRIAL) $(TESTS)

# pip reads PIP_CONSTRAINT, also in the test that installs the wheel.
oldest: build/oldest.txt
	PIP_CONSTRAINT=$(CURDIR)/$< $(MAKE) test VENV=build/oldest

build/oldest.txt: pyproject.toml
	@mkdir -p build
	@grep -oE '"[A-Za-z0-9_-]+(\[[a-z,]+\])?>=[0-9.]+"' $< | sed -E 's/"|\[.*\]//g; s/>=/==/' | sort -u >$@

slowest: compiled
	$(BIN)/python -m tests.slowest $(TESTS)

coverage: compiled
	@mkdir -p build && $(BIN)/coverage erase
	$(BIN)/coverage run -m $(TRIAL) $(TESTS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage json --quiet --fail-under=0 -o build/coverage.json && $(BIN)/python -c '$(BRANCHES)'
	@$(BIN)/coverage report

trixie:
	.ci/trixie

interop: compiled
	$(BIN)/python -m twisted.trial tests.interop

faults: compiled
	FAULTS_FULL=1 $(BIN)/python -m twisted.trial tests.faults

soak: $(VENV)/installed
	$(BIN)/python -m twisted.trial tests.faults.soak

mutants: $(VENV)/installed
	$(BIN)/python -m tests.mutants $(MUTATED) $(if $(SAMPLE),--sample $(SAMPLE))

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/installed
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

pictures: $(VENV)/installed
	@mkdir -p docs/images
	PAGE_PICTURES=$(CURDIR)/docs/images $(BIN)/python -m twisted.trial tests.page.test_browser

clean:
	rm -rf $(VENV) .nameko-* _trial_temp* .mypy_cache .ruff_cache dist build
