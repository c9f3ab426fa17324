#!/bin/sh
# archive.sh ROOT NAME:TAG OUT.tar [ENTRYPOINT]: makes an image of one layer of the folder ROOT, in the form that
# `docker load`, `ctr images import`, `podman load` and `skopeo copy docker-archive:` read. Needs tar and sha256sum.
set -eu
root=$1 name=$2 out=$3 entrypoint=${4:-}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The same content gives the same image: no times, no owners, no order of the disk.
tar -C "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/layer.tar" .
layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
case $(uname -m) in
  x86_64) machine=amd64 ;;
  aarch64) machine=arm64 ;;
  *) machine=$(uname -m) ;;
esac
command='"Env":["PATH=/usr/local/bin:/usr/bin:/bin"]'
[ -z "$entrypoint" ] || command="$command,\"Entrypoint\":[\"$entrypoint\"]"
printf '{"architecture":"%s","os":"linux","config":{%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
  "$machine" "$command" "$layer" >"$work/config.json"
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$name" >"$work/manifest.json"
tar -C "$work" --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$out" manifest.json config.json layer.tar
