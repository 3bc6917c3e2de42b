# The verbs of this project. `make` alone lists them.
export PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN_READY  := $(VENV)/.ready-run
TEST_READY := $(VENV)/.ready-test
BENCH_READY := $(VENV)/.ready-bench
# Made by npm, where there is one; without it the tests that need it are skipped.
MODULES    := web/node_modules/.ready
LIGHTHOUSE := bench/lighthouse/node_modules/.ready
# Tests that take minutes, most because they try the same again and again: a step of their own.
LONG_TESTS := tests/e2e/test_endurance.py tests/chaos/test_storm.py tests/scaling/test_live.py tests/machine tests/fuzz \
	tests/functions/test_fuzz.py
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test check long-tests bench chaos fuzz format web vendor lighthouse screenshots clean
.PHONY: supported-python images secrets cluster-up deploy update status logs shell cluster-down load scaling try-images control-plane

help: ## what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

run: $(RUN_READY) ## Sluice in one process on PORT (8080), with no services
	@exec $(BIN)/python -m embedded

# Compiled once, whatever the environment says: the tests, and what they start again and again.
test long-tests: export PYTHONDONTWRITEBYTECODE :=

test: check $(if $(shell command -v npm),$(MODULES)) ## all tests but the long ones; ARGS="-k word" chooses
	@if command -v go > /dev/null; then echo "FerretDB: `$(BIN)/python -m tests.servers.ferretdb`"; fi
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(addprefix --ignore=,$(LONG_TESTS)) $(ARGS)

long-tests: $(TEST_READY) ## a storm, ten restarts, engines that scale, hundreds of tasks, thousands of made-up calls and histories
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(LONG_TESTS)

check: $(TEST_READY) ## lint, format, types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary

chaos: $(TEST_READY) ## break everything at random, and check the promises; SEED=1 MINUTES=30
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

fuzz: $(TEST_READY) ## other HTTP calls, messages and answers than `make long-tests` tries; MINUTES=10
	FUZZ_MINUTES=$(or $(MINUTES),10) $(BIN)/python -m pytest -n 2 tests/functions/test_fuzz.py
	$(BIN)/python -m pytest -n 2 --hypothesis-profile=long tests/fuzz tests/machine

format: $(TEST_READY) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

web: ## the page as nginx serves it, in web/dist
	@$(PYTHON) web/build.py web/dist

vendor: ## copy what the page takes from others, in the versions of web/package-lock.json
	@$(PYTHON) web/vendor.py

lighthouse: $(TEST_READY) $(LIGHTHOUSE) ## measure the page as in production, on a phone and on a desk; RUNS=3
	@$(BIN)/python -m bench.lighthouse.run $(if $(RUNS),--runs $(RUNS))

screenshots: $(TEST_READY) ## pictures of the page in each of its states, in docs/pictures
	@$(BIN)/python -m tests.web.screenshots

bench: $(BENCH_READY) ## Sluice and its peers side by side, into docs/performance.md; QUICK=1 only prints; ONLY=submit,work
	@$(BIN)/python -m bench $(if $(QUICK),--quick,--write) $(if $(ONLY),--only $(ONLY))

load: $(TEST_READY) ## post tasks and watch them to the end; URL= TASKS=100 RATE=10 USERS=10 KIND=message ARGS="--help"
	@$(BIN)/python -m tests.load $(if $(URL),--url "$$URL") $(if $(TASKS),--tasks "$$TASKS") $(if $(RATE),--rate "$$RATE") \
		$(if $(USERS),--users "$$USERS") $(if $(KIND),--kind "$$KIND") $(ARGS)

scaling: $(TEST_READY) ## KEDA's rules over real engines, from none to ten and back; PICTURE=1
	@$(BIN)/python -m tests.scaling $(if $(PICTURE),--picture)

images: ## the images, with docker or buildah; BASE=debian without a registry, TAG=…
	@k8s/commands/images

try-images: $(TEST_READY) ## start the images that buildah has built as containers, which do a task together; TAG=
	@$(BIN)/python -m tests.images $(if $(TAG),--tag $(TAG))

control-plane: $(TEST_READY) ## the manifests on a real Kubernetes with KEDA, built here once (half an hour); needs Go
	@$(BIN)/python -m tests.control_plane.programs
	@CONTROL_PLANE=1 $(BIN)/python -m pytest tests/control_plane -s $(ARGS)

secrets: supported-python ## make the Secrets that are missing in the cluster; OVERLAY=, ROTATE=engine, PRINT=1
	@$(PYTHON) k8s/commands/secrets

cluster-up: ## Sluice in a kind cluster on this machine; HTTP_PORT=8080 HTTPS_PORT=8443
	@k8s/commands/cluster-up

deploy: ## bring the cluster to OVERLAY=local or production; TAG=…
	@k8s/commands/deploy

update: ## new code into the running cluster, and nothing else; TAG=… of pushed images
	@k8s/commands/update

status: supported-python ## pods, replicas, queues and tasks in one table
	@$(PYTHON) k8s/commands/status

logs: ## what the parts say; OF=engine SINCE=1h
	@k8s/commands/logs

shell: ## a shell in a pod; OF=add-task
	@k8s/commands/shell

cluster-down: ## remove the kind cluster that cluster-up made
	@k8s/commands/cluster-down

clean: ## remove what these commands made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	rm -rf web/node_modules web/dist bench/lighthouse/node_modules docs/pictures/all
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

supported-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Sluice needs Python 3.11 or newer; choose one with PYTHON=python3.12" >&2; exit 1; }

$(BIN)/python: | supported-python
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Python's venv module is missing. On Debian: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

REQUIREMENTS := constraints.txt pyproject.toml embedded/requirements.txt $(wildcard functions/*/requirements.txt)

$(RUN_READY): $(BIN)/python $(REQUIREMENTS)
	@echo "installing what Sluice needs (once)"
	@$(PIP) install -c constraints.txt -r embedded/requirements.txt -e .
	@touch $@

$(TEST_READY): $(BIN)/python $(REQUIREMENTS) tests/requirements.txt
	@echo "installing what the tests need (once)"
	@$(PIP) install -c constraints.txt -r tests/requirements.txt -e .
	@touch $@ $(RUN_READY)

$(BENCH_READY): $(TEST_READY) bench/requirements.txt
	@echo "installing the peers (once)"
	@$(PIP) install -c constraints.txt -r bench/requirements.txt
	@touch $@

%/node_modules/.ready: %/package.json %/package-lock.json
	@echo "installing what $* needs from npm (once)"
	@cd $* && npm ci --ignore-scripts --silent
	@touch $@
