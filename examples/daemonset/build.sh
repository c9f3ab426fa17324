#!/bin/sh
# build.sh [OUT.tar]: the image of the DaemonSet: `weft` and `weft-net` in one layer and nothing else, no shell, no
# library. Both are linked statically with glibc and libpcap.
#   PROFILE=release   the cargo profile
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

# Debian's libpcap can listen to the message bus, and libdbus cannot be linked statically (it wants libsystemd). Those
# functions are reached only for the devices dbus-system and dbus-session: here they end the program.
library=$(cc -print-file-name=libpcap.a)
[ -e "$library" ] || { echo "build.sh: no libpcap.a: install libpcap-dev" >&2; exit 1; }
nm -u "$library" | sed -n 's/^ *U \(dbus_[a-z_]*\)$/\1/p' | sort -u |
  sed 's/.*/void &(void);\nvoid &(void) { __builtin_trap(); }/' >"$work/lib/nobus.c"
cc -c "$work/lib/nobus.c" -o "$work/lib/nobus.o"
# One archive, because the order of archives on the linker's command line is not ours.
cp "$library" "$work/lib/libpcap.a"
ar r "$work/lib/libpcap.a" "$work/lib/nobus.o" 2>/dev/null

# With --target the flags reach the programs and not what only runs while building.
cd "$root"
LIBPCAP_LIBDIR=$work/lib RUSTFLAGS="-C target-feature=+crt-static" \
  cargo build --quiet --target "$host" --target-dir "$work/build" --profile "$profile" -p weft-router -p weft-cni --bins
folder=$profile
[ "$profile" != dev ] || folder=debug
for program in weft weft-net; do
  cp "$work/build/$host/$folder/$program" "$work/layer/usr/local/bin/"
  strip "$work/layer/usr/local/bin/$program"
done
"$here/archive.sh" "$work/layer" "$image" "$out" /usr/local/bin/weft
echo "$out: $image, $(du -k "$out" | cut -f1) KiB"
