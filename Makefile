# What a developer types. `make` alone prints this list; `make test` is what CI runs (.ci/run).

phase = @printf '\n=== %s\n' "$(1)"

# The same features everywhere: what is built for one step is used by the next.
FEATURES := --features velro/failpoints
ALL      := --workspace --all-targets $(FEATURES)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run deps build lint deny advisories unit doc services storm bench bench-scale bench-plugin image test sbom release

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Start the server on http://127.0.0.1:8000 (data in ./data)
	cargo run --release

deps: ## Install what building and testing needs (Debian or Ubuntu, root or sudo)
	$(call phase,deps)
	.ci/deps

build: ## Build the server and every test, with failpoints, for the tests
	$(call phase,build)
	cargo build $(ALL)

lint: ## Formatting, then clippy; any warning fails
	$(call phase,lint)
	cargo fmt --all --check
	cargo clippy $(ALL) -- -D warnings

deny: ## Licences, duplicates and sources of what Velro is built from, against deny.toml
	$(call phase,deny)
	.ci/deny licenses bans sources

advisories: ## Known vulnerabilities in what Velro is built from; asks the RustSec database on the network
	$(call phase,advisories)
	.ci/deny advisories

unit: ## Tests beside the code, of the architecture and the documents: no server, no Python
	$(call phase,unit)
	cargo test -p velro -p velro-plugin -p velro-replicate -p velro-openai-images -p velro-comfyui -p tests --lib --test tidy --test docs --test image $(FEATURES)

doc: ## Build the code's documentation; any warning fails
	$(call phase,doc)
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items $(FEATURES)

services: ## Start PostgreSQL, PgBouncer and Redis for tests you run yourself; prints their variables, Ctrl-C ends them
	@cargo run -q -p tests $(FEATURES) --bin services

SEED        ?= 1
GENERATIONS ?= 2000

storm: build ## The long storm over replicas: make storm SEED=7 GENERATIONS=2000
	$(call phase,storm with seed $(SEED))
	cargo run -q -p tests $(FEATURES) --bin storm -- --seed $(SEED) --generations $(GENERATIONS)

# Measured is what is shipped: the release build without failpoints. ARGS="--seconds 10 --only submit" and the like.
bench: ## Submits per second against pgbench, CPU per request against a hello world: ratios of one run, in minutes
	@cargo build -q --release -p velro -p benches
	@$${CARGO_TARGET_DIR:-target}/release/bench $(ARGS)

bench-scale: ## Memory and CPU as what waits and what is in flight grows ten-fold by ten-fold
	@cargo build -q --release -p velro -p benches
	@$${CARGO_TARGET_DIR:-target}/release/scale $(ARGS)

bench-plugin: ## A provider out of a library against the same code linked in: nanoseconds and ratios of one run
	@cargo build -q --release -p velro-zoo -p benches
	@$${CARGO_TARGET_DIR:-target}/release/plugin $(ARGS)

VERSION ?=

release: ## Make a release of what CHANGELOG.md has under Unreleased: make release VERSION=0.2.0
	@.ci/release "$(VERSION)"

sbom: ## The bill of materials of the server: CycloneDX, in target/velro.cdx.json
	@mkdir -p target
	@"$$(.ci/tools sbom)/python" .ci/sbom --output target/velro.cdx.json --binary $${CARGO_TARGET_DIR:-target}/release/velro

image: ## Build the container image without Docker and try it (root, Debian or Ubuntu; docs/IMAGE.md)
	$(call phase,image)
	.ci/image

test: deps lint deny build ## Everything: install what is missing, lint, all tests, documentation
	$(call phase,tests)
	cargo run -q -p tests $(FEATURES) --bin services -- cargo test --workspace $(FEATURES)
	$(MAKE) doc
