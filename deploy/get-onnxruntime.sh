#!/bin/sh
# Takes ONNX Runtime's shared library out of its wheel into .onnxruntime/, where undertone looks for it.
# The version and the hashes stand in onnxruntime.txt; pip checks them.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/../.onnxruntime}
python=${PYTHON:-python3}
version=$(sed -n 's/^onnxruntime==\([0-9.]*\).*/\1/p' "$here/onnxruntime.txt")

case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) platform=manylinux_2_28_x86_64 library=libonnxruntime.so.$version name=libonnxruntime.so ;;
    Linux-aarch64) platform=manylinux_2_28_aarch64 library=libonnxruntime.so.$version name=libonnxruntime.so ;;
    Darwin-arm64) platform=macosx_14_0_arm64 library=libonnxruntime.$version.dylib name=libonnxruntime.dylib ;;
    *)
        echo "There is no ONNX Runtime wheel for $(uname -s) on $(uname -m). Build the library yourself" \
            "and set ORT_DYLIB_PATH to it." >&2
        exit 1 ;;
esac

if [ -f "$target/$name" ] && [ "$(cat "$target/version" 2>/dev/null)" = "$version" ]; then
    exit 0
fi
if ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "python3 with pip is needed once, to fetch ONNX Runtime: apt-get install python3-pip" >&2
    exit 1
fi

echo "Fetching ONNX Runtime $version ..."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --implementation cp --python-version 3.12 --platform "$platform" --require-hashes \
    --requirement "$here/onnxruntime.txt" --dest "$work"
mkdir -p "$target"
# Unpacked by Python, since unzip is not on every machine; put in place by a rename, so that an
# interrupted run leaves nothing half done.
"$python" - "$work" "$library" "$target/$name" <<'PYTHON'
import pathlib, sys, zipfile
work, library, target = sys.argv[1:]
(wheel,) = pathlib.Path(work).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    data = archive.read(f"onnxruntime/capi/{library}")
    notices = archive.read("onnxruntime/ThirdPartyNotices.txt")
partial = pathlib.Path(target + ".partial")
partial.write_bytes(data)
partial.rename(target)
pathlib.Path(target).with_name("ThirdPartyNotices.txt").write_bytes(notices)
PYTHON
echo "$version" >"$target/version"
