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
	$(MAKE) cluster

.PHONY: cluster
cluster: ## what runs in a cluster: charts by Helm 3 and 4, held against the schemas of Kubernetes and of the program
	tests/setup.sh openssl:openssl node:nodejs npm:npm
	cargo build --locked
	tools=$$(tests/cluster/setup.sh) && \
	$$tools/venv/bin/python charts/generate.py --check target/debug/keyward && \
	$$tools/venv/bin/python tests/cluster/charts.py $$tools target/debug/keyward

OUT ?= target/image
.PHONY: image
image: ## the image: one static program, as an OCI layout and a tar in OUT=target/image
	tests/setup.sh buildah:buildah git:git
	deploy/image.sh $(OUT)

.PHONY: pod
pod: ## the image and a sidecar in a real Pod, by podman, with an old XML server and Prometheus; needs root and `make image`
	tests/setup.sh podman:podman runc:runc catatonit:catatonit /usr/lib/podman/netavark:netavark nsenter:util-linux \
	  icecast2:icecast2 prometheus:prometheus curl:curl
	cargo build --locked
	tools=$$(tests/cluster/setup.sh) && $$tools/venv/bin/python tests/cluster/pod.py $$tools $(OUT)/keyward.tar target/debug/keyward

.PHONY: generate
generate: ## what in charts and documents follows from the program
	cargo build --locked
	$$(tests/cluster/setup.sh)/venv/bin/python charts/generate.py target/debug/keyward

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
	cargo test --locked --test it zero_loss:: -- --nocapture

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

.PHONY: profiled
profiled: ## the release build, shaped by a run of the program: target/profiled/release/keyward, for Debian with LLVM
	deploy/profiled.sh
