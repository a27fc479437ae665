#!/bin/sh
# Builds the container image with Buildah, where there is neither a Docker engine nor a registry, and tries it out; `make
# test-image`. The Dockerfile is the one that ships. Only its two base images are stand-ins: Debian by debootstrap, and the same
# with this machine's Rust toolchain.
#
# What is built is kept in .image (5 GB; IMAGE_CACHE names another folder), so that a second run is short;
# `make clean` removes it. Needs root, Linux and Debian's mirror.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
cache=${IMAGE_CACHE:-$here/.image}
suite=bookworm
# Empty for the one that debootstrap takes by itself.
mirror=${DEBIAN_MIRROR:-}
started=$(date +%s)

step() { printf '== %s (%s s)\n' "$1" "$(($(date +%s) - started))"; }
fail() { printf '%s\n' "$1" >&2 && exit 1; }

[ "$(id -u)" = 0 ] || fail "this needs root: debootstrap and Buildah's chroot isolation do"
missing=
for tool in buildah debootstrap runc openssl python3; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
[ -z "$missing" ] || fail "missing: apt-get install --no-install-recommends$missing"
toolchain=$(rustc --print sysroot 2>/dev/null) || fail "Rust is missing: install it with rustup"

mkdir -p "$cache/tmp"
# Buildah keeps cache mounts below TMPDIR.
export TMPDIR="$cache/tmp"
work=$(mktemp -d)

buildah() { command buildah --root "$cache/storage" --runroot "$cache/run" --storage-driver vfs "$@"; }

clean_up() {
    status=$?
    trap - EXIT
    buildah rm --all >/dev/null 2>&1 || true
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Makes an image of a folder's content.
import() {
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$1" / >/dev/null
    buildah config --env "PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$container"
    buildah commit --quiet --rm "$container" "$2" >/dev/null
    rm -rf "$1"
}

have() { buildah inspect --type image "$1" >/dev/null 2>&1; }

debian() {
    debootstrap --variant=minbase ${2:+--include="$2"} "$suite" "$1" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log" >&2 && fail "debootstrap failed"; }
    rm -rf "$1/var/cache/apt/archives" "$1/dev"
    mkdir -p "$1/var/cache/apt/archives/partial" "$1/dev"
}

if ! have localhost/undertone-base-debian; then
    step "a stand-in for debian:$suite-slim"
    debian "$work/debian" ""
    import "$work/debian" localhost/undertone-base-debian
fi
rust=localhost/undertone-base-rust:$(rustc -V | cut -d ' ' -f 2)
if ! have "$rust"; then
    step "a stand-in for rust:$suite"
    debian "$work/rust" binutils,gcc,libc6-dev,python3,python3-pip,ca-certificates
    mkdir -p "$work/rust/usr/local/rust"
    tar -C "$toolchain" --exclude=lib/rustlib/src -cf - bin lib | tar -C "$work/rust/usr/local/rust" -xf -
    [ -x "$work/rust/usr/local/rust/bin/cargo" ] || fail "$toolchain has no bin/cargo"
    import "$work/rust" "$rust"
fi

step "the image"
# What this machine needs to reach the registries, as secrets: no layer holds them.
set --
for secret in "cargo-config:${CARGO_HOME:-$HOME/.cargo}/config.toml" "pip-config:/etc/pip.conf" \
    "ca-certificates:${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}"; do
    file=${secret#*:}
    [ ! -f "$file" ] || set -- "$@" --secret "id=${secret%%:*},src=$file"
done
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/Cargo.toml" | head -n 1)
revision=$(git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)
# Cargo's output is progress; the image's format is Docker's, since OCI's knows no health check.
buildah build --isolation chroot --format docker --file "$here/deploy/Dockerfile" --tag localhost/undertone:test \
    --build-arg "RUST_IMAGE=$rust" --build-arg DEBIAN_IMAGE=localhost/undertone-base-debian \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "$@" "$here" ||
    fail "the image could not be built"

step "what is in it"
container=$(buildah from --pull-never localhost/undertone:test)
root=$(buildah mount "$container")
buildah inspect --type image localhost/undertone:test >"$work/image.json"
printf 'size: %s MB unpacked\n' "$(du -s --block-size=1000000 --apparent-size "$root" | cut -f 1)"

step "a trial"
python3 "$here/deploy/try-image.py" "$root" "$work/image.json" "$work" "$here/tests/data/hello.wav"
step "done"
