# make train        install; meta-train a half-cheetah that runs forward or backward; train the
#                   baselines; compare them and render the policy: about five minutes on two cores
# make train-point  the same for point navigation, a smaller example
# make test         install the developers' tools, then lint, types, architecture and tests
# make quick        the tests that take less than a second each
# make lint         lint, types and architecture
# make docs         build the documentation into build/site
# make soak         30 minutes of kills, full disks, fuzzing and long runs; make soak MINUTES=3 for a
#                   tenth of it
# make mutants      change 200 places of the core, one by one, and list those that no test notices
# make clean        remove the environment and the caches, but not the runs
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
MINUTES ?= 30
# PyPI's torch for Linux brings gigabytes of CUDA libraries; this index has it without them
CPU_WHEELS ?= https://download.pytorch.org/whl/cpu
# one thread per test process: torch's threads spin while they wait for a core
# idle workers take tests from others; slow tests start first (tests/conftest.py)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto --maxprocesses=8 --dist=worksteal
NAME   ?= quickstart
RUN    := runs/$(NAME)
BASELINES := $(addprefix $(RUN)-,pretrained random oracle)

# 3 of MAML's 11 million environment steps, after which the pretrained policy does not improve
BUDGET_quickstart := --set outer.iterations=18

.DEFAULT_GOAL := help
.PHONY: help install dev train train-point videos test lint quick docs soak mutants clean

help:
	@sed -n '/^PYTHON/q; s/^# //p' Makefile

install: $(VENV)/.installed

dev: $(VENV)/.dev

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "metarl needs Python 3.11 or newer, and $(PYTHON) is %d.%d; name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -m venv $(VENV)
	@if [ "$$(uname)" != Linux ]; then :; \
	elif $(BIN)/python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=10)' $(CPU_WHEELS)/torch/ 2>/dev/null; then \
		echo "downloading torch for the CPU (about 200 MB) from $(CPU_WHEELS)"; \
		$(PIP) install --quiet --no-deps --constraint constraints.txt torch --index-url $(CPU_WHEELS); \
	else \
		echo "$(CPU_WHEELS) cannot be reached: torch comes from pip's own index, where the wheel for Linux brings CUDA's libraries (3 GB) unless that index has a CPU wheel"; \
	fi
	@echo "installing metarl and its dependencies (MuJoCo, gymnasium, ...: about 300 MB) into $(VENV)"
	@$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "installing the tools of developers into $(VENV)"
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	@# 37 MB of models, to compare with; what it depends on would replace MuJoCo by an old version
	@$(PIP) install --quiet --no-deps --constraint constraints.txt metaworld
	@touch $@

# the baselines run side by side, on one core each
train: $(RUN)/evaluation.json
	@echo "training the baselines side by side; their progress is in $(RUN)-*.log"
	@METARL_THREADS=1 OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --jobs 2 NAME=$(NAME) $(BASELINES:%=%/evaluation.json)
	@$(BIN)/metarl compare $(RUN) $(BASELINES) --out $(RUN)-comparison
	@$(MAKE) --no-print-directory NAME=$(NAME) videos

train-point:
	@$(MAKE) --no-print-directory NAME=point_navigation_small train

# continues an interrupted run and keeps a completed one
resume = if [ -e $(@D)/config.yaml ]; then $(BIN)/metarl $(1) --resume $(@D); \
	else $(BIN)/metarl $(1) $(NAME) $(2) --out $(@D); fi

$(RUN)/evaluation.json: | install
	@$(call resume,train)

$(RUN)-%/evaluation.json: | install
	@mkdir -p runs
	@($(call resume,baseline,--kind $* $(BUDGET_$(NAME)))) > $(RUN)-$*.log 2>&1 || { tail -n 3 $(RUN)-$*.log; exit 1; }

VIDEO = $(BIN)/metarl render $(RUN) --steps 0 1
videos:
ifeq ($(NAME),quickstart)
	@$(VIDEO) --task 1 & backward=0; $(VIDEO) --task -1 || backward=1; \
	if wait $$! && [ $$backward = 0 ]; then \
		echo "Look at run-forward.gif and run-backward.gif in $(RUN): the same policy before and after one gradient step."; \
	else \
		echo "There is no video, because this machine cannot render (see above). The table and the plots are complete."; \
	fi
	@echo "In the table, MAML after 1 step is far above the pretrained policy; Finn et al. (2017) have 293 and -25, with three times as many environment steps."
else
	@$(VIDEO) || echo "There is no video, because this machine cannot render (see above)."
endif

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples
	$(BIN)/lint-imports --no-logo

test: lint
	$(PYTEST) --durations=5

quick: dev
	$(PYTEST) -m "not slow"

docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "read it at http://localhost:8000 (the search needs a server): $(BIN)/python -m http.server --directory build/site 8000"

$(VENV)/.docs: $(VENV)/.installed
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[docs]"
	@touch $@

soak: dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py --minutes $(MINUTES)

mutants: dev
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[mutants]"
	$(BIN)/python tests/mutants.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
