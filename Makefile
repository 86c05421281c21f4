# Each target makes .venv if there is none, installs what it needs, and does its job.

PYTHON ?= python3
# The DALI wheel for the driver's CUDA version; either also works on a machine without a GPU.
DALI ?= $(shell nvidia-smi 2>/dev/null | grep -q 'CUDA Version: 12' && echo cuda12 || echo cuda13)
# Processes that share the tests. Each uses one thread for torch and BLAS, so that two do not compete for two cores. The
# commands that train use more: OpenMP's threads sleep while they wait for each other, rather than keep a core busy,
# which once took seven times the processor time beside other work.
PROCESSES ?= 2
BIN := .venv/bin
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist worksteal

.PHONY: demo notebook test test-all soak bench lint dist clean

# Draws a small dataset and trains ResNet-18 on it from random weights: about a minute on two cores. Only the
# installation before it needs a network.
demo: .venv/with-$(DALI)
	$(BIN)/python -m fastpets.train --data sample --arch resnet18 --weights none \
		--size 64 --batch-size 32 --epochs 20 --lr 6e-3

# Executes the notebook, which downloads Oxford-IIIT Pet and weights unless FASTPETS_PETS and FASTPETS_WEIGHTS name them,
# and writes docs/pet_breeds.html.
notebook: .venv/with-$(DALI),timm,notebook
	$(BIN)/jupyter nbconvert --execute --to html docs/pet_breeds.ipynb

# Runs all tests but those marked slow.
test: .venv/with-$(DALI),test
	$(PYTEST) -m 'not slow'

test-all: test .venv/with-$(DALI),test,clients
	$(PYTEST) -m slow

# Fuzzes the check, the loader, and the readers of tables and shards with damaged files for a quarter of an hour.
soak: .venv/with-$(DALI),test
	$(BIN)/python -m tests.fuzz --files 100000 --loader-files 10000 --tables 10000 --shards 10000
	$(BIN)/python -m tests.fuzz_metadata --files 10000

bench: .venv/with-$(DALI),test,bench
	$(BIN)/python -m pytest bench --benchmark-enable --benchmark-only --benchmark-json=.benchmarks.json
	$(BIN)/python -m bench.growth .benchmarks.json bench/growth.png

lint: .venv/with-$(DALI),test,dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

dist: .venv/with-$(DALI),test,dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist

.venv/with-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch '$@'

clean:
	rm -rf .venv dist build *.egg-info .benchmarks.json .import_linter_cache
