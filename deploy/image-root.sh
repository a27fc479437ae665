#!/bin/sh
# Lays out the root of the container image; deploy/Dockerfile runs it in a Debian.
# In: a folder with `undertone`, `libonnxruntime.so` and their licences. Out: a folder with these, the shared libraries that
# they load, root certificates, one user, and of each Debian package its licence and its entry for scanners.
set -eu

staged=$1
root=$2

mkdir -p "$root/usr/bin" "$root/usr/lib/undertone" "$root/usr/share/doc/undertone" "$root/etc/ssl/certs" \
    "$root/var/lib/dpkg/status.d" "$root/var/lib/undertone"
install -m 755 "$staged/undertone" "$root/usr/bin/undertone"
install -m 644 "$staged/libonnxruntime.so" "$root/usr/lib/undertone/libonnxruntime.so"
install -m 644 "$staged/LICENSE" "$root/usr/share/doc/undertone/LICENSE"
install -m 644 "$staged/crates-LICENSES.txt" "$root/usr/share/doc/undertone/crates-LICENSES.txt"
install -m 644 "$staged/ThirdPartyNotices.txt" "$root/usr/share/doc/undertone/onnxruntime-ThirdPartyNotices.txt"
install -m 644 "$staged/model/LICENSE.md" "$root/usr/share/doc/undertone/undertone-four-LICENSE.md"
install -m 644 "$staged/model/MODEL_CARD.md" "$root/usr/share/doc/undertone/undertone-four-MODEL_CARD.md"
install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
printf 'undertone:x:65532:65532::/var/lib/undertone:/nonexistent\n' >"$root/etc/passwd"
printf 'undertone:x:65532:\n' >"$root/etc/group"
# Names are looked up in files, then by DNS: glibc's own libraries for it are among those below.
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
chown 65532:65532 "$root/var/lib/undertone"

# What the loader would load, each at the path where it looks for it; links are followed.
loaded=$(for file in "$staged/undertone" "$staged/libonnxruntime.so"; do ldd "$file"; done)
case $loaded in
    *"not found"*) echo "a library is missing: $loaded" >&2 && exit 1 ;;
esac
libraries=$(printf '%s\n' "$loaded" |
    sed -n -e 's/.*=> \(\/[^ ]*\) .*/\1/p' -e 's/^[[:space:]]*\(\/[^ ]*\) (0x.*/\1/p' | sort -u)
[ -n "$libraries" ] || { echo "ldd names no libraries: $loaded" >&2 && exit 1; }
for library in $libraries; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done

packages=ca-certificates
for library in $libraries; do
    # Debian's /lib is a link to /usr/lib, and packages name either.
    owner=$(dpkg -S "$(readlink -f "$library")" "$library" "/usr$library" 2>/dev/null | head -n 1)
    [ -n "$owner" ] || { echo "no package owns $library" >&2 && exit 1; }
    packages="$packages ${owner%%:*}"
done
for package in $(printf '%s\n' $packages | sort -u); do
    dpkg -s "$package" >"$root/var/lib/dpkg/status.d/$package"
    mkdir -p "$root/usr/share/doc/$package"
    cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
done
# What the copyright files refer to.
cp -RL /usr/share/common-licenses "$root/usr/share/common-licenses"
