# Everything that a newcomer needs. `make demo` and `make test` set up .venv themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PY := .venv/bin/python
# Processes for the tests: three for two cores, since starting Ray and vLLM is waiting for the most part; 0 is one after the other.
WORKERS ?= 3
PYTEST := $(PY) -m pytest -n $(WORKERS)
PLAN ?= sums
RESULTS ?= docs/results/$(PLAN)

.PHONY: help setup demo demo-compare demo-llm study study-smoke paper-table test test-fast test-study lint docs docs-parts lock benchmark clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | column -t -s $$'\t'

setup:  ## make .venv with the locked CPU stack
	@bash scripts/setup.sh

demo: setup  ## model, data, HDPO training, evaluation before and after, report
	@$(PY) -m examples.demo.run --arms hdpo

demo-compare: setup  ## the same for GRPO from the same start, and both side by side
	@$(PY) -m examples.demo.run --arms hdpo grpo

demo-llm: setup  ## a real language model on real word problems, 3 steps
	@$(PY) -m examples.demo.run_llm

study: setup  ## every arm, tuned, several seeds: hours; goes on where it stopped (PLAN=collapse: another; RESULTS=FOLDER: anew)
	@$(PY) -m examples.study.run --plan $(PLAN) --results $(RESULTS)

study-smoke: setup  ## the study's machinery in minutes, into outputs/
	@$(PY) -m examples.study.run --plan smoke --results outputs/study-smoke/results

paper-table: setup  ## the paper's Tables 1 and 3 beside one's own runs (RUNS=FOLDER of examples/paper/runs.sh)
	@$(PY) -m examples.paper.table $(RUNS)

test: setup  ## all checks and tests
	@$(MAKE) --no-print-directory -j 2 lint docs
	@$(PYTEST) -m 'not study'

test-fast: setup  ## all tests but the end-to-end ones and the slow ones (`pytest -m slow`)
	@$(PYTEST) -m 'not e2e and not slow'

test-study: setup  ## a small study end to end, which `make test` leaves out: base model, training, evaluations, pages
	@$(PY) -m pytest -m study

lint: setup  ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

docs:  ## build the documentation as a site, strictly, into build/docs
	@bash scripts/docs.sh

docs-parts: setup  ## fill the numbers and tables in the documents from result files and YAML comments
	@$(PY) -m scripts.docs_parts

benchmark: setup  ## memory and time of JSD_k, overhead of HDPO over GRPO
	@$(PY) -m benchmarks.jsd
	@$(PY) -m benchmarks.overhead

lock:  ## compile requirements/*.lock anew (needs uv)
	@bash scripts/lock.sh

clean:  ## remove the environments, the built site and outputs
	@rm -rf .venv .venv-docs build/docs build/docs.cache outputs
