"""Model folder: `model.onnx`, `model.toml` and `MODEL_CARD.md`. Every figure in them comes from the results file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from string import Template

from .data import COEFFICIENTS, MEL_BANDS, STEP_HOPS
from .labels import LABELS

SAMPLE_RATE_HZ = 16000
HOP_SAMPLES = 256
FRAME_SAMPLES = 1024
REFERENCE_DECAY_DB_PER_S = 1.0

DESCRIPTION = "Causal LSTM on MFCCs, eight emotions, trained on RAVDESS, TESS, SAVEE and CREMA-D (acted English)"

# corpus, as the results name it; name; licence; whether it allows commercial use
TRAINING_DATA = (
    ("ravdess", "RAVDESS", "CC BY-NC-SA 4.0", False),
    ("tess", "TESS", "CC BY-NC-ND 4.0", False),
    ("savee", "SAVEE", "research use, on registration", False),
    ("crema-d", "CREMA-D", "ODbL 1.0", True),
)


def quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's."""
    return json.dumps(text, ensure_ascii=False)


def write(name: str, version: str, folder: Path, results: dict) -> None:
    """Writes manifest and card beside the `model.onnx` that stands in `folder`."""
    (folder / "model.toml").write_text(manifest(name, version, folder / "model.onnx", results), encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(card(name, version, folder / "model.onnx", results), encoding="utf-8")


def protocol_line(results: dict) -> str:
    """How the figures were come by, in one sentence that is true of the runs that were made."""
    folds = [name.removeprefix("fold:") for name in results["folds"]]
    if not folds:
        return "not measured on unseen speakers"
    which = f"mean over folds {', '.join(folds)}" if len(folds) > 1 else f"fold {folds[0]} alone"
    return (
        f"unseen speakers, {which} of 5 with speakers apart, one seed; models trained by the same recipe without "
        "the fold they are tested on; the shipped weights are trained on all folds and are themselves not tested"
    )


def manifest(name: str, version: str, onnx: Path, results: dict) -> str:
    """The text of `model.toml`."""
    digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
    blocks = [
        f"""schema = 1
name = {quoted(name)}
version = {quoted(version)}
kind = "streaming-mfcc"
description = {quoted(DESCRIPTION)}
labels = [{", ".join(map(quoted, LABELS))}]
sha256 = "{digest}"

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
shape = ["batch", {results["state_size"]}]

[output]
name = "logits"
shape = ["batch", {len(LABELS)}]

[calibration]
temperature = {results["temperature"]:.4f}
"""
    ]
    for _, corpus, licence, commercial in TRAINING_DATA:
        blocks.append(
            f"[[training_data]]\ncorpus = {quoted(corpus)}\nlicence = {quoted(licence)}\n"
            f"commercial_use = {str(commercial).lower()}\n"
        )
    figures = [f"[figures]\nprotocol = {quoted(protocol_line(results))}"]
    for corpus, row in results["unseen_speakers"].items():
        key = corpus.replace("-", "_")
        for figure in ("ua", "wa", "macro_f1", "nll", "ece"):
            figures.append(f"{figure}_{key} = {row['open'][figure]['mean']:.4f}")
        figures.append(f"ua_of_own_labels_{key} = {row['closed']['ua']['mean']:.4f}")
    if "random_split" in results:
        pooled = results["random_split"]["pooled"]["open"]
        figures.append(f"random_split_accuracy = {pooled['wa']:.4f}")
        figures.append(f"random_split_loss = {pooled['nll']:.4f}")
    for batch, cost in results["cost_ms_per_audio_second"].items():
        figures.append(f"cpu_ms_per_audio_second_batch_{batch} = {cost:.3f}")
    blocks.append("\n".join(figures) + "\n")
    return "\n".join(blocks)


NAMES = {key: name for key, name, _, _ in TRAINING_DATA}


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def give_or_take(row: dict, folds: int, scale: float = 100.0, digits: int = 1) -> str:
    """Mean and deviation; the mean alone where one fold has nothing to deviate from."""
    mean = f"{scale * row['mean']:.{digits}f}"
    return f"{mean} ± {scale * row['deviation']:.{digits}f}" if folds > 1 else mean


def unseen_table(results: dict) -> str:
    rows = []
    for corpus, row in results["unseen_speakers"].items():
        open_, closed, folds = row["open"], row["closed"], row["folds"]
        rows.append(
            [
                NAMES[corpus],
                f"{row['clips']} / {folds}",
                *(give_or_take(open_[figure], folds) for figure in ("ua", "wa", "macro_f1")),
                give_or_take(open_["nll"], folds, 1.0, 2),
                give_or_take(open_["ece"], folds, 1.0, 3),
                give_or_take(closed["ua"], folds),
                percent(open_["ua"]["lowest"]),
            ]
        )
    heads = ["corpus", "clips / folds", "UA", "WA", "macro-F1", "NLL", "ECE", "UA, own labels", "worst fold's UA"]
    return markdown(heads, rows)


def recall_table(results: dict) -> str:
    rows = []
    for corpus, row in results["unseen_speakers"].items():
        recall = row["recall"]
        rows.append([NAMES[corpus], *(percent(recall[label]) if label in recall else "" for label in LABELS)])
    return markdown(["corpus", *LABELS], rows)


def early_table(results: dict) -> str:
    rows, seconds = [], []
    for corpus, row in results["unseen_speakers"].items():
        seconds = list(row["ua_after_seconds"])
        early = [percent(row["ua_after_seconds"][after]) for after in seconds]
        rows.append([NAMES[corpus], *early, percent(row["open"]["ua"]["mean"])])
    return markdown(["corpus", *(f"{float(after):g} s" for after in seconds), "whole clip"], rows)


def random_table(results: dict) -> str:
    rows = []
    for corpus, row in results["random_split"].items():
        figures = row["open"]
        rows.append(
            [
                NAMES.get(corpus, "**all four**"),
                str(figures["clips"]),
                *(percent(figures[figure]) for figure in ("wa", "ua", "macro_f1")),
                f"{figures['nll']:.2f}",
                f"{figures['ece']:.3f}",
            ]
        )
    return markdown(["corpus", "clips", "WA (accuracy)", "UA", "macro-F1", "NLL (loss)", "ECE"], rows)


def table(results: dict) -> str:
    """For the terminal at the end of a run."""
    parts = [protocol_line(results), unseen_table(results)] if results["folds"] else []
    if "random_split" in results:
        parts += ["random split, 80 / 20, speakers on both sides", random_table(results)]
    costs = ", ".join(f"{cost:.3f} at batch {batch}" for batch, cost in results["cost_ms_per_audio_second"].items())
    return "\n\n".join([*parts, f"CPU ms per audio second: {costs}"])


def card(name: str, version: str, onnx: Path, results: dict) -> str:
    """The text of `MODEL_CARD.md`: `card.md` with its figures filled in."""
    recipe = results["recipe"]
    template = Template((Path(__file__).parent / "card.md").read_text(encoding="utf-8"))
    commercial = {True: "yes", False: "**no**"}
    not_measured = "Not measured."
    measured = bool(results["folds"])
    return template.substitute(
        name=name,
        version=version,
        description=DESCRIPTION,
        labels=", ".join(LABELS),
        stacked_hops=recipe["shape"]["stacked_hops"],
        units=recipe["shape"]["units"],
        hidden=recipe["shape"]["hidden"],
        parameters=f"{results['parameters']:,}",
        megabytes=f"{onnx.stat().st_size / 1e6:.2f}",
        state_size=results["state_size"],
        licences=markdown(
            ["corpus", "licence", "commercial use"],
            [[corpus, licence, commercial[allowed]] for _, corpus, licence, allowed in TRAINING_DATA],
        ),
        protocol=protocol_line(results),
        unseen=unseen_table(results) if measured else not_measured,
        recall=recall_table(results) if measured else not_measured,
        early=early_table(results) if measured else not_measured,
        random=random_table(results) if "random_split" in results else not_measured,
        temperature=f"{results['temperature']:.3f}",
        onnxruntime=results["software"]["onnxruntime"],
        costs=markdown(
            ["streams in a batch", "CPU ms per audio second and stream"],
            [[batch, f"{cost:.3f}"] for batch, cost in results["cost_ms_per_audio_second"].items()],
        ),
        epochs=recipe["epochs"],
        clips_per_epoch=recipe["clips_per_epoch"],
        batch=recipe["batch"],
        learning_rate=recipe["learning_rate"],
        average=recipe["average"],
        label_smoothing=recipe["label_smoothing"],
        seed=results["seed"],
        minutes=", ".join(f"{minutes:g}" for minutes in results["minutes"].values()),
    )
