"""Completes and checks the list of what is shipped (CycloneDX 1.5, JSON).

cargo-cyclonedx lists the crates that are built into the binary. What it cannot know is added here: ONNX Runtime,
whose shared library is fetched and loaded at run time (deploy/onnxruntime.txt), and the model that is embedded. The
result is checked against CycloneDX's schema.

    python deploy/sbom.py CRATES.json OUT.json
"""

import json
import re
import sys
import tomllib
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parent.parent
# The model that src/model/mod.rs embeds.
EMBEDDED = re.compile(r'include_str!\("\.\./\.\./(models/[^"]+/model\.toml)"\)')


def onnx_runtime() -> dict:
    """The one version for every machine, with the hashes of the wheels that hold the library."""
    text = (ROOT / "deploy/onnxruntime.txt").read_text(encoding="utf-8")
    version = re.search(r"^onnxruntime==(\S+)", text, re.MULTILINE)
    hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", text)
    if version is None or not hashes:
        sys.exit("deploy/onnxruntime.txt: no version or no hashes")
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/onnxruntime@{version[1]}",
        "name": "onnxruntime",
        "version": version[1],
        "description": "ONNX Runtime's shared library, loaded at run time",
        "scope": "required",
        "licenses": [{"license": {"id": "MIT"}}],
        "purl": f"pkg:pypi/onnxruntime@{version[1]}",
        "properties": [{"name": "undertone:wheel-sha256", "value": value} for value in hashes],
    }


def model() -> dict:
    """The embedded model, by the hash of its weights, with what it was trained on."""
    found = EMBEDDED.search((ROOT / "src/model/mod.rs").read_text(encoding="utf-8"))
    if found is None:
        sys.exit("src/model/mod.rs: no embedded model")
    manifest = tomllib.loads((ROOT / found[1]).read_text(encoding="utf-8"))
    corpora = [
        {"name": "undertone:training-data", "value": f"{data['corpus']}: {data['licence']}"}
        for data in manifest["training_data"]
    ]
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{manifest['name']}@{manifest['version']}",
        "name": manifest["name"],
        "version": manifest["version"],
        "description": manifest["description"],
        "scope": "required",
        "hashes": [{"alg": "SHA-256", "content": manifest["sha256"]}],
        "properties": corpora,
    }


def without_place(text: str) -> str:
    """Where the sources lay on the machine that made the list is nobody's business."""
    return text.replace(f"path+file://{ROOT}", "undertone").replace("?download_url=file://.", "")


def main() -> None:
    crates, out = map(Path, sys.argv[1:])
    bom = json.loads(without_place(crates.read_text(encoding="utf-8")))
    own = bom["metadata"]["component"]["bom-ref"]
    added = [onnx_runtime(), model()]
    bom["components"] += added
    for entry in bom["dependencies"]:
        if entry["ref"] == own:
            entry["dependsOn"] += [component["bom-ref"] for component in added]
    bom["dependencies"] += [{"ref": component["bom-ref"]} for component in added]
    text = json.dumps(bom, indent=1, ensure_ascii=False) + "\n"
    fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    if fault is not None:
        sys.exit(f"not as CycloneDX 1.5 has it: {fault}")
    out.write_text(text, encoding="utf-8")
    print(f"{out}: {len(bom['components'])} components")


if __name__ == "__main__":
    main()
