# Everything runs from a virtual environment in .venv, made from the hash-pinned locks on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Tests mostly wait for brokers and processes: two workers a core.
# Compiled tests are kept, also where the environment says no: each worker and each program would compile them again.
# The environment of the tests has 150 packages: pydantic would look through all of them for plugins at each start.
PYTEST ?= env -u PYTHONDONTWRITEBYTECODE PYDANTIC_DISABLE_PLUGINS=true $(BIN)/pytest -n $$(( 2 * $$(nproc) ))
SITE   := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

.DEFAULT_GOAL := help
.PHONY: help demo run test chaos check format docs access screenshots bench bench-quick lock clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.runtime ## see three devices being reset, for real (under 30 s)
	$(BIN)/gateway demo

run: $(VENV)/.runtime ## serve with a few simulated devices alive, until Ctrl-C
	$(BIN)/gateway demo --keep-running

test: $(VENV)/.dev tools ## run every test (installs Mosquitto, HAProxy, Chromium and others by apt when root)
	@sh scripts/left_out.sh > $(VENV)/.left-out
	$(PYTEST) $$(cat $(VENV)/.left-out)
	$(PYTEST) --engine postgresql $(SHORT_ON_POSTGRESQL)

.PHONY: test-postgresql
test-postgresql: $(VENV)/.dev tools ## run the tests of domain, store, HTTP and MQTT with their registries on PostgreSQL
	$(PYTEST) --engine postgresql tests/domain tests/store tests/http tests/mqtt $(STARTS_POSTGRESQL) --ignore tests/http/page

# These start PostgreSQL themselves, so 'make test' has run them with the others.
STARTS_POSTGRESQL := $(foreach name,postgres postgres_addresses postgres_faults postgres_first_start pgbouncer moving migrated_bindings,--ignore tests/store/test_$(name).py)
# Thousands of random inputs: two minutes each on PostgreSQL, where each write is a round trip.
LONG_ON_POSTGRESQL := $(foreach name,fuzz message_batches state_machine,--ignore tests/domain/test_$(name).py)
# All of tests/http and tests/mqtt would take ten minutes more, mostly of Schemathesis and of waits for brokers. What
# differs by the engine is in these: keys and answers that are stored, a registry that is away, lost connections, the
# order of messages and commits.
SHORT_ON_POSTGRESQL := tests/domain $(LONG_ON_POSTGRESQL) tests/store $(STARTS_POSTGRESQL) \
	$(foreach name,idempotency_storage middleware insiders auth_failure_limit,tests/http/test_$(name).py) \
	$(foreach name,ingest connection token_refresh,tests/mqtt/test_$(name).py)

ROUNDS ?= 100
SEED   ?= $(shell date +%s)

chaos: $(VENV)/.dev tools ## kill, cut and stall real parts under load (ROUNDS=100, from SEED on)
	CHAOS_SEED=$(SEED) CHAOS_ROUNDS=$(ROUNDS) $(PYTEST) tests/e2e/test_chaos.py

.PHONY: chaos-cluster
chaos-cluster: DEVICES = 200
chaos-cluster: $(VENV)/.dev tools ## the same with three gateways, a database that fails over, clocks and disks (also DEVICES=200)
	CLUSTER_SEED=$(SEED) CLUSTER_ROUNDS=$(ROUNDS) CLUSTER_DEVICES=$(DEVICES) $(PYTEST) tests/e2e/test_chaos_cluster.py

INPUTS ?= 1000000

DEVICES ?= 10000

.PHONY: fuzz stampede
stampede: $(VENV)/.dev tools ## a broker comes back, and DEVICES=10000 of them at once
	STAMPEDE_DEVICES=$(DEVICES) $(PYTEST) -n 0 -s tests/e2e/test_stampede.py

fuzz: $(VENV)/.dev ## throw inputs at whatever parses bytes from outside (INPUTS=1000000, SEED=…)
	FUZZ_SEED=$(SEED) FUZZ_INPUTS=$(INPUTS) $(PYTEST) tests/*/test_fuzz.py -o faulthandler_timeout=7200

check: $(VENV)/.dev ## format, lint, prose, types, documents
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/python scripts/prose.py
	$(BIN)/mypy
	$(BIN)/python -m gateway.http.spec.openapi | diff -u docs/openapi.json - || \
		{ echo "docs/openapi.json is stale: run 'make docs'"; exit 1; }
	$(BIN)/python -m gateway.http.spec.asyncapi | diff -u docs/asyncapi.json - || \
		{ echo "docs/asyncapi.json is stale: run 'make docs'"; exit 1; }
	$(BIN)/python scripts/vectors.py | diff -u docs/vectors.json - || \
		{ echo "docs/vectors.json is stale: run 'make docs'"; exit 1; }
	$(BIN)/python -m tests.support.guarantees > $(VENV)/guarantees.md
	diff -u docs/guarantees.md $(VENV)/guarantees.md || { echo "docs/guarantees.md is stale: run 'make docs'"; exit 1; }
	$(BIN)/python -m tests.support.checklist > $(VENV)/firmware-tests.md
	diff -u docs/firmware-tests.md $(VENV)/firmware-tests.md || \
		{ echo "docs/firmware-tests.md is stale: run 'make docs'"; exit 1; }
	$(SITE)

format: $(VENV)/.dev ## bring code into form
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/python scripts/sync_client.py

docs: $(VENV)/.dev ## write the documents that come from code, and the site (site/index.html)
	$(BIN)/python -m gateway.http.spec.openapi > docs/openapi.json
	$(BIN)/python -m gateway.http.spec.asyncapi > docs/asyncapi.json
	$(BIN)/python -m gateway.cli.docs_commands docs/cli.md
	$(BIN)/python -m gateway.http.spec.reference docs/reference
	$(BIN)/python scripts/vectors.py > docs/vectors.json
	$(BIN)/python -m tests.support.guarantees > docs/guarantees.md
	$(BIN)/python -m tests.support.checklist > docs/firmware-tests.md
	$(SITE)

screenshots: $(VENV)/.dev tools ## take the pictures of the page in docs/screenshots anew
	$(BIN)/python -m tests.http.page.screenshots docs/screenshots

access: $(VENV)/.dev tools ## write docs/access.md from what the brokers do
	WRITE_ACCESS_PAGE=1 $(BIN)/pytest -q tests/broker/test_access_matrix.py

bench: $(VENV)/.dev tools ## measure, as ratios against a floor in the same run (ENGINE=postgresql: prints only)
	$(BIN)/python -m bench $(if $(ENGINE),--engine $(ENGINE),--report docs/benchmarks)

bench-quick: $(VENV)/.dev tools ## the same in under a minute
	$(BIN)/python -m bench --quick $(if $(ENGINE),--engine $(ENGINE)) $(if $(JSON),--json)

.PHONY: bench-peers bench-growth bench-growth-ingest
bench-peers: $(VENV)/.dev tools ## ingest beside what people write for it
	$(BIN)/python -m bench.peers

SIZES  ?= 1000 100000
REPORT ?= docs/benchmarks
bench-growth: $(VENV)/.dev tools ## every cost as the registry grows: make bench-growth SIZES="1000 1000000" ENGINE=sqlite
	$(BIN)/python -m bench.growth $(SIZES:%=--size %) $(ENGINE:%=--engine %) $(HISTORY:%=--history %) --report $(REPORT)

bench-growth-ingest: $(VENV)/.dev tools ## ingest alone beside a large registry; SIZE="--devices 1000000 --history 50000000"
	$(BIN)/python -m bench.growth_ingest $(SIZE)

.PHONY: soak replay
SEEDS ?= 50000
soak: $(VENV)/.dev ## simulate many seeds: make soak SEEDS=1000000 (docs/simulation.md)
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

replay: $(VENV)/.dev ## simulate one seed again and tell its story, shrunk: make replay SEED=4711
	$(BIN)/python -m tests.simulation --seed $(SEED)

.PHONY: sbom audit
SUPPLY := $(VENV)/supply/bin
SBOM   ?= dist/sbom.cdx.json
sbom: $(VENV)/.supply ## write the bill of materials of what runs (CycloneDX JSON, dist/sbom.cdx.json)
	@mkdir -p $(dir $(SBOM))
	@$(SUPPLY)/python -W ignore -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml --mc-type application \
		--output-reproducible --of JSON -o $(SBOM)
	@echo $(SBOM)

audit: $(VENV)/.supply ## look up known weaknesses of what is pinned (asks pypi.org, so it needs the network)
	$(SUPPLY)/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

$(VENV)/.supply: scripts/supply.txt $(VENV)/.python
	@$(PYTHON) -m venv $(VENV)/supply
	@$(SUPPLY)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r scripts/supply.txt
	@touch $@

lock: ## pin dependencies anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --annotation-style line pyproject.toml --group build -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --annotation-style line pyproject.toml --group dev --extra age --extra oidc --extra otel --extra postgres -c requirements.lock -o requirements-dev.lock
	uv pip compile -q --no-deps --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --no-annotate bench/faststream.in -o bench/faststream.txt
	uv pip compile -q --no-deps --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --no-annotate tests/generated/generator.in -o tests/generated/generator.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --no-annotate scripts/supply.in -o scripts/supply.txt

clean: ## remove what was made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist

.PHONY: tools
tools:
	@sh scripts/tools.sh

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: name it with 'make PYTHON=python3.11 …'"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "The venv module is missing: install it (Debian: apt-get install python3-venv)"; exit 1; }
	@touch $@

$(VENV)/.runtime: requirements.lock pyproject.toml $(VENV)/.python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
