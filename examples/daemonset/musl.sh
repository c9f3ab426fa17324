#!/bin/sh
# musl.sh DIR: makes DIR/rustc, a compiler for static musl programs, from Debian's packages (the compiler Debian builds
# its browsers with, the sources of its standard library, and musl). They are unpacked in DIR; nothing is installed.
# Wanted where the toolchain at hand has no musl target. Needs apt-get, dpkg-deb, cc, ar, and 1 GB for the unpacked.
set -eu
dir=$1
host=$(rustc -vV | sed -n 's/^host: //p')
arch=${host%%-*}
[ ! -x "$dir/rustc" ] || exit 0
rm -rf "$dir" && mkdir -p "$dir/packages" "$dir/root"
cd "$dir/packages"

# A machine that never asked what packages there are asks now, into DIR.
if ! apt-cache show rustc-web >/dev/null 2>&1; then
  mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
  printf 'Dir::State::Lists "%s/apt/lists";\nDir::Cache "%s/apt/cache";\n' "$dir" "$dir" >"$dir/apt/apt.conf"
  export APT_CONFIG="$dir/apt/apt.conf"
  apt-get update -qq
fi

# What the compiler needs of its own, by the packages' word: the numbers in these names move with each version.
needs() { apt-cache depends --important "$1" | sed -n "s/^ *Depends: \($2[^ ]*\)$/\1/p"; }
development=$(needs rustc-web libstd-rust)
runtime=$(needs "$development" libstd-rust)
apt-get download -qq rustc-web rust-web-src musl-dev "$development" "$runtime" "$(needs "$runtime" libllvm)"
for package in *.deb; do dpkg-deb -x "$package" "$dir/root"; done
rm -rf "$dir/packages" "$dir/apt"

# Where the compiler looks for what a musl program starts with. Debian's gcc unwinds by asking glibc where an object is;
# we neither have that nor unwind.
parts=$dir/root/usr/lib/rustlib/$arch-unknown-linux-musl/lib/self-contained
mkdir -p "$parts"
cp "$dir/root/usr/lib/$arch-linux-musl/"*crt*.o "$dir/root/usr/lib/$arch-linux-musl/libc.a" "$parts"
for object in crtbegin.o crtbeginS.o crtend.o crtendS.o; do cp "$(cc -print-file-name=$object)" "$parts"; done
cp "$(cc -print-file-name=libgcc_eh.a)" "$parts/libunwind.a"
echo 'int _dl_find_object(void *address, void *found) { (void)address; (void)found; return -1; }' >"$parts/find.c"
cc -O2 -c "$parts/find.c" -o "$parts/find.o"
ar r "$parts/libunwind.a" "$parts/find.o" 2>/dev/null

cat >"$dir/rustc" <<SH
#!/bin/sh
LD_LIBRARY_PATH=$dir/root/usr/lib/$arch-linux-gnu exec "$dir/root/usr/bin/rustc" "\$@"
SH
chmod +x "$dir/rustc"
