# One command per intent. Everything here works on a fresh Debian 12 with Rust.

CARGO ?= cargo
export WEFT_BIN := $(CURDIR)/target/release/weft
export WEFT_NET_FAULTS := $(CURDIR)/target/faults/debug/weft-net
AS_ROOT := $(CARGO) --config 'target."cfg(unix)".runner = "$(CURDIR)/tests/as-root.sh"'

.PHONY: help build image demo test unit e2e bench sim fuzz check audit setup setup-check

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build: setup ## the release binaries: target/release/weft and weft-net
	$(CARGO) build --quiet --release -p weft-router -p weft-cni --bins

image: setup ## the container image of the DaemonSet: target/image/weft.tar
	@examples/daemonset/build.sh

demo: build ## three hosts on this machine, from nothing to a healed partition, in under a minute
	$(CARGO) build --quiet -p weft-examples
	@tests/as-root.sh target/debug/hosts

test: unit e2e ## everything: unit, property and simulation tests, then real namespaces

unit: setup ## unit, property and simulation tests
	$(AS_ROOT) test --quiet --workspace --exclude weft-tests --no-fail-fast

e2e: build image ## the release binary in real network namespaces
	$(CARGO) build --quiet -p weft-cni --features faults --target-dir target/faults
	RUST_LIB_BACKTRACE=0 $(AS_ROOT) test --quiet -p weft-tests --no-fail-fast -- --test-threads=2

# QUICK=1: a short run. ROUNDS=3. PEERS=none|apt|all: whom to compare with. ONLY=vxlan,vnet: some rows.
# TCP_SECONDS=5: longer TCP runs.
bench: build ## what this build reaches beside the kernel and other tunnels; docs/performance.md
	$(CARGO) build --quiet --release -p weft-tests --bin bench
	@tests/bench/peers.sh target/bench $(or $(PEERS),apt)
	@tests/as-root.sh target/release/bench whom=$(PEERS) peers=target/bench json=target/bench.json \
	  rounds=$(ROUNDS) quick=$(QUICK) only=$(ONLY) seconds=$(TCP_SECONDS)

# SIZES="100 300": only these; the others stay in the picture as they were measured. 1000 takes forty minutes.
sim: ## gossip at 100, 300 and 1,000 peers in virtual time: docs/scale.svg
	$(CARGO) run --quiet --release -p weft-scale -- docs/scale.svg $(or $(SIZES),100 300 1000)

# SECONDS=300: so long for each target. TARGETS="node ipam_wire": only these.
fuzz: ## any bytes into every decoder and into a whole node; needs cargo-fuzz and a nightly toolchain
	@cd tests/fuzz && for target in $(or $(TARGETS),$$(cargo +nightly fuzz list --fuzz-dir .)); do \
	  cargo +nightly fuzz run --fuzz-dir . $$target -- -max_total_time=$(or $(SECONDS),300) -max_len=16384 \
	    -timeout=20 || exit 1; done

check: setup-check ## format, lints, docs, licences and bans, dependency arrows
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet --workspace --document-private-items --no-deps
	$(CARGO) deny --log-level error check bans licenses sources
	RUST_LIB_BACKTRACE=0 $(CARGO) test --quiet -p weft-tests --test architecture

audit: setup-check ## known vulnerabilities; needs the network
	$(CARGO) deny check advisories

setup:
	@tests/setup.sh

setup-check:
	@tests/setup.sh check
