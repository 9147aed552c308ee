# One line per chore; .ci/run calls lint and test. CARGO_TARGET_DIR is honoured everywhere.
SHELL := /bin/bash
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
TOOLS := $(TARGET)/tools
DENY := $(TOOLS)/bin/cargo-deny
export RINGGATE_TEST_BINARY ?= $(TARGET)/debug/ringgate
export RINGGATE_TEST_PYTHON ?= $(TARGET)/python/bin/python

.PHONY: demo test lint bench loadtest fuzz-smoke advisories setup
demo: setup ; cargo build -p ringgate && tests/demo.sh
# The binary is built with the tests of its own package, before any test runs.
test: setup ; cargo test --workspace
lint: setup $(DENY) ; cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings && $(DENY) check bans licenses sources
bench: setup ; cargo bench -p ringgate-bench
loadtest: setup ; cargo build --release -p ringgate -p ringgate-loadtest && python3 loadtest/compare.py
fuzz-smoke: setup ; tests/fuzz-smoke.sh
# Needs the advisory database from the network, so it is not part of lint.
advisories: setup $(DENY) ; $(DENY) check advisories
setup: ; @tests/setup.sh
# Built once, in a target directory of its own, so that a change of our code never rebuilds it.
$(DENY): ; cargo install --debug --locked cargo-deny --version 0.20.2 --root $(TOOLS) --target-dir $(TOOLS)/build && rm -rf $(TOOLS)/build
