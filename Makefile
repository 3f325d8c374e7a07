PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Without a GPU the constraints file keeps torch to its CPU build.
CONSTRAINTS := $(if $(shell command -v nvidia-smi),,-c constraints-cpu.txt)
export HF_HUB_OFFLINE := 1

.PHONY: demo test check setup tiny-checkpoints chaos clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints-cpu.txt
	@$(PYTHON) -c 'import ensurepip, venv' || { echo 'Python lacks venv: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(CONSTRAINTS) -e '.[bench,test,check]'
	touch $@

demo: setup
	$(BIN)/disp demo --out disp-demo --json disp-demo/report.json

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

tiny-checkpoints: setup
	$(BIN)/python -m disp_engine.builtin.recipe --out build/tiny-checkpoints

chaos: setup
	$(BIN)/python -m tests.e2e.chaos --rounds $(or $(ROUNDS),20) --json $(or $(JSON),chaos.json)

clean:
	rm -rf build disp-demo disp-data
