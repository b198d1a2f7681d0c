# make train   install, meta-train a point-navigation policy, evaluate it, plot the adaptation
# make test    install, then lint, types, architecture and tests
# make lint    install, then lint, types and architecture
# make clean   remove the environment and the caches; runs stay
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUN    := runs/quickstart

.DEFAULT_GOAL := help
.PHONY: help install train lint test clean

help:
	@sed -n 's/^# make/make/p' Makefile

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "metarl needs Python 3.11 or newer, and $(PYTHON) is %d.%d; name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

# a run that was interrupted goes on; one that is complete is evaluated again
train: install
	@if [ ! -e $(RUN)/state.json ]; then $(BIN)/metarl train quickstart --out $(RUN); \
	elif [ -e $(RUN)/evaluation.json ]; then $(BIN)/metarl evaluate $(RUN); \
	else $(BIN)/metarl train --resume $(RUN); fi

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: lint
	$(BIN)/pytest --durations=5

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
