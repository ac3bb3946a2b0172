# `make sweep` and `make test` set everything up themselves; afterwards call `snakemake` from .venv as you like.
# The Python that makes .venv: the first of these that is new enough. Everything else runs in .venv.
TRIED := python3 python3.13 python3.12 python3.11
PYTHON ?= $(shell for each in $(TRIED); do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
CORES ?= all
# As many as jobs could use: CUDA_VISIBLE_DEVICES counts, else the driver is asked. GPUS=0 computes on the CPU.
GPUS ?= $(shell PYTHONPATH=workflow $(BIN)/python -c 'from atlas.gpu_lease import visible_gpus; print(len(visible_gpus()))')
# Files of tests run at a time; each may start a workflow of two jobs.
TESTERS ?= 2
# Peers' tools that tests run (SAELens, dictionary_learning, sparsify, Delphi, …), each installed once for all checkouts with
# the same pins.
PINS := $(shell cat envs/peers/*.txt envs/kubernetes.txt envs/triton.txt | git hash-object --stdin | cut -c 1-12)
export ATLAS_TEST_ENVIRONMENTS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sae-atlas/test-environments-$(PINS)

# What `make report` shows; it is made first, as far as it is not there.
REPORTED ?= $(addprefix results/,llama_sweep_runs.csv run_cards/llama_sweep.html figures/llama_sweep.pdf \
	figures/llama_sweep_training.pdf)

USEFUL := $(addprefix results/useful_features,.csv _usefulness.csv _health.csv _autointerp.csv _stability.csv \
	_learnt.csv _reading.html) $(addprefix results/,figures/useful_features_usefulness.pdf atlas/index.html)

ifneq ($(words $(CURDIR)),1)
$(error $(CURDIR): this path has a space, with which neither make nor Snakemake's jobs work; move the checkout)
endif

# Of a call that was killed: kill -9, a closed terminal or a power cut leave Snakemake's lock.
UNLOCK = @PYTHONPATH=workflow $(BIN)/python -m atlas.unlock $(BIN)/snakemake

.PHONY: sweep atlas useful report test test-fast test-kernels lint format docs record lock clean

sweep: $(READY)  ## results/llama_sweep.csv and its figure
	$(UNLOCK)
	$(BIN)/snakemake --cores $(CORES) --resources gpu=$(GPUS) -- results/llama_sweep.csv results/figures/llama_sweep.pdf

atlas: sweep  ## the sweep, and results/atlas/index.html with labels
	$(BIN)/snakemake --cores $(CORES) --resources gpu=$(GPUS) -- results/atlas/index.html

useful: $(READY)  ## a dictionary worth reading: its tables, a sheet for blind readers, and its pages in results/atlas
	$(UNLOCK)
	$(BIN)/snakemake --cores $(CORES) --resources gpu=$(GPUS) --configfile config/useful_features.yaml -- $(USEFUL)

report: sweep  ## results/report.zip: Snakemake's report of the sweep, its trainings and run cards
	$(BIN)/snakemake --cores $(CORES) --resources gpu=$(GPUS) -- $(REPORTED)
	$(BIN)/snakemake --report results/report.zip -- $(REPORTED)

test: $(READY)  ## all tests
	$(BIN)/python -m pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder

test-fast: $(READY)  ## unit tests only
	$(BIN)/python -m pytest -m "not slow"

test-kernels: $(READY)  ## the numerical unit tests under other instructions and numbers of threads
	.ci/test-kernels $(BIN)/python $(TESTERS)

lint: $(READY)  ## what CI checks besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/codespell
	PYTHONPATH=workflow $(BIN)/python -m atlas.docs.prose
	$(BIN)/basedpyright
	$(BIN)/snakemake --lint

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

docs: $(READY)  ## what is generated: the key table of config/README.md and its schema, tables in docs/
	PYTHONPATH=workflow $(BIN)/python -m atlas.config.reference
	PYTHONPATH=workflow $(BIN)/python -m atlas.docs.pages

record: $(READY)  ## keep the results that pages show, with this machine's name, in docs/results, and make the pages anew
	PYTHONPATH=workflow $(BIN)/python -m atlas.docs.record

lock: $(READY)  ## pin what requirements.in needs
	$(BIN)/pip install --requirement envs/requirements.in
	$(BIN)/pip freeze --exclude pip --exclude setuptools | sed 's/+cpu$$//' > envs/requirements.txt

clean:  ## the environments; results stay
	rm -rf $(VENV) $(ATLAS_TEST_ENVIRONMENTS)

# Made anew only when a pin changes.
$(READY): envs/requirements.txt
	@test -x $(BIN)/python || $(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; tried: $(or $(PYTHON),$(TRIED)). Install it, or set PYTHON=<its path>"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement envs/requirements.txt
	@touch $(READY)
