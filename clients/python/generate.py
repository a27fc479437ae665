"""Makes `src/undertone/_generated` from the protocol: messages and their types, nothing else.

The protocol lies in `proto/` of the repository, or beside this file in a source distribution. Two things are changed in
what protoc writes, so that it gets along with anybody else's code for `undertone.v1`:

- the modules are imported from `undertone._generated`;
- descriptors go to a pool of the package's own: another version of these files in the default one would be an error.

    python generate.py        # needs grpcio-tools, at the version that pyproject.toml names
"""

import importlib.resources
import os
import pathlib
import re
import shutil
import tempfile

from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "src" / "undertone" / "_generated"
PACKAGE = "undertone._generated.undertone.v1"

POOL = '''"""The descriptors of this package, apart from the process's default pool."""

from google.protobuf import descriptor_pool, duration_pb2, timestamp_pb2

POOL = descriptor_pool.DescriptorPool()
for well_known in (duration_pb2, timestamp_pb2):
    POOL.AddSerializedFile(well_known.DESCRIPTOR.serialized_pb)
'''


def proto_folder() -> pathlib.Path:
    """Where the protocol lies: beside this file in a source distribution, else at the repository's root."""
    for folder in (HERE / "proto", HERE.parents[1] / "proto"):
        if (folder / "undertone" / "v1").is_dir():
            return folder
    raise SystemExit(f"no protocol: neither {HERE / 'proto'} nor {HERE.parents[1] / 'proto'} has undertone/v1")


def replace(text: str, pattern: str, by: str) -> str:
    """Replaces all matches of `pattern`; there must be one, else protoc writes otherwise than it did."""
    text, count = re.subn(pattern, by, text, flags=re.MULTILINE)
    if not count:
        raise SystemExit(f"nothing in the generated code matches {pattern!r}: does generate.py fit this grpcio-tools?")
    return text


def generate() -> None:
    """Writes the package `undertone._generated`, file by file, so that who imports it meanwhile finds it whole."""
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder)
        write(made)
        new = {path.relative_to(made) for path in made.rglob("*.py*")}
        for path in new:
            (OUT / path).parent.mkdir(parents=True, exist_ok=True)
            beside = OUT / path.parent / f".{path.name}.{os.getpid()}"
            shutil.copyfile(made / path, beside)
            beside.replace(OUT / path)
        for path in OUT.rglob("*_pb2.py*"):
            if path.relative_to(OUT) not in new and "__pycache__" not in path.parts:
                path.unlink()


def write(out: pathlib.Path) -> None:
    """Writes the package to an empty folder."""
    proto = proto_folder()
    files = sorted(path.relative_to(proto).as_posix() for path in proto.glob("undertone/v1/*.proto"))
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    if protoc.main(["protoc", f"-I{proto}", f"-I{well_known}", f"--python_out={out}", f"--pyi_out={out}", *files]):
        raise SystemExit("protoc refuses the protocol")
    (out / "pool.py").write_text(POOL)
    for folder in (out, out / "undertone", out / "undertone" / "v1"):
        (folder / "__init__.py").write_text('"""Generated; see generate.py."""\n')
    for path in out.rglob("*_pb2.py*"):
        text = re.sub(r"^from undertone\.v1 import", f"from {PACKAGE} import", path.read_text(), flags=re.MULTILINE)
        if path.suffix == ".py":
            text = replace(
                text,
                r"^from google\.protobuf import descriptor_pool as _descriptor_pool$",
                "from undertone._generated.pool import POOL as _POOL",
            )
            text = replace(text, r"_descriptor_pool\.Default\(\)", "_POOL")
        path.write_text(text)


if __name__ == "__main__":
    generate()
