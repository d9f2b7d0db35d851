# The commands of the project; `make` alone lists them. Everything needed is installed on the way.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/distill-operator
UV_VERSION := 0.13.9
UV := $(or $(shell command -v uv),$(CACHE)/uv-$(UV_VERSION)/bin/uv)
SYNC := $(UV) sync --quiet --frozen --extra cpu --extra operator --group dev --group demo \
	$(if $(shell command -v go),,--group go)
RUN := $(UV) run --no-sync

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(CACHE)/uv-$(UV_VERSION)/bin/uv:
	@echo "Installing uv $(UV_VERSION) into $(CACHE) …"
	python3 -m venv $(CACHE)/uv-$(UV_VERSION)
	$(CACHE)/uv-$(UV_VERSION)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# What the operator imports is compiled, so that its first start takes no longer than the next ones.
.venv/.synced: pyproject.toml uv.lock | $(UV)
	@echo "Installing the packages of uv.lock into .venv (6 GiB, one to five minutes the first time) …"
	$(SYNC)
	@env -u PYTHONDONTWRITEBYTECODE $(RUN) python -c "import distill_operator.__main__"
	@touch $@

.PHONY: install
install: .venv/.synced ## Install everything into .venv.

.PHONY: demo
demo: .venv/.synced ## Distil SmolLM2-135M into a third of its layers on this machine (about ten minutes).
	@$(RUN) python examples/smollm2.py examples/models >/dev/null
	$(RUN) distillctl run examples/quickstart.yaml

.PHONY: demo-cluster
demo-cluster: .venv/.synced ## The same as a job on a Kubernetes cluster of this machine (KEEP=1 leaves it up; root, Debian).
	@$(RUN) python -m tests.cluster.demo $(if $(KEEP),--keep)

# The programs of the test cluster take 15 minutes to build, most tests leave a core free meanwhile: so they are built
# beside them, and the tests that need them come last.
.PHONY: test
test: .venv/.synced ## Run all tests.
	@mkdir -p $(CACHE) && echo "Building Kubernetes for the tests beside them; log: $(CACHE)/build.log"
	@nice -n 19 $(RUN) python -m tests.testcluster build kube helm helm3 >$(CACHE)/build.log 2>&1 & building=$$!; \
	trap 'kill $$building 2>/dev/null || true' EXIT; failed=0; \
	$(RUN) pytest tests/unit tests/runtime || failed=1; \
	$(RUN) pytest tests/control_plane || failed=1; \
	exit $$failed

.PHONY: test-oldest
test-oldest: .venv/.synced ## Run the control-plane tests on the oldest supported Kubernetes, 1.34.
	TESTCLUSTER_KUBERNETES=1.34 $(RUN) pytest tests/control_plane

.PHONY: test-unit
test-unit: .venv/.synced ## Run the tests that take seconds.
	$(RUN) pytest tests/unit

.PHONY: test-cluster
test-cluster: .venv/.synced ## Run the tests on real nodes (root, Debian).
	$(RUN) pytest tests/cluster --ignore tests/cluster/drills

.PHONY: cluster
cluster: .venv/.synced ## Bring up a Kubernetes with two nodes and fake GPUs on this machine (root, Debian).
	@$(RUN) python -m tests.testcluster up

.PHONY: cluster-down
cluster-down: .venv/.synced ## Take it down; nothing of it stays.
	@$(RUN) python -m tests.testcluster down

.PHONY: cluster-build
cluster-build: .venv/.synced ## Build the programs of the test cluster (20 minutes the first time; needs Go).
	@$(RUN) python -m tests.testcluster build

.PHONY: image
image: .venv/.synced ## Build an image without a container engine: make image TARGET=operator (root, Debian).
	@$(RUN) python -m tests.testcluster image $(or $(TARGET),$(error name the target: make image TARGET=operator))

.PHONY: image-check
image-check: .venv/.synced ## Build the runtime's image for processors and run a job in it (root, Debian, 25 GiB of disk).
	$(RUN) pytest tests/images

.PHONY: drills
drills: .venv/.synced ## Break everything that can break on a cluster of real nodes, and print a table (an hour; root, Debian).
	$(RUN) pytest tests/cluster/drills

.PHONY: drill
drill: .venv/.synced ## Run one drill: make drill NAME=kill_teacher (without NAME: list them).
ifdef NAME
	$(RUN) pytest tests/cluster/drills -k "$(NAME)"
else
	@$(RUN) pytest tests/cluster/drills --collect-only -q | sed -n 's/.*::test_//p'
endif

.PHONY: lint
lint: .venv/.synced ## Check format, style and types.
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) pyright

.PHONY: format
format: .venv/.synced ## Format the code.
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

.PHONY: bench
bench: .venv/.synced ## Measure objective, store, codec and teacher against plain versions of the same.
	$(RUN) python benchmarks/objective.py
	$(RUN) python benchmarks/store_throughput.py
	$(RUN) python benchmarks/signal_codec.py
	$(RUN) python benchmarks/teacher_throughput.py

.PHONY: generate
generate: .venv/.synced ## Write all generated files anew.
	$(RUN) python -m distill_operator.api.crd crds/distill-operator.io_distilljobs.yaml \
		--chart charts/distill-operator/templates/crd.yaml
	$(RUN) python -m distill_operator.configuration_schema charts/distill-operator/values.schema.json
	$(RUN) python -m distill_operator.api.reference docs/reference/distilljob.md
	$(RUN) python -m distill_runtime.architectures_page docs/reference/models.md

.PHONY: verify
verify: generate ## Check that generated files are up to date.
	$(UV) lock --check
	git diff --exit-code -- crds charts docs/reference

.PHONY: clean
clean: ## Remove what runs and tools left in this folder (not the cache, not .venv).
	rm -rf distill-runs examples/models build dist .pytest_cache .ruff_cache .hypothesis
