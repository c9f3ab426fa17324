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
