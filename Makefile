# make train   install, meta-train on point navigation, train the baselines, compare them all
# make test    install, then lint, types, architecture and tests
# make quick   install, then the tests that take less than a second each
# make lint    install, then lint, types and architecture
# make docs    install, then build the documentation into build/site
# make soak    30 minutes of kills, full disks, fuzzing and long runs; make soak MINUTES=3 for a
#              tenth of it
# make clean   remove the environment and the caches, but not the runs
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
MINUTES ?= 30
# one thread per test process: torch's threads spin while they wait for a core
# idle workers take tests from others; slow tests start first (tests/conftest.py)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto --maxprocesses=8 --dist=worksteal
RUN    := runs/quickstart
RUNS   := $(RUN) $(addprefix $(RUN)-,pretrained random oracle)

.DEFAULT_GOAL := help
.PHONY: help install train lint test quick docs soak clean

help:
	@sed -n '/^PYTHON/q; s/^# //p' Makefile

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "metarl needs Python 3.11 or newer, and $(PYTHON) is %d.%d; name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

train: install $(RUNS:%=%/evaluation.json)
	$(BIN)/metarl compare $(RUNS) --out $(RUN)-comparison

# continues an interrupted run and keeps a completed one
resume = if [ -e $(@D)/config.yaml ]; then $(BIN)/metarl $(1) --resume $(@D); \
	else $(BIN)/metarl $(1) quickstart $(2) --out $(@D); fi

$(RUN)/evaluation.json: | install
	@$(call resume,train)

$(RUN)-%/evaluation.json: | install
	@$(call resume,baseline,--kind $*)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples
	$(BIN)/lint-imports --no-logo

test: lint
	$(PYTEST) --durations=5

quick: install
	$(PYTEST) -m "not slow"

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	@touch $@

soak: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py --minutes $(MINUTES)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
