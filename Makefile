# Each target does all its set-up; the machine needs Python >= 3.10 with venv and pip, and make.
PYTHON ?= python3
OLDEST_RAY := 2.52.0

PIP := -m pip --disable-pip-version-check --quiet
BIN := .venv/bin
# Tests that need it are skipped, or with CI=true fail, where it could not be made (no wheel for this Python).
export OLDEST_RAY_PYTHON := $(CURDIR)/.venv-oldest/bin/python
# Those of examples/frameworks/ whose jobs `make test` runs; the same holds for each.
FRAMEWORKS := daft modin verl

# pytest keeps the tests as it has rewritten them; without that each of its processes takes 2 s longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test unit framework lint bench clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile
	@echo
	@echo 'PYTHON=python3.12 make ...  takes another Python (make clean first).'
	@echo 'PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test  takes the small build of torch.'

demo: .venv/runtime.stamp ## a cluster of four nodes on this machine, without root, and a workload that says what it found
	$(BIN)/ray-bootstrap rehearse --nodes 4 -- $(BIN)/python examples/count_gpus.py --nodes 4

# Three times as many processes as the cores of a small machine: half of the time they wait for agents.
UNIT := $(BIN)/pytest -n 6 --dist worksteal -m "not hosts and not ray"
# These wait for a third of their time: on two cores two files at once take 14 minutes, one by one 21.
HOSTS := $(BIN)/pytest -n 2 --dist loadfile -m "hosts or ray"

# In one shell and with &&, so that the last line is the summary of what decided.
test: lint .venv-oldest/test.stamp $(FRAMEWORKS:%=.frameworks/%/stamp) ## every check and every test; says what it skipped and why, and with CI=true skips nothing
	@$(UNIT) && $(HOSTS)

unit: .venv/test.stamp ## the tests that need neither root nor Ray's processes: three minutes on two cores
	@$(UNIT)

framework: .frameworks/$(NAME)/stamp ## as root: a framework's job on two nodes made on this machine; make framework NAME=modin
	@$(BIN)/python examples/frameworks/try.py $(NAME)

lint: .venv/test.stamp ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

BENCH := $(BIN)/python benchmarks/cluster.py
RESULTS := benchmarks/results

bench: .venv/test.stamp ## every figure of benchmarks/README.md but the roll call's, anew; 35 minutes, as root, on a quiet machine
	@$(BIN)/python $(PIP) install -e .[bench]
	$(BENCH) ready --nodes 2 --rounds 1  # warms the page cache for all alike
	rm -f $(RESULTS)/*.json
	$(BENCH) ready --nodes 2 --rounds 5 --save $(RESULTS)/ready.json
	$(BENCH) ready --nodes 1 4 --rounds 3 --save $(RESULTS)/ready.json
	$(BENCH) ready --nodes 2 --rounds 2 --late 0:5 --save $(RESULTS)/ready.json
	$(BENCH) ready --nodes 2 --rounds 2 --late 1:5 --save $(RESULTS)/ready.json
	$(BENCH) release --nodes 2 --rounds 1 --save $(RESULTS)/end.json
	$(BENCH) head-loss --nodes 2 --rounds 1 --save $(RESULTS)/end.json
	$(BENCH) release --nodes 4 --rounds 3 --only ray-bootstrap --save $(RESULTS)/end.json
	$(BENCH) head-loss --nodes 4 --rounds 3 --only ray-bootstrap --save $(RESULTS)/end.json
	$(BENCH) idle --nodes 2 --rounds 1 --save $(RESULTS)/idle.json
	$(BENCH) ready --nodes 2 --rounds 5 --only ray-bootstrap "ray-bootstrap, TLS" --save $(RESULTS)/tls.json
	$(BENCH) traffic --nodes 2 --rounds 5 --only ray-bootstrap "ray-bootstrap, TLS" --save $(RESULTS)/tls.json
	$(BENCH) idle --nodes 2 --rounds 1 --only ray-bootstrap "ray-bootstrap, TLS" --save $(RESULTS)/tls.json
	$(BIN)/python benchmarks/end.py slurm --nodes 4 --rounds 3
	$(BIN)/python benchmarks/end.py pods --nodes 4 --rounds 3
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/plot.py

clean: ## removes what the targets made
	rm -rf .venv .venv-oldest .frameworks build *.egg-info

.venv/runtime.stamp: pyproject.toml
	@echo "setting up .venv ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(PIP) install --upgrade pip
	@$(BIN)/python $(PIP) install -e .
	@touch $@

.venv/test.stamp: .venv/runtime.stamp
	@echo "setting up .venv for the tests (with torch) ..."
	@$(BIN)/python $(PIP) install -e '.[dev,train-test,serve-test]'
	@touch $@

.venv-oldest/test.stamp: pyproject.toml
	@echo "setting up .venv-oldest with Ray $(OLDEST_RAY) ..."
	@rm -rf .venv-oldest
	@if $(PYTHON) -m venv .venv-oldest \
	    && .venv-oldest/bin/python $(PIP) install --upgrade pip \
	    && .venv-oldest/bin/python $(PIP) install -e . 'ray[default]==$(OLDEST_RAY)'; \
	then touch $@; \
	else rm -rf .venv-oldest; echo "no environment with Ray $(OLDEST_RAY): its tests cannot run"; fi

# Beside .venv, which has Ray and torch: without --no-deps pip would install those again, or refuse them for a framework's pins.
.frameworks/%/stamp: examples/frameworks/%/requirements.txt .venv/test.stamp
	@echo "setting up $(@D) ..."
	@rm -rf $(@D)
	@if $(BIN)/python $(PIP) install --no-deps --target $(@D) -r $<; \
	then touch $@; \
	else rm -rf $(@D); echo "$* could not be installed: its tests cannot run"; fi

# One that is run from its source: the file has the repository and the revision.
.frameworks/%/stamp: examples/frameworks/%/source .venv/test.stamp
	@echo "fetching $(@D) ..."
	@rm -rf $(@D)
	@git init -q $(@D) && git -C $(@D) fetch -q --depth 1 $$(cat $<) && git -C $(@D) checkout -q FETCH_HEAD && touch $@
