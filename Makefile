# `make demo` and `make test` need nothing but Python and make: they install into a virtual environment of the checkout's
# own. `make VENV= ...` uses the Python that is active instead, and installs nothing.
PYTHON ?= python3
VENV ?= .venv
# Where pip looks for torch besides its own index: without an NVIDIA GPU, where the builds without CUDA are, which take
# a tenth of the space. `make TORCH_INDEX= ...` uses pip's own index alone.
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,https://download.pytorch.org/whl/cpu)
# What `make reproduce` distils again.
ENTRY ?= CartPoleND-v0/n=2,k_min

.DEFAULT_GOAL := help

ifeq ($(VENV),)
RUN := $(PYTHON)
INSTALLED :=
else
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

# torch first and at its exact version, so that resolving the rest cannot pull another build of it.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install $(if $(TORCH_INDEX),--retries 2 --extra-index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	$(RUN) -m pip install -e ".[dev]" -c constraints.txt
	touch $@
endif

.PHONY: help install demo test test-fast lint format bench results images reproduce build

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## Install the library and its tools into .venv, at the tested versions

demo: $(INSTALLED)  ## Distil 2D cart-pole into three rows and score 100 fresh agents (a minute)
	$(RUN) -m gym_taskdistill.train

test: $(INSTALLED)  ## Run the tests and the examples in the docstrings, on two cores
	$(RUN) -m pytest -n 2 --dist loadfile

test-fast: $(INSTALLED)  ## Run the tests that together take less than a minute
	$(RUN) -m pytest -n 2 --dist loadfile -m "not slow and not wheel and not long"

lint: $(INSTALLED)  ## Check style, formatting and types
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

format: $(INSTALLED)  ## Format the code and sort its imports
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

bench: $(INSTALLED)  ## Measure speed beside other libraries
	$(RUN) -m benchmarks

results: $(INSTALLED)  ## Rebuild docs/results.md and the README's tables from the zoo's cards
	$(RUN) scripts/make_results.py

images: $(INSTALLED)  ## Draw the README's pictures from the zoo
	$(RUN) scripts/make_images.py

reproduce: $(INSTALLED)  ## Distil an entry of the zoo again, from nothing: make reproduce ENTRY=Hopper-v4/one-step
	$(RUN) -m gym_taskdistill reproduce $(ENTRY)

build: $(INSTALLED)  ## Build the source distribution and the wheel into dist/
	$(RUN) -m build
