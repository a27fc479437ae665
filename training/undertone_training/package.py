"""Model folders: `model.onnx` and `model.toml`, and the protocol folder of the models that stand in for a shipped one
on speakers that they have not heard, as `undertone evaluate` reads it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

from . import export, labels
from .cepstra import MEL_BANDS
from .data import COEFFICIENTS, STEP_HOPS
from .model import Ensemble

SAMPLE_RATE_HZ = 16000
HOP_SAMPLES = 256
FRAME_SAMPLES = 1024
REFERENCE_DECAY_DB_PER_S = 1.0
# Float32 sums in another order differ by about 1e-6 on logits of this size.
LARGEST_DISPARITY = 1e-4

# corpus, as manifests of clips name it: name, licence, whether it allows commercial use
TRAINING_DATA = {
    "ravdess": ("RAVDESS", "CC BY-NC-SA 4.0", False),
    "tess": ("TESS", "CC BY-NC-ND 4.0", False),
    "savee": ("SAVEE", "research use, on registration", False),
    "crema-d": ("CREMA-D", "ODbL 1.0", True),
}


def quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(text, ensure_ascii=False)


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def description(corpora: tuple[str, ...]) -> str:
    names = listed([name for corpus, (name, _, _) in TRAINING_DATA.items() if corpus in corpora])
    number = {6: "six", 7: "seven", 8: "eight"}[len(labels.of(corpora))]
    return f"Causal LSTM on MFCCs, {number} emotions, trained on {names} (acted English)"


def write(
    folder: Path, name: str, version: str, model: Ensemble, corpora: tuple[str, ...], temperature: float
) -> float:
    """Writes `model.onnx` and `model.toml` into `folder`; returns the graph's largest disparity from `model`.

    Raises RuntimeError where that is more than rounding.
    """
    made = export.build(model)
    disparity = export.disparity(model, made)
    if disparity > LARGEST_DISPARITY:
        raise RuntimeError(f"the exported graph differs from the network by {disparity}, more than {LARGEST_DISPARITY}")
    folder.mkdir(parents=True, exist_ok=True)
    content = made.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    text = manifest(name, version, hashlib.sha256(content).hexdigest(), model, corpora, temperature)
    (folder / "model.toml").write_text(text, encoding="utf-8")
    return disparity


def manifest(
    name: str, version: str, sha256: str, model: Ensemble, corpora: tuple[str, ...], temperature: float
) -> str:
    """The text of `model.toml`, without figures."""
    names = labels.of(corpora)
    blocks = [
        f"""schema = 1
name = {quoted(name)}
version = {quoted(version)}
kind = "streaming-mfcc"
description = {quoted(description(corpora))}
labels = [{", ".join(map(quoted, names))}]
sha256 = "{sha256}"

[front_end]
sample_rate_hz = {SAMPLE_RATE_HZ}
hop_samples = {HOP_SAMPLES}
frame_samples = {FRAME_SAMPLES}
mel_bands = {MEL_BANDS}
coefficients = {COEFFICIENTS}
reference_decay_db_per_s = {REFERENCE_DECAY_DB_PER_S}

[input]
name = "mfcc"
shape = ["batch", {STEP_HOPS}, {COEFFICIENTS}]

[[state]]
input = "state"
output = "next_state"
shape = ["batch", {model.state_size}]

[output]
name = "logits"
shape = ["batch", {len(names)}]

[calibration]
temperature = {temperature:.4f}
"""
    ]
    for corpus, (published, licence, commercial) in TRAINING_DATA.items():
        if corpus in corpora:
            blocks.append(
                f"[[training_data]]\ncorpus = {quoted(published)}\nlicence = {quoted(licence)}\n"
                f"commercial_use = {str(commercial).lower()}\n"
            )
    return "\n".join(blocks)


def append_figures(toml: Path, protocol: str, figures: dict[str, float]) -> None:
    """Puts `figures` into the manifest `toml`, in place of any that stand there (they are its last table)."""
    text = toml.read_text(encoding="utf-8").split("\n[figures]\n")[0].rstrip("\n")
    lines = [f"{name} = {value:.4f}" for name, value in figures.items()]
    text = "\n".join([text, "", "[figures]", f"protocol = {quoted(protocol)}", *lines, ""])
    tomllib.loads(text)
    toml.write_text(text, encoding="utf-8")
