# The one door: every job that a person or CI does is a target here.
# `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PREFIX  ?= /usr/local
DESTDIR ?=
ARGS    ?=

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
export CARGO_TARGET_DIR := $(TARGET_DIR)
BULKHEAD := $(TARGET_DIR)/release/bulkhead
HOST     := x86_64-unknown-linux-gnu

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install what building and running needs from Debian's archive
	@scripts/deps.sh run

.PHONY: build
build: ## Build the command line and the guest agent
	@scripts/build.sh

.PHONY: run
run: deps build ## Run a Debian container; ARGS="run --rm -it debian:bookworm bash" runs anything
ifeq ($(strip $(ARGS)),)
	@scripts/first-run.sh $(BULKHEAD)
else
	@$(BULKHEAD) $(ARGS)
endif

.PHONY: kernel
kernel: ## Build the tuned guest kernel from Debian's kernel source; it is used from then on
	@scripts/deps.sh kernel
	@kernel/build.sh

.PHONY: test
test: ## Run every test, from unit to end to end on every platform
	@scripts/deps.sh test
	@scripts/test.sh

.PHONY: test-kvm
test-kvm: ## Run the end-to-end suite on KVM, emulated where there is no hardware; ARGS="NAME…" selects tests
	@scripts/deps.sh kvm
	@scripts/build.sh
	@kernel/build.sh kvm >/dev/null
	@scripts/build-trespass.sh
	@cargo test --locked --workspace --test rig -- $(ARGS)

.PHONY: lint
lint: ## Check formatting, lints, documentation and dependencies
	cargo fmt --all --check
	@scripts/deny.sh
	@scripts/promises.sh
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items

.PHONY: bench
bench: ## Measure beside crun, podman and runsc; prints a table
	@scripts/deps.sh bench
	@scripts/build.sh
	@kernel/build.sh >/dev/null
	@benches/run.sh $(ARGS)

.PHONY: bench-kvm
bench-kvm: ## Measure the KVM platform beside QEMU's microvm, in the rig where there is no hardware; prints a table
	@scripts/deps.sh bench-kvm
	@scripts/build.sh
	@kernel/build.sh kvm >/dev/null
	@benches/bench_kvm.sh $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz every target, SECONDS_PER_TARGET each (default 600)
	@scripts/deps.sh fuzz
	@scripts/fuzz.sh $(ARGS)

.PHONY: fuzz-smoke
fuzz-smoke: ## Fuzz every target for 20 seconds, from the same seed each time, as CI does
	@scripts/deps.sh fuzz
	@SMOKE=1 SECONDS_PER_TARGET=20 scripts/fuzz.sh

.PHONY: mutants
mutants: ## Take each wall away in turn and show that its test fails; ARGS="NAME…" selects (docs/threat-model.md)
	@scripts/deps.sh test
	@scripts/mutants.sh $(ARGS)

.PHONY: install
install: build ## Install binaries, agent, man pages and completions under PREFIX
	@scripts/install.sh "$(DESTDIR)$(PREFIX)" $(BULKHEAD)

.PHONY: clean
clean: ## Remove build results (caches of kernels and images stay)
	cargo clean
