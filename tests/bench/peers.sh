#!/usr/bin/env bash
# Fetches the programs the bench compares with, into a directory of their own: nothing is installed on the machine.
#
#   peers.sh DIR none|apt|all
#
# Debian packages come through apt-get with lists and cache under DIR and are unpacked there, with those libraries the
# machine lacks; crates (`all`) through cargo install. What cannot be had leaves its reason in DIR/NAME.missing, which
# the bench prints in place of a row. Never fails because of a peer.
set -uo pipefail
PATH="$PATH:/usr/sbin:/sbin"

dir=$(mkdir -p "$1" && cd "$1" && pwd)
which=$2
work=$dir/work
mkdir -p "$work"

miss() { # NAME REASON
  echo "bench: no $1: $2"
  printf '%s\n' "$2" >"$dir/$1.missing"
}

# apt-get of one Debian release, with nothing of the system's but its knowledge of what is installed.
apt_of() { # SUITE WORDS...
  local suite=$1 root=$work/$1
  shift
  mkdir -p "$root/lists/partial" "$root/cache/archives/partial"
  echo "deb http://deb.debian.org/debian $suite main" >"$root/sources.list"
  apt-get -qq -o Dir::Etc::sourcelist="$root/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$root/lists" -o Dir::Cache="$root/cache" -o Acquire::Languages=none \
    -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o APT::Sandbox::User="" -o Debug::NoLocking=1 \
    -o APT::Install-Recommends=false "$@"
}

update() { # SUITE
  [ -e "$work/$1/updated" ] && return 0
  echo "bench: fetching the package lists of Debian $1"
  apt_of "$1" update >"$work/$1.log" 2>&1 && touch "$work/$1/updated"
}

# A package with what it needs and the machine lacks, unpacked into DIR/SUITE; `download` leaves its dependencies out.
package() { # SUITE PACKAGE PROGRAM PEER [download]
  local suite=$1 package=$2 program=$3 peer=$4 how=${5:-install}
  rm -f "$dir/$peer.missing"
  if [ "$how" = install ] && command -v "$program" >/dev/null; then return; fi
  if [ -x "$dir/$suite/usr/bin/$program" ] || [ -x "$dir/$suite/usr/sbin/$program" ]; then return; fi
  if ! command -v apt-get >/dev/null; then
    miss "$peer" "$program is not installed and there is no apt-get to fetch it with"
    return
  fi
  if ! update "$suite"; then
    miss "$peer" "the package lists of Debian $suite cannot be had: $(tail -n 1 "$work/$suite.log")"
    return
  fi
  local debs=$work/debs/$peer
  rm -rf "$debs" && mkdir -p "$debs/partial"
  echo "bench: fetching $package of Debian $suite"
  if [ "$how" = install ]; then
    apt_of "$suite" -y -o Dir::Cache::archives="$debs" install --download-only "$package" >"$work/$peer.log" 2>&1
  else
    (cd "$debs" && apt_of "$suite" download "$package") >"$work/$peer.log" 2>&1
  fi
  local deb unpacked=0
  for deb in "$debs"/*.deb; do
    [ -e "$deb" ] && dpkg-deb -x "$deb" "$dir/$suite" && unpacked=1
    case ${deb##*/} in "$package"_*) dpkg-deb -f "$deb" Version >"$dir/$peer.version" ;; esac
  done
  rm -rf "$debs"
  [ $unpacked = 1 ] || miss "$peer" "$package of Debian $suite: $(tail -n 1 "$work/$peer.log")"
}

crate() { # CRATE PROGRAM PEER
  rm -f "$dir/$3.missing"
  if command -v "$2" >/dev/null || [ -x "$dir/bin/$2" ]; then return; fi
  echo "bench: building $1 (a few minutes, once)"
  "${CARGO:-cargo}" install --quiet --locked --root "$dir" --target-dir "$work/cargo" "$1" >"$work/$3.log" 2>&1 ||
    miss "$3" "cargo install $1: $(grep -m 1 '^error' "$work/$3.log" || tail -n 1 "$work/$3.log")"
  rm -rf "$work/cargo"
}

package bookworm iperf3 iperf3 iperf3
case $which in
  none | apt | all) ;;
  *)
    echo "bench: PEERS is none, apt or all, not '$which'" >&2
    exit 2
    ;;
esac
if [ "$which" != none ]; then
  package bookworm wireguard-tools wg wireguard-tools
  package bookworm wireguard-go wireguard-go wireguard-go
  package trixie wireguard-go wireguard-go wireguard-go-new download
  package bookworm tinc tincd tinc
  package bookworm fastd fastd fastd
  package bookworm openvpn openvpn openvpn
  package bookworm openssl openssl openssl
fi
if [ "$which" = all ]; then
  crate vpncloud vpncloud vpncloud
  crate boringtun-cli boringtun-cli boringtun
fi
exit 0
