# `make sweep` and `make test` set everything up themselves; afterwards call `snakemake` from .venv as you like.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
CORES ?= all
# As many as jobs could use: CUDA_VISIBLE_DEVICES counts, else the driver is asked. GPUS=0 computes on the CPU.
GPUS ?= $(shell PYTHONPATH=workflow $(PYTHON) -c 'from atlas.gpu_lease import visible_gpus; print(len(visible_gpus()))')
# Files of tests run at a time; each may start a workflow of two jobs.
TESTERS ?= 2
# Peers' tools that tests run (SAELens, dictionary_learning, sparsify, Delphi, …), each installed once for all checkouts with
# the same pins.
PINS := $(shell cat envs/peers/*.txt envs/kubernetes.txt envs/triton.txt | git hash-object --stdin | cut -c 1-12)
export ATLAS_TEST_ENVIRONMENTS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sae-atlas/test-environments-$(PINS)

# Of a call that was killed: kill -9, a closed terminal or a power cut leave Snakemake's lock.
UNLOCK = @PYTHONPATH=workflow $(BIN)/python -m atlas.unlock $(BIN)/snakemake

.PHONY: sweep atlas test test-fast lint format docs lock clean

sweep: $(READY)  ## results/llama_sweep.csv and its figure
	$(UNLOCK)
	$(BIN)/snakemake --cores $(CORES) --resources gpu=$(GPUS) -- results/llama_sweep.csv results/figures/llama_sweep.pdf

atlas: sweep  ## the sweep, and results/atlas/index.html with labels
	$(BIN)/snakemake --cores $(CORES) --resources gpu=$(GPUS) -- results/atlas/index.html

test: $(READY)  ## all tests
	$(BIN)/python -m pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder

test-fast: $(READY)  ## unit tests only
	$(BIN)/python -m pytest -m "not slow"

lint: $(READY)  ## what CI checks besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

docs: $(READY)  ## config/config.schema.json and the key table of config/README.md, from the typed models
	PYTHONPATH=workflow $(BIN)/python -m atlas.config.reference

lock: $(READY)  ## pin what requirements.in needs
	$(BIN)/pip install --requirement envs/requirements.in
	$(BIN)/pip freeze --exclude pip --exclude setuptools | sed 's/+cpu$$//' > envs/requirements.txt

clean:  ## the environments; results stay
	rm -rf $(VENV) $(ATLAS_TEST_ENVIRONMENTS)

# Made anew only when a pin changes.
$(READY): envs/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=python3.x") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement envs/requirements.txt
	@touch $(READY)
