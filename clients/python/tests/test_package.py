"""What is shipped: built from the sources alone, whole, and at peace with other packages' generated code."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from server import ROOT

PACKAGE = ROOT / "clients" / "python"
GENERATED = {f"undertone/_generated/undertone/v1/{name}_pb2.py" for name in (
    "emotion", "emotion_service", "escalation", "escalation_service", "session_service",
)}  # fmt: skip


def run(*command: object, cwd: pathlib.Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """A wheel of a source distribution of a checkout that holds nothing generated, away from the repository."""
    folder = tmp_path_factory.mktemp("package")
    checkout = folder / "repository" / "clients" / "python"
    ignored = shutil.ignore_patterns("_generated", "dist", "__pycache__", ".*cache", ".hypothesis", "tests")
    shutil.copytree(PACKAGE, checkout, ignore=ignored)
    shutil.copytree(ROOT / "proto", folder / "repository" / "proto")
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", folder, ".", cwd=checkout)
    shutil.rmtree(folder / "repository")
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    shutil.rmtree(unpacked / "src" / "undertone" / "_generated")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, unpacked, cwd=folder)
    [wheel] = folder.glob("*.whl")
    return wheel


def test_a_wheel_has_the_generated_code_the_types_and_the_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= GENERATED | {name + "i" for name in GENERATED} | {"undertone/py.typed", "undertone/client.py"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith(("undertone/", "undertone-")) for name in names)


def test_a_wheel_works_by_itself(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = "import undertone; print(undertone.__file__); print(len(undertone.__all__))"
    where, names = run(
        sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {script}", cwd=tmp_path
    ).split()
    assert pathlib.Path(where).is_relative_to(tmp_path)
    assert int(names) > 50


def test_another_version_of_the_protocol_in_the_same_process_is_no_matter(tmp_path):
    """Others generate code too, into a module `undertone.v1` or another one, and of another version."""
    proto = tmp_path / "undertone" / "v1" / "emotion_service.proto"
    proto.parent.mkdir(parents=True)
    proto.write_text('syntax = "proto3"; package undertone.v1; message StreamConfig { string other = 1; }')
    out = tmp_path / "theirs"
    out.mkdir()
    run(sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"--python_out={out}", proto, cwd=tmp_path)
    theirs = "undertone/v1/emotion_service_pb2.py"
    script = f"""
import importlib.util, sys
def theirs():
    spec = importlib.util.spec_from_file_location("theirs", {str(out / theirs)!r})
    module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
    return module.StreamConfig(other="x")
def ours():
    from undertone._generated.undertone.v1 import emotion_service_pb2
    return emotion_service_pb2.StreamConfig(session_id="y")
for make in {{order}}:
    make().SerializeToString()
"""
    for order in ("theirs, ours", "ours, theirs"):
        run(sys.executable, "-c", script.replace("{order}", f"({order})"), cwd=tmp_path)


def test_all_that_is_public_is_documented_and_has_no_protobuf_in_it():
    import inspect

    import undertone

    for name in undertone.__all__:
        thing = getattr(undertone, name)
        if inspect.isclass(thing):
            assert thing.__doc__, name
            for member, function in inspect.getmembers(thing, inspect.isfunction):
                if not member.startswith("_"):
                    assert function.__doc__, f"{name}.{member}"
                    assert "pb2" not in str(inspect.signature(function)), f"{name}.{member}"
    assert sorted(undertone.__all__) == sorted(set(undertone.__all__))


def test_the_version_is_said_once_and_in_the_changelog():
    import re

    import undertone

    declared = re.search(r'^version = "(.*)"', (PACKAGE / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert declared[1] == undertone.__version__
    assert f"## {undertone.__version__}" in (PACKAGE / "CHANGELOG.md").read_text()
