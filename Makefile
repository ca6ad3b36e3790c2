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
	tests/it/websocket/setup.sh >/dev/null
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked; else cargo test --locked --lib --bins --tests; fi
	cargo test --locked --doc
	$(MAKE) cluster
	$(MAKE) api

.PHONY: cluster
cluster: export PATH := $(PATH):/usr/sbin:/sbin
cluster: ## charts, manifests, alerts, dashboard and documents, held against Kubernetes, Prometheus and the program
	tests/setup.sh openssl:openssl node:nodejs npm:npm promtool:prometheus systemd-analyze:systemd
	cargo build --locked
	tools=$$(tests/cluster/setup.sh); python=$$tools/venv/bin/python; keyward=target/debug/keyward; \
	$$python charts/generate.py --check $$keyward && \
	$$python tests/cluster/charts.py $$tools $$keyward && \
	$$python tests/cluster/monitoring.py $$keyward && \
	$$python tests/cluster/deploy.py $$tools $$keyward && \
	$$python tests/cluster/docs.py $$tools $$keyward && \
	tests/cluster/pod.sh $$tools $$keyward $$keyward

.PHONY: api
api: ## the management API: its document linted, and a server asked for everything that is in it
	tests/setup.sh curl:curl node:nodejs npm:npm
	cargo build --locked
	tests/api/check.sh "$$(tests/api/setup.sh)" target/debug/keyward

.PHONY: generate
generate: ## what in charts, manifests and documents follows from something else
	cargo build --locked
	tools=$$(tests/cluster/setup.sh); python=$$tools/venv/bin/python; \
	$$python charts/generate.py target/debug/keyward && \
	$$python deploy/generate.py $$tools && \
	$$python tests/cluster/monitoring.py target/debug/keyward --write

.PHONY: docs
docs: ## the book, in target/book
	cargo build --locked
	tools=$$(tests/cluster/setup.sh) && $$tools/venv/bin/python tests/cluster/docs.py $$tools target/debug/keyward target/book

STATIC := target/$(shell uname -m)-unknown-linux-gnu/release/keyward
.PHONY: image
image: ## the image: one static program, as an OCI layout and a tar with an SBOM, in target/image; takes minutes
	tests/setup.sh buildah:buildah git:git
	PATH="$$(tests/cluster/setup.sh)/venv/bin:$$PATH" deploy/image.sh target/image

.PHONY: order
order: ## which functions of the image's program stand together, from a run of it: deploy/order.ld; when memory at rest has grown
	tests/setup.sh valgrind:valgrind nm:binutils
	cargo build --locked --profile profiling
	deploy/order.py target/profiling/keyward

.PHONY: pod
pod: ## that image and a sidecar in a real Pod, by podman, with an old XML server and Prometheus; needs root and `make image`
	tests/cluster/pod.sh "$$(tests/cluster/setup.sh)" $(STATIC) $(STATIC)

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

.PHONY: crashes
crashes: export KEYWARD_LONG := 1
crashes: export KEYWARD_PROGRAM := $(CURDIR)/target/release/keyward
crashes: ## kill -9 five hundred times while keys are changed by the management API: nothing that was acknowledged may be lost
	cargo build --locked --release
	cargo test --locked --test it crash::writes -- --nocapture

.PHONY: revocations
revocations: export KEYWARD_LONG := 1
revocations: export KEYWARD_REQUIRE_TOOLS := 1
revocations: export KEYWARD_PROGRAM := $(CURDIR)/target/release/keyward
revocations: ## how long deleted keys are let in: three processes on one PostgreSQL, six hundred deletions under 500 requests a second
	tests/setup.sh
	cargo build --locked --release
	cargo test --locked --test it revocation::everywhere -- --nocapture

.PHONY: million
million: ## a million keys: import, start, memory, lists and searches, and CPU time per request beside a thousand keys
	bench/setup.sh
	cargo build --locked --release
	bench/million.py target/release/keyward

.PHONY: drill
drill: export KEYWARD_LONG := 1
drill: ## twenty rolling restarts, reloads, certificates and stops under 1,000 requests a second; none may fail
	cargo test --locked --test it zero_loss:: -- --nocapture

MINUTES ?= 5
.PHONY: fuzz
fuzz: ## feed every reader of bytes from outside what nobody thought of, MINUTES=5 for each
	tests/setup.sh g++:g++
	fuzz/run.sh $(MINUTES)

.PHONY: deny
deny: ## licences, sources, bans and doubles among all dependencies, as deny.toml says
	cargo deny --version 2>/dev/null || cargo install --locked cargo-deny@0.20.2
	cargo deny --locked check -D unmatched-skip bans licenses sources

.PHONY: bench
bench: ## CPU time and rate per request beside nginx and HAProxy (bench/README.md)
	bench/setup.sh
	cargo build --locked --release
	bench/run.py --peers nginx,haproxy,floor --scenario allow,deny,1k --rounds 5 --duration 2 \
	  --extra 'keyward:0:$(CURDIR)/bench/keyward.sh $(CURDIR)/target/release/keyward {port} {upstream} {keys} {dir}'

.PHONY: profiled
profiled: ## the release build, shaped by a run of the program: target/profiled/release/keyward, for Debian with LLVM
	deploy/profiled.sh
