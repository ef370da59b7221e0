# Two commands: `make report` and `make test`. Both make the environment first.

STUDY ?= quick
JOBS ?=
SEEDS ?=
SHORT ?=
PYTHON ?= python3

BIN := .venv/bin
OPTIONS := $(if $(JOBS),--jobs $(JOBS)) $(if $(SEEDS),--seeds $(SEEDS))

.PHONY: help report status test bench lab lock

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo 'Variables:    STUDY=quick  SEEDS="1 2 3"  JOBS=2  SHORT=1  PYTHON=python3 (3.11 or newer)'

report: .venv/ready ## execute what is missing of STUDY and write figures/STUDY/report.pdf
	@$(BIN)/python -m lib.study run $(STUDY) --report $(OPTIONS)

status: .venv/ready ## show each run of STUDY: done, running, failed and why, or waiting
	@$(BIN)/python -m lib.study status $(STUDY) $(if $(SEEDS),--seeds $(SEEDS))

test: .venv/ready ## run the test suite and the linter
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

bench: .venv/ready ## measure training, inference and fixed costs against code in the usual style (SHORT=1: 3 minutes)
	@$(BIN)/python -m lib.bench $(if $(SHORT),--short)

lab: .venv/ready ## open JupyterLab
	@$(BIN)/jupyter lab notebooks

# uv, itself from the package index, installs the pinned list in parallel; the sentinel is written last. Byte code is
# compiled here (20 s): where Python may not write it, each start of torch would take 5 s more.
.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	@echo "Installing the pinned environment into .venv (about 6 GB with torch's CUDA build) ..."
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

lock: .venv/ready ## pin the newest versions that pyproject.toml allows
	@$(BIN)/uv pip compile pyproject.toml --extra test --universal --python-version 3.11 --no-annotate --no-header --upgrade --quiet -o requirements.lock
