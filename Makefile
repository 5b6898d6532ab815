# Needs make and Python >= 3.11; everything else is installed, pinned by hash, into .venv.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GRPCURL := $(BIN)/grpcurl
LOAD := $(BIN)/coordd-load
CONFIG ?= $(wildcard examples/coordd.toml)
# What protos/ must stay compatible with. An intended break is listed in buf.yaml under breaking.ignore.
PROTO_BASE ?= HEAD~1

# Every task that has a line of help.
.PHONY: $(shell sed -nE 's/^([a-z-]+):.*## .*/\1/p' $(MAKEFILE_LIST))

help: ## list the tasks
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

# One environment for running and for developing: it takes well under a minute, and a second one would have to
# be kept in step. A deployment installs requirements/daemon.txt instead.
$(VENV)/.stamp: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("coordd needs Python >= 3.11; set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(GRPCURL): tools/build_go.sh tools/grpcurl/go.mod tools/grpcurl/go.sum requirements/tools.txt | $(VENV)/.stamp
	tools/build_go.sh $(CURDIR)/$(BIN)/python grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl $(CURDIR)/$@
	@touch $@

# The load generator of `make bench-overload`; nothing else needs it.
$(LOAD): tools/build_go.sh $(wildcard tools/load/*) requirements/tools.txt | $(VENV)/.stamp
	tools/build_go.sh $(CURDIR)/$(BIN)/python load . $(CURDIR)/$@
	@touch $@

promtool: $(VENV)/.stamp ## have promtool and prometheus, from the distribution's package, for the tests of alerts
	@command -v $(BIN)/promtool >/dev/null || tools/promtool.sh $(BIN)

setup: $(VENV)/.stamp $(GRPCURL) ## make .venv with everything installed

run: $(VENV)/.stamp ## start the daemon in the foreground on 127.0.0.1:7651, with its data under var/
	@mkdir -p var
	exec $(BIN)/coordd serve $(if $(CONFIG),--config $(CONFIG))

test: setup ## run all tests; branch coverage of coordd/core must be 100 %
	$(BIN)/python -m pytest --cov --cov-fail-under=100

demo: setup ## replay real tweets through a fleet of workers, with crashes; prints JSON
	$(BIN)/python -m examples.demo

demo-classes: setup ## the same with two classes of urgency: who insists is answered first
	$(BIN)/python -m examples.demo --classes

simulate: $(VENV)/.stamp ## try limits on real tweets, in virtual time: 12 workers, and twice the budget to post
	$(BIN)/coordd simulate --config examples/glitchbot.toml --trace examples/support_tweets.csv \
	  --workers 12 --scale post_tweet=2

demo-upstream: setup ## learn from upstreams that are stricter than configured; prints JSON
	$(BIN)/python -m examples.strict_upstream

SECONDS_OF_SIM := $(if $(filter command line,$(origin SECONDS)),$(SECONDS),60)
sim: $(VENV)/.stamp ## simulate with faults: fresh seeds for SECONDS=60 on all cores, or SEED=n alone
	@PYTHONPATH=tests $(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seconds $(SECONDS_OF_SIM) --jobs $$(nproc))

SEEDS ?= 100
sim-mutants: $(VENV)/.stamp ## plant bugs, one by one, and find each within SEEDS=100 simulated seeds; prints the table
	@PYTHONPATH=tests:clients/python $(BIN)/python -m simulation.mutants --seeds $(SEEDS)

EXAMPLES ?= 2000
fuzz: setup ## throw EXAMPLES hostile messages at each RPC, and hostile HTTP/2 at the port; SEED=n replays
	COORDD_FUZZ_EXAMPLES=$(EXAMPLES) COORDD_FUZZ_SEED=$(SEED) $(BIN)/python -m pytest -q tests/fuzz

crash: setup ## kill the real daemon 200 times under load, on a file of 10^5 live records; prints JSON
	PYTHONPATH=tests $(BIN)/python tests/crash/crash_campaign.py $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

bench: setup ## measure; prints JSON
	$(BIN)/python -m bench

bench-namespaces: setup ## measure what a noisy fleet costs its neighbour; prints JSON
	$(BIN)/python -m bench.namespaces

bench-observability: setup ## measure what metrics and traces cost the daemon; prints JSON
	$(BIN)/python -m bench.observability

bench-overload: setup $(LOAD) ## three times what it can do, for MINUTES (1): goodput, latencies, memory; prints JSON
	$(BIN)/python -m bench.overload --minutes $(or $(MINUTES),1)

soak: setup ## a load in which everything is new all the time, for MINUTES (10): fails if something leaks; JSON
	$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),10) $(if $(PNG),--png $(PNG))

gen: $(VENV)/.stamp ## generate coordd/v1 and docs/api.md from protos/, docs/configuration.md from coordd/config
	tools/gen.sh $(CURDIR)/$(BIN)/python $(CURDIR)

gen-check: $(VENV)/.stamp ## fail if what is generated is stale
	@out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; \
	tools/gen.sh $(CURDIR)/$(BIN)/python "$$out"; \
	diff -r -u -x __pycache__ coordd/v1 "$$out/coordd/v1" && diff -u docs/api.md "$$out/docs/api.md" \
	&& diff -u docs/configuration.md "$$out/docs/configuration.md" \
	&& diff -u docs/metrics.md "$$out/docs/metrics.md" \
	&& diff -u deploy/grafana/coordd.json "$$out/deploy/grafana/coordd.json" \
	|| { echo 'gen-check: generated files are stale; run `make gen` and commit the result' >&2; exit 1; }

lint: $(VENV)/.stamp ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.stamp ## rewrite to the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.stamp ## mypy --strict
	$(BIN)/mypy

imports: $(VENV)/.stamp ## check that imports go one way only
	$(BIN)/lint-imports

proto-lint: $(VENV)/.stamp ## buf lint, and buf breaking against PROTO_BASE
	$(BIN)/buf lint
	@if git cat-file -e '$(PROTO_BASE):protos' 2>/dev/null; then \
	  base=$$(mktemp -d); trap 'rm -rf "$$base"' EXIT; \
	  git archive '$(PROTO_BASE)' protos buf.yaml | tar -x -C "$$base"; \
	  echo 'buf breaking --against $(PROTO_BASE)'; $(BIN)/buf breaking --against "$$base"; \
	else echo 'buf breaking: $(PROTO_BASE) has no protos to compare with'; fi

ci: ## what continuous integration runs
	.ci/run

audit-deps: $(VENV)/.stamp ## look the pins up in the registry: known vulnerabilities, withdrawn versions; takes a network
	$(BIN)/python tools/audit_deps.py
	@for file in requirements/*.txt; do \
	  echo "pip-audit $$file"; $(BIN)/uv tool run --quiet pip-audit --strict --require-hashes --disable-pip -r "$$file"; \
	  out=$$($(BIN)/python -m pip install --disable-pip-version-check --dry-run --ignore-installed --no-deps \
	    --require-hashes -r "$$file" 2>&1); \
	  ! grep -i 'yanked' <<<"$$out"; \
	done

pins: $(VENV)/.stamp ## compile requirements/*.txt again, to the newest versions
	@compile="$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --no-annotate --no-header"; \
	$$compile --extra dev pyproject.toml -o requirements/dev.txt; \
	$$compile --extra daemon -c requirements/dev.txt pyproject.toml -o requirements/daemon.txt; \
	$$compile -c requirements/dev.txt requirements/build.in -o requirements/build.txt; \
	$$compile requirements/tools.in -o requirements/tools.txt

clean: ## delete what can be made again; data under var/ stays
	rm -rf $(VENV) dist htmlcov .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
