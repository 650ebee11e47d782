# Tidelog: everything a person or a machine runs. `make` alone lists it.
#
# One Cargo profile (release) for every call: RocksDB is compiled once per profile, and that takes a quarter of an hour.
# The script .ci/setup installs what a build needs, .ci/setup-interop other people's tools; .ci/part runs one part of `make test` and notes its seconds.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Rust from rustup may not be on the path of a fresh shell.
export PATH := $(HOME)/.cargo/bin:$(PATH)

# On a build machine the target folder outlives the checkout, so that a fresh clone finds RocksDB compiled.
ON_CI := $(filter-out false 0,$(CI))
ifneq ($(ON_CI),)
export CARGO_TARGET_DIR ?= $(HOME)/.cache/tidelog/target
LOCKED := --locked
else
export CARGO_TARGET_DIR ?= $(CURDIR)/target
endif
export CARGO_TERM_COLOR ?= auto
export CARGO_NET_RETRY ?= 5

CARGO_FLAGS := --release $(LOCKED)
BIN := $(CARGO_TARGET_DIR)/release/tidelog
PART := .ci/part
# Every test binary: tests/NAME/main.rs and tests/NAME.rs. Few, since most of them link RocksDB.
TESTS_ALL := $(sort $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs)) $(patsubst tests/%.rs,%,$(wildcard tests/*.rs)))
# Some need the build in which a test can break things (feature `faults`): it comes after all others.
FAULTY := $(shell awk '/^\[/ { test = ($$0 == "[[test]]") } test && /^name = / { gsub(/"/, "", $$3); name = $$3 } test && /^required-features.*"faults"/ { print name }' Cargo.toml)
TESTS := $(filter-out $(FAULTY),$(TESTS_ALL))
# Those that `make torture` runs at length, beside FAULTY.
TORTURED := crash disks hostile fuzz
BENCHES := $(sort $(patsubst benches/%.rs,%,$(wildcard benches/*.rs)))

# Other people's tools, pinned, outside of the checkout.
export TIDELOG_TOOLS ?= $(HOME)/.cache/tidelog/tools
BUF := $(TIDELOG_TOOLS)/venv/bin/buf

.PHONY: help run test torture demo bench fmt build setup tools baseline

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## build, start a broker on 127.0.0.1:4080 with ./data, and say what to type next (ARGS="…" adds flags)
	@cargo build $(CARGO_FLAGS) --bin tidelog
	@exec "$(BIN)" dev --data ./data $(ARGS)

test: ## formatting, clippy, documentation, all tests
	@.ci/setup rustfmt clippy
	@$(PART) begin
	@$(PART) tools .ci/setup-interop
	@$(PART) format cargo fmt --check
	@$(PART) buf-lint $(BUF) lint proto
	@$(PART) buf-breaking $(BUF) breaking proto --against proto/baseline.binpb
	@$(PART) clippy cargo clippy $(CARGO_FLAGS) --all-targets --all-features -- -D warnings
	@$(PART) client-only cargo check $(CARGO_FLAGS) --no-default-features --features client
	@RUSTDOCFLAGS="-D warnings" $(PART) documentation cargo doc $(CARGO_FLAGS) --no-deps
	@$(PART) build cargo test $(CARGO_FLAGS) --no-run
	@$(PART) unit cargo test $(CARGO_FLAGS) --lib --bins
	@set -e; for name in $(TESTS); do $(PART) $$name cargo test $(CARGO_FLAGS) --test $$name; done
	@$(PART) build-faults cargo test $(CARGO_FLAGS) --no-run --features faults $(FAULTY:%=--test %)
	@set -e; for name in $(FAULTY); do $(PART) $$name cargo test $(CARGO_FLAGS) --features faults --test $$name; done
	@$(PART) doc-tests cargo test $(CARGO_FLAGS) --doc
	@$(PART) end

# What `make test` does in a minute or two each, at length: hours. A first failure ends it; its seed and the command that repeats it are in the output.
torture: export SEEDS ?= 200000
torture: export CASES ?= 50000
torture: export KILLS ?= 5000
torture: export ROUNDS ?= 50
torture: export FUZZ_SECONDS ?= 1800
torture: ## the tests of crashes, disks, hostile clients, chance: at full length (hours; SEEDS, CASES, KILLS, ROUNDS, FUZZ_SECONDS)
	@.ci/setup
	@$(PART) begin
	@$(PART) build cargo test $(CARGO_FLAGS) --no-run $(TORTURED:%=--test %)
	@set -e; for name in $(TORTURED); do $(PART) $$name cargo test $(CARGO_FLAGS) --test $$name -- --nocapture; done
	@$(PART) build-faults cargo test $(CARGO_FLAGS) --no-run --features faults $(FAULTY:%=--test %)
	@set -e; for name in $(FAULTY); do $(PART) $$name cargo test $(CARGO_FLAGS) --features faults --test $$name -- --nocapture; done
	@$(PART) end

demo: setup ## push a real event history, kill everything twenty times, compare table and log byte by byte
	@cargo build $(CARGO_FLAGS) --bin tidelog --example demo --example k1_sqlite --example plain
	@"$(CARGO_TARGET_DIR)/release/examples/demo" $(ARGS)

bench: setup ## the benches of the parts (ARGS="stamp" picks by name; benches/README.md has results)
	@cargo bench --profile release $(LOCKED) $(BENCHES:%=--bench %) -- $(ARGS)

fmt: ## format the sources
	@.ci/setup rustfmt
	@cargo fmt

build: setup ## build the broker and its command line
	@cargo build $(CARGO_FLAGS) --bin tidelog
	@echo "$(BIN)"

setup: ## install what a build needs, if it is missing
	@.ci/setup

tools: ## install what tests use of other people: grpcurl, buf, websocat, Python's grpcio, Chromium
	@.ci/setup-interop

baseline: tools ## at a release: from now on `make test` holds the protobuf files to what they say today
	@$(BUF) build proto --exclude-source-info --output proto/baseline.binpb
