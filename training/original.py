"""The original project's design, rebuilt as a baseline: an LSTM over a fixed window of MFCCs, plainly trained.

    python training/original.py --features training/data/features.npz --out models/original

40 MFCCs every 32 ms over 3 s, zeros behind a shorter clip, two LSTM layers that begin as Keras begins them, the last state
to a dense layer and a softmax; Adam, no variations of clips, no averaging, no masks. It was trained and tested on a random
split (67 % there); here the same network is also trained without each fold of speakers, so that `undertone evaluate` can
say what the split was worth.
Its model is of the kind `window-mfcc`: it hears the last 3 s anew at each stride.

    python training/original.py --study

trains variants of the design, each on 80 % of the clips of four fifths of the speakers, and judges each on the other clips
of the same speakers and on the speakers left out: what a random split shows of a variant, and what it hides.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import dataclasses
import hashlib
import json
import multiprocessing
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.nn import functional

from undertone_training import data, export, learn, metrics, package, splits
from undertone_training.labels import CORPORA, LABELS
from undertone_training.model import open_forget_gate

HERE = Path(__file__).resolve().parent
COEFFICIENTS = 40
# 3 s, as long as the longest stretch of CREMA-D's spectrograms.
WINDOW_HOPS = 188
# Every second of our hops of 256 samples: librosa's hop is 512 unless one asks for another.
EVERY = 2
# The service asks anew twice a second.
STRIDE_HOPS = 32
VERSION = "1.0.0"


@dataclass(frozen=True)
class Recipe:
    coefficients: int = COEFFICIENTS
    units: int = 128
    layers: int = 2
    dense: int = 64
    dropout: float = 0.3
    epochs: int = 15
    # Added to the seed of weights and batches, not to that of the split: the same design again.
    repetition: int = 0
    batch: int = 64
    learning_rate: float = 1e-3


# What is changed about the design, by what a table calls it; for ten epochs each, to be done sooner.
PLAIN = Recipe(epochs=10)
VARIANTS = {
    "as it was": PLAIN,
    "as it was, other first weights": replace(PLAIN, repetition=1),
    "13 coefficients": replace(PLAIN, coefficients=13),
    "64 coefficients": replace(PLAIN, coefficients=64),
    "64 units": replace(PLAIN, units=64),
    "1 layer": replace(PLAIN, layers=1),
    "no dropout": replace(PLAIN, dropout=0.0),
    "twice the epochs": replace(PLAIN, epochs=2 * PLAIN.epochs),
}


class WindowLstm(nn.Module):
    def __init__(self, recipe: Recipe):
        super().__init__()
        self.register_buffer("mean", torch.zeros(recipe.coefficients))
        self.register_buffer("scale", torch.ones(recipe.coefficients))
        inputs = [recipe.coefficients] + [recipe.units] * (recipe.layers - 1)
        self.lstm = nn.ModuleList(nn.LSTM(size, recipe.units, batch_first=True) for size in inputs)
        self.dense = nn.Linear(recipe.units, recipe.dense)
        self.output = nn.Linear(recipe.dense, len(LABELS))
        self.dropout = nn.Dropout(recipe.dropout)
        # As Keras begins: with PyTorch's own first weights the last state has forgotten the clip behind its zeros, and
        # nothing is learnt for many epochs.
        for lstm in self.lstm:
            nn.init.xavier_uniform_(lstm.weight_ih_l0)
            nn.init.orthogonal_(lstm.weight_hh_l0)
            open_forget_gate(lstm)

    def forward(self, mfcc: Tensor) -> Tensor:
        """mfcc [batch, 188, 40], zeros behind what was heard -> logits [batch, 8]."""
        y = ((mfcc - self.mean) * self.scale)[:, ::EVERY]
        for lstm in self.lstm:
            y = self.dropout(lstm(y)[0])
        return self.output(self.dropout(torch.relu(self.dense(y[:, -1]))))


def windows(corpora: data.Corpora, clips: np.ndarray, coefficients: int) -> np.ndarray:
    """Each clip's first utterance, its last 3 s if it is longer: [clips, 188, coefficients]."""
    batch = np.zeros((len(clips), WINDOW_HOPS, coefficients), np.float32)
    for row, (item, *_) in zip(batch, data.utterances(corpora, clips)):
        piece = corpora.piece(item)[-WINDOW_HOPS:, :coefficients]
        row[: len(piece)] = piece
    return batch


def train(corpora: data.Corpora, split: splits.Split, recipe: Recipe, seed: int, report=print) -> WindowLstm:
    """The network after the last epoch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = WindowLstm(recipe)
    hops = torch.from_numpy(data.hops_of(corpora, split.train)[:, : recipe.coefficients])
    model.mean.copy_(hops.mean(0))
    model.scale.copy_(1.0 / hops.std(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    heard, truth = windows(corpora, split.train, recipe.coefficients), corpora.emotion[split.train]
    for epoch in range(recipe.epochs):
        began, losses = time.monotonic(), []
        model.train()
        order = rng.permutation(len(truth))
        for start in range(0, len(order), recipe.batch):
            rows = order[start : start + recipe.batch]
            loss = functional.cross_entropy(model(torch.from_numpy(heard[rows])), torch.from_numpy(truth[rows]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        report(f"epoch {epoch + 1}  loss {np.mean(losses):.3f}  seconds {time.monotonic() - began:.1f}")
    return model.eval()


@torch.no_grad()
def logits(model: WindowLstm, corpora: data.Corpora, clips: np.ndarray) -> np.ndarray:
    parts = [clips[start : start + 256] for start in range(0, len(clips), 256)]
    heard = (windows(corpora, part, len(model.mean)) for part in parts)
    return np.concatenate([model(torch.from_numpy(batch)).numpy() for batch in heard])


@dataclass(frozen=True)
class Variant:
    """One row of the study, to be made in a process of its own."""

    name: str
    recipe: Recipe
    seed: int
    features: Path


def compare(variant: Variant) -> list[str]:
    """The row: name, weights, then what the variant says of clips that it learnt from, of others of the same speakers, and of
    the speakers of fold 0, who are left out of training; of those also by corpus."""
    learn.seeded(variant.seed, threads=1)
    corpora, recipe = data.load(variant.features), variant.recipe
    unseen, known = np.flatnonzero(corpora.fold == 0), np.flatnonzero(corpora.fold != 0)
    parts = splits.split(corpora, "random", variant.seed)
    kept = splits.Split(np.setdiff1d(parts.train, unseen), parts.validation[:0], np.intersect1d(parts.test, known))
    sample = np.random.default_rng(variant.seed).choice(kept.train, min(2000, len(kept.train)), replace=False)
    tell = lambda line: print(f"{variant.name}: {line}", file=sys.stderr, flush=True)
    model = train(corpora, kept, recipe, variant.seed + recipe.repetition, tell)
    cells = [variant.name, f"{sum(weight.numel() for weight in model.parameters()):,}"]
    for clips in (sample, kept.test, unseen):
        said = logits(model, corpora, clips)
        figures = metrics.figures(corpora.emotion[clips], said)
        cells.append(f"{100 * figures['wa']:.1f} / {figures['nll']:.2f}")
    for corpus in present(corpora):
        inside = corpora.corpus[unseen] == CORPORA.index(corpus)
        cells.append(f"{100 * metrics.figures(corpora.emotion[unseen][inside], said[inside])['ua']:.1f}")
    return cells


def present(corpora: data.Corpora) -> list[str]:
    """The corpora of fold 0."""
    return [corpus for index, corpus in enumerate(CORPORA) if ((corpora.corpus == index) & (corpora.fold == 0)).any()]


def study(features: Path, variants: dict[str, Recipe], seed: int, workers: int) -> str:
    """A Markdown table with a row for each variant, see `compare`."""
    heads = ["variant", "weights", "seen clips: accuracy / loss", "random split: accuracy / loss"]
    heads += ["unseen speakers: accuracy / loss", *(f"{corpus}: UA" for corpus in present(data.load(features)))]
    rows = in_parallel(compare, [Variant(name, recipe, seed, features) for name, recipe in variants.items()], workers)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ["---"] * len(heads), *rows])


def in_parallel(function, jobs: list, workers: int) -> list:
    """What `function` makes of each of `jobs`, `workers` at a time, a process each."""
    spawn = multiprocessing.get_context("spawn")
    # Ctrl-C reaches the whole process group; the parent ends the workers, so they need no traceback of their own.
    with ProcessPoolExecutor(workers, spawn, signal.signal, (signal.SIGINT, signal.SIG_DFL)) as pool:
        return list(pool.map(function, jobs))


@dataclass(frozen=True)
class Job:
    """One model to train and to package, in a process of its own."""

    split: str
    recipe: Recipe
    seed: int
    features: Path
    folder: Path


def place_of(runs_folder: Path, name: str) -> Path:
    return runs_folder / name.replace(":", "-")


def perform(job: Job) -> dict[str, float]:
    """Trains and writes the package; returns the figures on what it was not trained on, if there is any."""
    learn.seeded(job.seed, threads=1)
    corpora = data.load(job.features)
    parts = splits.split(corpora, job.split, job.seed)
    model = train(corpora, parts, job.recipe, job.seed, lambda line: print(f"{job.split:7} {line}", flush=True))
    # The design knew no calibration: probabilities are the softmax as it comes.
    write(job.folder, model, temperature=1.0)
    if not len(parts.test):
        return {}
    return metrics.figures(corpora.emotion[parts.test], logits(model, corpora, parts.test))


def build(model: WindowLstm) -> onnx.ModelProto:
    """One window in, logits out."""
    graph = export.Graph()
    add, values = graph.add, lambda tensor: tensor.detach().numpy().astype(np.float32)
    add("Sub", ["mfcc", graph.constant("feature_mean", values(model.mean))], "centred")
    add("Mul", ["centred", graph.constant("feature_scale", values(model.scale))], "normalised")
    bounds = [graph.constant(name, np.array([at], np.int64)) for name, at in
              (("from", 0), ("to", WINDOW_HOPS), ("axis", 1), ("every", EVERY))]
    add("Slice", ["normalised", *bounds], "frames")
    y = add("Transpose", ["frames"], "hops", perm=[1, 0, 2])
    directions = graph.constant("direction", np.array([1], np.int64))
    for number, layer in enumerate(model.lstm, 1):
        weights = graph.constant(f"lstm{number}_w", export.gates_for_onnx(layer.weight_ih_l0)[None])
        recurrence = graph.constant(f"lstm{number}_r", export.gates_for_onnx(layer.weight_hh_l0)[None])
        biases = [export.gates_for_onnx(layer.bias_ih_l0), export.gates_for_onnx(layer.bias_hh_l0)]
        bias = graph.constant(f"lstm{number}_b", np.concatenate(biases)[None])
        outputs = [f"all{number}", f"last{number}"]
        add("LSTM", [y, weights, recurrence, bias], *outputs, hidden_size=layer.hidden_size)
        y = add("Squeeze", [outputs[0], directions], f"y{number}")
    first = graph.constant("axis_0", np.array([0], np.int64))
    y = add("Squeeze", [outputs[1], first], "last")
    for name, layer in (("dense", model.dense), ("logits", model.output)):
        weights = [graph.constant(f"{name}_w", values(layer.weight)), graph.constant(f"{name}_b", values(layer.bias))]
        y = add("Gemm", [y, *weights], name, transB=1)
        if name == "dense":
            y = add("Relu", [y], "dense_positive")
    tensor = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "original-window-lstm",
            [tensor("mfcc", WINDOW_HOPS, COEFFICIENTS)],
            [tensor("logits", len(LABELS))],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", export.OPSET)],
        ir_version=export.IR_VERSION,
        producer_name="undertone-training",
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def write(folder: Path, model: WindowLstm, temperature: float) -> float:
    """Writes the package; returns the largest difference of any logit between ONNX Runtime and PyTorch."""
    made = build(model)
    content = made.SerializeToString()
    mean, scale = model.mean.numpy(), model.scale.numpy()
    probe = mean + np.random.default_rng(0).standard_normal((4, WINDOW_HOPS, COEFFICIENTS)) / scale
    probe = probe.astype(np.float32)
    probe[1, 100:] = 0.0
    with torch.no_grad():
        wanted = model(torch.from_numpy(probe)).numpy()
    disparity = float(np.abs(export.session(content).run(None, {"mfcc": probe})[0] - wanted).max())
    if disparity > package.LARGEST_DISPARITY:
        raise RuntimeError(f"the exported graph differs from the network by {disparity}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "model.toml").write_text(manifest(hashlib.sha256(content).hexdigest(), temperature), encoding="utf-8")
    return disparity


def manifest(sha256: str, temperature: float) -> str:
    blocks = [
        f"""schema = 1
name = "original"
version = "{VERSION}"
kind = "window-mfcc"
description = "The original project's design: LSTM over a fixed window of MFCCs (baseline)"
labels = [{", ".join(map(package.quoted, LABELS))}]
sha256 = "{sha256}"

[front_end]
sample_rate_hz = {package.SAMPLE_RATE_HZ}
hop_samples = {package.HOP_SAMPLES}
frame_samples = {package.FRAME_SAMPLES}
mel_bands = {package.MEL_BANDS}
coefficients = {COEFFICIENTS}
reference_decay_db_per_s = {package.REFERENCE_DECAY_DB_PER_S}

[input]
name = "mfcc"
shape = ["batch", {WINDOW_HOPS}, {COEFFICIENTS}]

[window]
stride_hops = {STRIDE_HOPS}

[output]
name = "logits"
shape = ["batch", {len(LABELS)}]

[calibration]
temperature = {temperature:.4f}
"""
    ]
    for corpus in CORPORA:
        published, licence, commercial = package.TRAINING_DATA[corpus]
        blocks.append(
            f"[[training_data]]\ncorpus = {package.quoted(published)}\nlicence = {package.quoted(licence)}\n"
            f"commercial_use = {str(commercial).lower()}\n"
        )
    return "\n".join(blocks)


def main(typed: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--features", type=Path, default=HERE / "data" / "features.npz", help="what `undertone features` wrote")
    add("--out", type=Path, default=HERE.parent / "models" / "original", help="the model's folder")
    add("--runs-folder", type=Path, default=HERE / "runs" / "original", help="the models without their folds")
    add("--folds", default="0,1,2,3,4", help="folds of unseen speakers to test on")
    add("--epochs", type=int, default=Recipe().epochs)
    add("--study", action="store_true", help="compare variants of the design instead; writes nothing but a table")
    add("--seed", type=int, default=1)
    add("--workers", type=int, default=os.cpu_count() or 1, help="models trained at a time, a process and a thread each")
    given = parser.parse_args(typed)
    if not given.features.exists():
        print(f"{given.features} is missing: make it with `undertone features CORPORA`", file=sys.stderr)
        return 66
    began = time.monotonic()
    recipe = Recipe(epochs=given.epochs)
    names = [*(f"fold:{fold}" for fold in given.folds.split(",") if fold), "random", "all"]
    folders = [given.out if name == "all" else place_of(given.runs_folder, name) for name in names]
    jobs = [Job(name, recipe, given.seed, given.features, folder) for name, folder in zip(names, folders)]
    try:
        if given.study:
            print(study(given.features, VARIANTS, given.seed, given.workers))
            return 0
        heard = dict(zip(names, in_parallel(perform, jobs, given.workers)))
    except (KeyboardInterrupt, BrokenProcessPool):
        print("\nended before its time; nothing was kept of the models that were under way", file=sys.stderr)
        return 130
    corpora = data.load(given.features)
    runs = []
    for name in names:
        kind, _, fold = name.partition(":")
        folder = place_of(given.runs_folder, name)
        if kind == "fold":
            runs.append({"model": folder.name, "kind": kind, "fold": int(fold), "seed": given.seed})
        elif kind == "random":
            clips = splits.split(corpora, name, given.seed).test
            (folder / "clips.txt").write_text("\n".join(corpora.clip_names[clips]) + "\n", encoding="utf-8")
            runs.append({"model": folder.name, "kind": kind, "seed": given.seed, "clips": f"{folder.name}/clips.txt"})
    told = {
        "schema": 1,
        "name": "original",
        "description": "The original project's design, each model without the clips that it is judged on.",
        "speakers": {speaker: int(fold) for speaker, fold in zip(corpora.speaker, corpora.fold)},
        "runs": runs,
    }
    given.runs_folder.mkdir(parents=True, exist_ok=True)
    (given.runs_folder / "protocol.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    facts = {
        "name": "original",
        "version": VERSION,
        "corpora": list(CORPORA),
        "recipe": dataclasses.asdict(recipe),
        "seeds": [given.seed],
        "parameters": sum(weight.numel() for weight in WindowLstm(recipe).parameters()),
        "onnx_bytes": (given.out / "model.onnx").stat().st_size,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    (given.runs_folder / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for name, figures in heard.items():
        if figures:
            print(f"{name:7} accuracy {figures['wa']:.3f}  UA {figures['ua']:.3f}  loss {figures['nll']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
