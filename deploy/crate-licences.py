"""The licence texts of the crates inside the binary, as one text: their licences ask that these go with it.

In: `cargo metadata --format-version 1 --filter-platform TARGET` on standard input, whose `manifest_path` must exist. Out, on standard
output: each text once, under the crates that it is the licence of. Crates that only build or test the service are left out. A crate
that ships no text is listed with what its Cargo.toml says.
"""

import json
import pathlib
import re
import sys

NAMES = re.compile(r"(licen[cs]e|copying|notice|unlicense|copyright)", re.IGNORECASE)
LARGEST_BYTES = 200_000


def shipped(metadata):
    """The packages that the binary is linked from, without our own."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    seen, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        if package in seen:
            continue
        seen.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    packages = [package for package in metadata["packages"] if package["id"] in seen - {root}]
    return sorted(packages, key=lambda package: (package["name"], package["version"]))


def texts_of(package):
    """The licence files beside a package's manifest."""
    folder = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(folder.iterdir()):
        if NAMES.match(path.name) and path.is_file() and path.stat().st_size <= LARGEST_BYTES:
            yield path.read_text("utf-8", "replace").strip()


def main():
    packages = shipped(json.load(sys.stdin))
    if not packages:
        sys.exit("cargo metadata names no dependencies")
    holders, without = {}, []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        texts = list(texts_of(package))
        for text in texts:
            holders.setdefault(text, []).append(name)
        if not texts:
            without.append(f"{name}: {package['license'] or 'see its source'}")
    print(f"The {len(packages)} crates inside undertone, and their licences.\n")
    if without:
        print("Without a text of their own:\n" + "\n".join(without) + "\n")
    for text, names in holders.items():
        print("=" * 100 + "\n" + ", ".join(names) + "\n" + "-" * 100 + f"\n{text}\n")


if __name__ == "__main__":
    main()
