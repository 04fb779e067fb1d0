PYTHON ?= python

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench results build

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install:  ## Install the library and its tools, at the tested versions
	$(PYTHON) -m pip install -e ".[dev]" -c constraints.txt

demo:  ## Distil a task with the default recipe
	$(PYTHON) -m gym_taskdistill.train

test:  ## Run the tests and the examples in the docstrings
	$(PYTHON) -m pytest

lint:  ## Check style, formatting and types
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

format:  ## Format the code and sort its imports
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

bench:  ## Measure speed beside other libraries
	$(PYTHON) -m benchmarks

results:  ## Rebuild the tables and figures of the documentation
	$(PYTHON) scripts/make_results.py

build:  ## Build the source distribution and the wheel into dist/
	$(PYTHON) -m build
