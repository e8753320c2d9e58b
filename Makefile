# Each target sets up what it needs, in .venv, from nothing but Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench miniature clean

# The main job: a weakly principled base model becomes one that follows its principles.
demo: $(VENV)/.installed
	$(BIN)/sami run --config=tiny --workdir=runs/demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck launch/*.sh

# Beside transformers + torch, on this machine's CPU: about half an hour.
bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.compare --output benchmarks/results/cpu.json

# Retrains the embedded base model; about 20 minutes on two cores.
miniature: $(VENV)/.installed
	JAX_PLATFORMS=cpu $(BIN)/python -m sami_jax.miniature.recipe --output sami_jax/miniature/base --queries sami_jax/miniature/queries

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.py | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
