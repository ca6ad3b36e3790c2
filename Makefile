# Everything one does to this project more than once. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: test
test: export KEYWARD_REQUIRE_TOOLS := 1
test: export PATH := $(PATH):/usr/sbin:/sbin
test: ## everything that must hold, nothing skipped: a missing tool is a failure
	tests/setup.sh
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked; else cargo test --locked --lib --bins --tests; fi
	cargo test --locked --doc

.PHONY: check
check: ## the part of it that takes seconds: form, lints, unit tests, tidy
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --lib --test tidy

.PHONY: crash
crash: export KEYWARD_LONG := 1
crash: export KEYWARD_REQUIRE_TOOLS := 1
crash: ## kill -9 two hundred times: in imports, in changes of keys, under load
	tests/setup.sh
	cargo test --locked --test it crash::

.PHONY: drill
drill: export KEYWARD_LONG := 1
drill: ## twenty rolling restarts, reloads, certificates and stops under 1,000 requests a second; none may fail
	cargo test --locked --test it zero_loss::

MINUTES ?= 5
.PHONY: fuzz
fuzz: ## feed every reader of bytes from outside what nobody thought of, MINUTES=5 for each
	tests/setup.sh g++:g++
	fuzz/run.sh $(MINUTES)

.PHONY: deny
deny: ## licences, sources, bans and doubles among all dependencies, as deny.toml says
	cargo deny --version 2>/dev/null || cargo install --locked cargo-deny@0.20.2
	cargo deny --locked check bans licenses sources

.PHONY: bench
bench: ## CPU time and rate per request beside nginx and HAProxy (bench/README.md)
	bench/setup.sh
	cargo build --locked --release
	bench/run.py --peers nginx,haproxy,floor --scenario allow,deny,1k --rounds 5 --duration 2 \
	  --extra 'keyward:0:$(CURDIR)/bench/keyward.sh $(CURDIR)/target/release/keyward {port} {upstream} {keys} {dir}'
