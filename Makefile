# Each target makes .venv if there is none, installs what it needs, and does its job.

PYTHON ?= python3
# The DALI wheel for the CUDA version in use; either also works on a machine without a GPU.
DALI ?= $(shell nvidia-smi 2>/dev/null | grep -q 'CUDA Version: 12' && echo cuda12 || echo cuda13)
BIN := .venv/bin

# What starts processes or compilers, takes long or needs other people's libraries, and is left to test-all.
CLIENTS := tests/clients tests/test_train.py tests/test_ceiling.py tests/test_distributed.py tests/test_distributed_training.py \
	tests/test_interrupted_training.py tests/test_compile.py tests/test_on_pets.py tests/test_memory.py tests/test_gpu_script.py

.PHONY: demo test test-all soak bench lint dist clean

# Draws a small data set and trains ResNet-18 on it from random weights: about a minute on two cores, no network.
demo: .venv/with-$(DALI)
	$(BIN)/python -m fastpets.train --data sample --arch resnet18 --weights none \
		--size 64 --batch-size 32 --epochs 20 --lr 6e-3

test: .venv/with-$(DALI),test
	$(BIN)/python -m pytest $(CLIENTS:%=--ignore=%)

test-all: test .venv/with-$(DALI),test,clients
	$(BIN)/python -m pytest $(CLIENTS)

# The fuzzing in full: a quarter of an hour.
soak: .venv/with-$(DALI),test
	$(BIN)/python -m tests.fuzz --files 100000 --loader-files 10000

bench: .venv/with-$(DALI),test,bench
	$(BIN)/python -m pytest bench --benchmark-enable --benchmark-only --benchmark-json=.benchmarks.json
	$(BIN)/python -m bench.growth .benchmarks.json bench/growth.png

lint: .venv/with-$(DALI),test,dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

dist: .venv/with-$(DALI),test,dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist

.venv/with-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch '$@'

clean:
	rm -rf .venv dist build *.egg-info .benchmarks.json
