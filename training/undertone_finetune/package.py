"""The model's folder: `model.onnx`, `model.toml`, `MODEL_CARD.md`."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from . import export
from .export import Proof

# corpus: its name, its licence, whether that allows commercial use.
CORPORA = {
    "ravdess": ("RAVDESS", "CC BY-NC-SA 4.0", False),
    "tess": ("TESS", "CC BY-NC-ND 4.0", False),
    "savee": ("SAVEE", "research use, on registration", False),
    "crema-d": ("CREMA-D", "ODbL 1.0", True),
}
# Licences that allow commercial use. Anything else is taken as not allowing it: to be told so wrongly costs less.
PERMISSIVE = {
    "mit",
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "odbl-1.0",
}
NOT_STATED = "not stated"


@dataclass
class Source:
    """Something that the weights come from: a corpus, or another model's weights."""

    name: str
    licence: str

    @property
    def commercial(self) -> bool:
        known = {name: allowed for name, _, allowed in CORPORA.values()}
        plain = self.licence.lower().replace(" ", "-")
        return known.get(self.name, plain in PERMISSIVE)


@dataclass
class Description:
    """All that manifest and card say beside what can be read off the file."""

    name: str
    version: str
    line: str
    window: int
    stride_hops: int
    labels: list[str] | None
    dimensions: list[str] | None
    sources: list[Source]
    protocol: str
    temperature: float = 1.0
    figures: dict[str, float] = field(default_factory=dict)
    # Paragraphs for the card.
    made: str = ""
    measured: str = ""
    limits: str = ""

    @property
    def output(self) -> str:
        return "dimensions" if self.dimensions else "logits"


def quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(text, ensure_ascii=False)


def name_of(folder: Path) -> str:
    """A name that the manifest takes, out of a folder's."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", folder.resolve().name)[:64] or "model"


def corpus_source(corpus: str, told: dict[str, str]) -> Source:
    name, licence, _ = CORPORA.get(corpus, (corpus, NOT_STATED, False))
    return Source(name, told.get(corpus, licence))


def manifest(description: Description, onnx: Path) -> str:
    outputs = description.labels or description.dimensions or []
    listed = lambda names: "[" + ", ".join(map(quoted, names)) + "]"
    lines = ["schema = 1", f"name = {quoted(description.name)}", f"version = {quoted(description.version)}"]
    lines += ['kind = "window-waveform"', f"description = {quoted(description.line)}"]
    if description.labels:
        lines.append(f"labels = {listed(description.labels)}")
    lines += [f'sha256 = "{hashlib.sha256(onnx.read_bytes()).hexdigest()}"', ""]
    lines += ["[front_end]", "sample_rate_hz = 16000", ""]
    lines += ["[input]", f"name = {quoted(export.INPUT)}", f'shape = ["batch", {description.window}]', ""]
    lines += ["[window]", f"stride_hops = {description.stride_hops}", ""]
    lines += ["[output]", f"name = {quoted(description.output)}", f'shape = ["batch", {len(outputs)}]']
    if description.dimensions:
        lines += [f"dimensions = {listed(description.dimensions)}", ""]
    else:
        lines += ["", "[calibration]", f"temperature = {description.temperature:.4f}", ""]
    for source in description.sources:
        lines += ["[[training_data]]", f"corpus = {quoted(source.name)}", f"licence = {quoted(source.licence)}"]
        lines += [f"commercial_use = {str(source.commercial).lower()}", ""]
    lines += ["[figures]", f"protocol = {quoted(description.protocol)}"]
    lines += [f"{name} = {number(value)}" for name, value in description.figures.items()]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """A TOML float of four significant digits."""
    text = f"{value:.4g}"
    return text if any(sign in text for sign in ".e") else f"{text}.0"


def table(per_corpus: dict[str, dict[str, float]]) -> str:
    """Figures per corpus, in Markdown and for the terminal."""
    rows = [
        f"| {CORPORA.get(corpus, (corpus,))[0]} | {row['clips']} | {100 * row['ua']:.1f} | {100 * row['wa']:.1f} | {row['nll']:.2f} |"
        for corpus, row in per_corpus.items()
    ]
    return "\n".join(["| corpus | clips | UA, % | WA, % | NLL |", "|---|---|---|---|---|", *rows])


def card(description: Description, proof: Proof, quantised: str) -> str:
    template = Template((Path(__file__).parent / "card.md").read_text(encoding="utf-8"))
    sources = "\n".join(
        f"| {one.name} | {one.licence} | {'yes' if one.commercial else '**no**'} |" for one in description.sources
    )
    return template.substitute(
        name=description.name,
        version=description.version,
        line=description.line,
        outputs=", ".join(description.labels or description.dimensions or []),
        seconds=f"{description.window / 16_000:g}",
        stride_ms=f"{description.stride_hops * 16:g}",
        made=description.made,
        sources=f"| from | licence | commercial use |\n|---|---|---|\n{sources}",
        protocol=description.protocol,
        measured=description.measured,
        temperature=f"{description.temperature:.3f}",
        megabytes=f"{proof.bytes / 1e6:.1f}",
        disparity=f"{proof.disparity:.1g}",
        quantised=quantised,
        ms=f"{proof.ms_per_window:.1f}",
        load=f"{100 * proof.ms_per_window / (16 * description.stride_hops):.1f}",
        limits=description.limits,
    )


def write(description: Description, folder: Path, proof: Proof, quantised: str = "") -> None:
    """Manifest and card beside the `model.onnx` that stands in `folder`."""
    description.figures |= {"ms_per_window": proof.ms_per_window, "onnx_disparity": proof.disparity}
    (folder / "model.toml").write_text(manifest(description, folder / "model.onnx"), encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(card(description, proof, quantised), encoding="utf-8")
