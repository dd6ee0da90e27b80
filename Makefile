# Everything a person types. Each target sets up what it needs; `make demo` and `make test` start from a fresh clone.

# As root the cache is where the postgres account can read it; see stack/folders.py.
CACHE := $(or $(PLATTR_CACHE),$(if $(filter 0,$(shell id -u)),/var/cache/plattr,$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/plattr))
UV := $(or $(shell command -v uv),$(CACHE)/uv/bin/uv)
PLATTR := $(UV) run --frozen plattr

# The pages that are held to plain English.
PROSE = $(wildcard *.md docs/*.md docs/*/*.md)
LEVEL ?= error

.PHONY: demo dev test test-long soak attack check lint actionlint prose docs unit stop bench faults faults-long outages prove setup help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: .venv/.synced ## the environment, locked

$(CACHE)/uv/bin/uv:
	@echo "uv: not found, installing it into $(CACHE)/uv"
	@python3 -m venv $(CACHE)/uv && $(CACHE)/uv/bin/pip install --quiet 'uv>=0.9'

.venv/.synced: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --locked --quiet
	@touch $@

demo: setup ## the platform, then deploy/examples/my-app.yaml until it runs
	@$(PLATTR) dev --detach
	@$(PLATTR) apply deploy/examples/my-app.yaml --wait
	@$(PLATTR) where my-app --namespace demo

dev: setup ## the platform with worker and watcher, until Ctrl-C
	@$(PLATTR) dev

stop: setup ## stop the platform; its state stays
	@$(PLATTR) infra stop

check: lint actionlint prose docs ## everything below but the tests

lint: setup ## lock, format, lint, types, import contracts, dead code
	@$(UV) lock --check --quiet
	@$(UV) run --frozen ruff format --check .
	@$(UV) run --frozen ruff check .
	@$(UV) run --frozen mypy
	@$(UV) run --frozen lint-imports --no-cache
	@$(UV) run --frozen vulture
	@$(UV) run --frozen hadolint deploy/Dockerfile
	@$(UV) run --frozen pre-commit validate-config

actionlint: setup ## the forge's workflows; without shellcheck, which not every machine has
	@$(UV) run --frozen python -m stack.tools actionlint -shellcheck= -pyflakes= .github/workflows/*.yml

prose: setup ## README, CHANGELOG and docs/ in plain English (.vale.ini); LEVEL=suggestion shows more
	@$(UV) run --frozen python -m stack.tools vale --output=line --minAlertLevel=$(LEVEL) $(PROSE)

docs: setup ## the documentation site, in site/; every link and every page is checked
	@NO_MKDOCS_2_WARNING=1 $(UV) run --frozen mkdocs build

# Each process has a platform of its own; 0: one process, with the platform that `uv run pytest` has too.
PROCESSES ?= 2

test: check ## every test in two processes, on real backends that it starts and stops itself; PROCESSES=0: in one
	@$(UV) run --frozen pytest -n $(PROCESSES)

test-long: setup ## the long forms: 100 applications at four workers, 12,000 changes of one object
	@$(UV) run --frozen pytest -m long

soak: setup ## more of what a short form always tries: generated cases, attacks on PostgreSQL 16 and 17
	@$(UV) run --frozen pytest -m soak

attack: setup ## every attack as a tenant on the local platform; docs/guarantees.md, "What a tenant cannot do"
	@$(UV) run --frozen pytest -n $(PROCESSES) -m attack

bench: setup ## what Plattr adds to the backends' own calls, and how it grows; 15 minutes, then docs/performance's plot
	@for bench in startup provision load fairness standing scale_out plot; do $(UV) run --frozen python -m bench.$$bench || exit; done

faults: setup ## the crash matrix: kill -9 at every place of every activity; writes docs/guarantees-matrix.md; FAULTS="--only mutants"
	@$(UV) run --frozen python -m tests.faults $(FAULTS)

faults-long: setup ## 200 applications under random faults and kills for 20 minutes; FAULTS="--applications 40 --minutes 4"
	@$(UV) run --frozen python -m tests.faults.random_faults $(FAULTS)

outages: setup ## each backend hangs for 5 minutes, Temporal is gone for 10, while objects change
	@$(UV) run --frozen python -m tests.faults.outages

prove: setup ## alerts, dashboard and image on a real Prometheus and buildah; 7 minutes, as root, CONTRIBUTING.md has its needs
	@PATH="$(dir $(UV)):$$PATH" tests/deploy/prove_dashboard.sh
	@PATH="$(dir $(UV)):$$PATH" tests/deploy/prove_dockerfile.sh
