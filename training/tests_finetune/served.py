"""The Rust service on a packaged model: the binary in UNDERTONE_BIN, and ONNX Runtime where `make setup` puts it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

HELLO = Path(__file__).resolve().parents[2] / "tests" / "data" / "hello.wav"


def undertone(*typed: object) -> str:
    binary = os.environ.get("UNDERTONE_BIN")
    assert binary, "set UNDERTONE_BIN to the built binary, such as target/debug/undertone; `make test-finetune` does"
    ran = subprocess.run([binary, *map(str, typed)], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def checked(folder: Path) -> str:
    """`check` loads the model: hash, shapes, a warm-up run, finite outputs."""
    return undertone("check", "--model", folder)


def analysed(folder: Path) -> dict:
    """What the model says of the synthesised sentence."""
    return json.loads(undertone("analyze", "--model", folder, "--model-name", folder.name, "--format", "json", HELLO))
