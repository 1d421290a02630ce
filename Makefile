# `make demo` and `make test` each set up what they need. PYTHON chooses the interpreter (3.11 to 3.13).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
LOCK := pyproject.toml --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

.DEFAULT_GOAL := help
.PHONY: help setup demo test suite test-stack endurance soak fuzz lint influxd browser bench faults pictures notebook lock clean
# Hundreds of processes are started here. Without .pyc files each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: $(VENV)/.demo ## train on real prices with a fault put in, score it, write the report
	@$(BIN)/gatewatch demo

test: setup lint suite ## run the whole suite

# More processes than the two cores of a small machine: tests wait a lot, for servers, clocks and each other.
suite: setup
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-stack: setup ## run the stack of docker-compose.yml in containers (about 4 minutes; the first time 10 more)
	@tools/system-packages docker
	@{ tools/build-compose && tools/build-base; } >/dev/null || [ $$? -eq 3 ] # the tests say what is missing
	$(BIN)/python -m pytest -x tests/stack/check_stack.py

endurance: setup ## kill 100 trainings, take the server away for two minutes, start children, pools and ranks (about 10 minutes)
	$(BIN)/python -m tests.endurance kill
	$(BIN)/python -m tests.endurance outage
	$(BIN)/python -m tests.processes

soak: setup ## kill the service 20 times and stop its server twice, and count what it wrote (about 2 minutes)
	$(BIN)/python -m tests.soak

fuzz: $(VENV)/.dev ## damaged files, odd names and wrong answers: 5,000 cases (about 20 minutes)
	$(BIN)/python -m tests.fuzz --cases 5000

setup: $(VENV)/.dev browser ## install everything that the tests need, influxd and a browser included
	@tools/system-packages build >&2
	@tools/build-influxd || { [ $$? -eq 3 ] && [ -z "$$CI" ] && echo "make: the tests that need influxd are skipped" >&2; }

lint: $(VENV)/.dev ## check style, types and the lines between the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	tools/mypy
	$(BIN)/lint-imports

influxd: ## build influxd where needed (about 10 minutes, once) and print its path
	@tools/system-packages build >&2
	@tools/build-influxd

browser: ## install Chromium for the tests of the report, where that is possible
	@tools/system-packages browser

bench: setup ## measure what watching costs, shipping, the encoder, the jobs and the dashboards, beside their peers (about an hour)
	$(BIN)/python -m bench.collector
	$(BIN)/python -m bench.jobs
	$(BIN)/python -m bench.dashboards

faults: setup ## train with faults put in, and print what each detector finds of them (about an hour on two cores the first time)
	$(BIN)/python -m bench.faults

pictures: setup demo ## take the pictures of the live page that README shows, from the runs of the demo
	$(BIN)/python -m tests.pictures sqlite:///gatewatch-demo/gatewatch.db docs/images

notebook: setup ## run docs/notebook.ipynb, and draw the pictures of docs/figures.md
	$(BIN)/python tools/notebook.py

lock: $(VENV)/.dev ## pin every dependency anew
	$(BIN)/uv pip compile $(LOCK) --extra demo --group build -o requirements/demo.txt
	$(BIN)/uv pip compile $(LOCK) --extra demo --group dev -c requirements/demo.txt -o requirements/dev.txt
	$(BIN)/uv pip compile $(LOCK) --extra jobs --extra dask --group build -c requirements/dev.txt -o requirements/jobs.txt

clean: ## remove what was installed and generated here
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis gatewatch-demo

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "make: $(PYTHON) must be Python 3.11, 3.12 or 3.13, which TensorFlow has packages for; choose one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(BIN)/python
	@echo "Installing what the demo needs into $(VENV) (once)"
	@$(PIP) install --require-hashes -r requirements/demo.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# uv takes packages from its cache in seconds where pip takes minutes; the hashes are the same. Where it cannot, pip can.
$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(BIN)/python
	@echo "Installing what the tests need into $(VENV) (once; torch alone is 3 GB)"
	@sed -n '/^uv==/,/[^\\]$$/p' requirements/dev.txt >$(VENV)/uv.txt
	@$(PIP) install --require-hashes -r $(VENV)/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt \
	  || $(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@tools/bytecode || echo "make: what is imported is compiled when it is imported" >&2
	@touch $(VENV)/.demo $@
