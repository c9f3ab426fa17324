#!/bin/sh
# build.sh [OUT.tar]: the image of the DaemonSet: `weft` and `weft-net` in one layer and nothing else, no shell, no
# library. Both are linked statically, `weft` with glibc and libpcap, `weft-net` with musl.
#   PROFILE=release   the cargo profile of `weft`
#   IMAGE=docker.io/local/weft:latest
# Needs cargo, cc, tar and libpcap-dev.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:-$root/target/image/weft.tar}
profile=${PROFILE:-release}
image=${IMAGE:-docker.io/local/weft:latest}
host=$(rustc -vV | sed -n 's/^host: //p')
work=$root/target/image
rm -rf "$work/layer"
mkdir -p "$work/lib" "$work/layer/usr/local/bin" "$(dirname "$out")"

# Debian's libpcap can also listen to the message bus, by libdbus, which cannot be linked statically (it wants
# libsystemd). That one member of the archive is replaced by one that knows no such device.
library=$(cc -print-file-name=libpcap.a)
[ -e "$library" ] || { echo "build.sh: no libpcap.a: install libpcap-dev" >&2; exit 1; }
cp "$library" "$work/lib/libpcap.a"
if ar t "$library" | grep -qx pcap-dbus.o; then
  cat >"$work/lib/pcap-dbus.c" <<'C'
void *dbus_create(const char *device, char *error, int *is_ours) { (void)device; (void)error; *is_ours = 0; return 0; }
int dbus_findalldevs(void *devices, char *error) { (void)devices; (void)error; return 0; }
C
  cc -O2 -c "$work/lib/pcap-dbus.c" -o "$work/lib/pcap-dbus.o"
  ar r "$work/lib/libpcap.a" "$work/lib/pcap-dbus.o"
fi

# With --target the flags reach the programs and not what only runs while building.
cd "$root"
built() { # PACKAGE TARGET PROFILE [FLAG...]: builds it and puts its program into the layer
  package=$1 target=$2 with=$3
  shift 3
  cargo build --quiet --target "$target" --target-dir "$work/build" --profile "$with" -p "$package" --bins "$@"
  folder=$with
  [ "$with" != dev ] || folder=debug
  for program in weft weft-net; do
    [ ! -x "$work/build/$target/$folder/$program" ] || cp "$work/build/$target/$folder/$program" "$work/layer/usr/local/bin/"
  done
}
export LIBPCAP_LIBDIR=$work/lib RUSTFLAGS="-C target-feature=+crt-static"
built weft-router "$host" "$profile"

# The plugin is started for every pod, so it is built for size and with musl: 0.5 MB; with glibc it is three times that.
musl=${host%%-*}-unknown-linux-musl
if [ -d "$(rustc --print target-libdir --target "$musl")" ]; then
  built weft-cni "$musl" cni
elif "$here/musl.sh" "$work/musl" 2>"$work/musl.log"; then
  RUSTC=$work/musl/rustc RUSTC_BOOTSTRAP=1 built weft-cni "$musl" cni -Z build-std=std,panic_abort -Z build-std-features=
else
  echo "build.sh: no musl to be had ($work/musl.log); weft-net is linked with glibc" >&2
  built weft-cni "$host" cni
fi
strip "$work/layer/usr/local/bin/"*
"$here/archive.sh" "$work/layer" "$image" "$out" /usr/local/bin/weft
echo "$out: $image, $(du -k "$out" | cut -f1) KiB"
