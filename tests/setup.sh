#!/usr/bin/env bash
# Installs what building and testing need and is not there yet, and says so. Debian and its like; elsewhere it names
# what is missing. `setup.sh check` adds the tools of `make check`.
set -euo pipefail

declare -A package_of=(
  [gcc]=gcc [pkg-config]=pkg-config [ip]=iproute2 [nft]=nftables [ping]=iputils-ping [make]=make [unshare]=util-linux
  # Pods: a real runtime, the reference plugins beside ours (portmap calls iptables), and an image from busybox.
  [containerd]=containerd [runc]=runc [busybox]=busybox-static [iptables]=iptables [prlimit]=util-linux
)
missing=()
for tool in "${!package_of[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null || missing+=("${package_of[$tool]}")
done
[ -e /usr/include/pcap/pcap.h ] || missing+=(libpcap-dev)
[ -e /usr/lib/cni/portmap ] || missing+=(containernetworking-plugins)
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)

if [ "${#missing[@]}" -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "setup: please install: ${missing[*]}" >&2
    exit 1
  fi
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  echo "setup: installing Debian packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v cargo >/dev/null; then
  echo "setup: no cargo: install Rust from https://rustup.rs" >&2
  exit 1
fi

if [ "${1:-}" = check ]; then
  for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
    echo "setup: installing the Rust component $component"
    rustup component add "$component"
  done
  if ! cargo deny --version >/dev/null 2>&1; then
    echo "setup: building cargo-deny (a few minutes, once)"
    cargo install cargo-deny --locked --quiet
  fi
fi
