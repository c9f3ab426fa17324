#!/usr/bin/env bash
# Runs a program that makes network namespaces: as root when we are root, else as root of a user namespace of its own,
# else through sudo. Cargo calls it as the runner of the tests, so that the build itself never needs root.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"
export PATH

if [ "$(id -u)" = 0 ]; then
  exec "$@"
fi
if unshare -Urnm true 2>/dev/null; then
  # A /run of our own: namespaces are named under /run/netns, which belongs to the real root.
  exec unshare -Urnm sh -c 'mount -t tmpfs tmpfs /run && mkdir /run/netns && exec "$@"' sh "$@"
fi
exec sudo --preserve-env=WEFT_BIN,RUST_BACKTRACE,RUST_LIB_BACKTRACE "$@"
