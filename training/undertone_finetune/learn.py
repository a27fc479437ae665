"""Fine-tuning: one run, epoch by epoch, which can be interrupted and goes on where it was.

A checkpoint is written after each epoch (`last.pt`; `best.pt` for the epoch with the best validation figure). It holds
what is trained: a frozen encoder stays in its folder. What is random in an epoch is drawn from seed and epoch alone, so
an interrupted run that goes on computes what one without interruption would have, to rounding.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from undertone_training.labels import ABSENT

from . import clips as data
from . import scores
from .clips import Clip, Split
from .folder import BAD_USAGE, Refused
from .network import Network

FREEZES = ("encoder", "features", "none")
# Taken off the logits of labels that a clip's corpus does not have: such a clip says little about them, but enough
# that they are not chosen for it.
ABSENT_PENALTY = 2.0


@dataclass(frozen=True)
class Recipe:
    """Settings of a run, as the command line names them."""

    freeze: str = "features"
    mix: bool = False
    pooling: str = "attention"
    hidden: int = 256
    epochs: int = 12
    batch: int = 16
    accumulate: int = 1
    encoder_rate: float = 2e-5
    head_rate: float = 1e-3
    warm_up: float = 0.1
    smoothing: float = 0.05
    partial: float = 0.3
    seed: int = 1


@dataclass
class Course:
    """A run's outcome: the network holds the best epoch's weights."""

    temperature: float
    best_epoch: int
    history: list[dict]
    validation: dict[str, dict[str, float]]
    test: dict[str, dict[str, float]]
    seconds: float


def freeze(network: Network, what: str) -> None:
    """Excludes the encoder, its convolutions or nothing from training."""
    encoder = network.states
    frozen = {"encoder": [encoder], "features": encoder.features(), "none": []}[what]
    for part in frozen:
        part.requires_grad_(False)


def trained(network: Network) -> dict[str, Tensor]:
    """What a checkpoint must hold."""
    return {name: values.detach() for name, values in network.named_parameters() if values.requires_grad}


def optimizer_of(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    groups = [{"params": list(network.head.parameters()), "lr": recipe.head_rate}]
    encoder = [values for values in network.states.parameters() if values.requires_grad]
    if encoder:
        groups.append({"params": encoder, "lr": recipe.encoder_rate})
    return torch.optim.AdamW(groups, weight_decay=0.01)


def rate_at(step: int, steps: int, warm_up: float) -> float:
    """Share of the learning rate: a linear rise, then a linear fall to nothing."""
    rise = max(1, round(warm_up * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise), 1.0)


def loss_of(logits: Tensor, batch: list[Clip], labels: list[str], weights: Tensor, smoothing: float) -> Tensor:
    penalties = torch.tensor(
        [[ABSENT_PENALTY * (label in ABSENT.get(clip.corpus, ())) for label in labels] for clip in batch],
        device=logits.device,
    )
    target = torch.tensor([labels.index(clip.emotion) for clip in batch], device=logits.device)
    return functional.cross_entropy(logits.float() - penalties, target, weights, label_smoothing=smoothing)


def label_weights(train: list[Clip], labels: list[str]) -> Tensor:
    """Rare labels count more, half-way (square root) to balance."""
    counts = np.array([sum(clip.emotion == label for clip in train) for label in labels], np.float32)
    weights = np.sqrt(counts.mean() / np.maximum(counts, 1))
    return torch.from_numpy(weights.astype(np.float32))


@torch.no_grad()
def hear(network: Network, clips: list[Clip], window: int, batch: int, device: torch.device) -> np.ndarray:
    """Logits [clips, labels] on the last window of each clip: what the service says when the clip has ended."""
    network.eval()
    order = sorted(range(len(clips)), key=lambda index: clips[index].path.stat().st_size)
    logits = {}
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        windows = data.stacked([data.last_window(clips[row], window) for row in rows], window)
        out = network(torch.from_numpy(windows).to(device)).float().cpu().numpy()
        logits |= dict(zip(rows, out))
    return np.stack([logits[row] for row in range(len(clips))]).astype(np.float64)


def figures(
    network: Network, clips: list[Clip], labels: list[str], window: int, batch: int, device, temperature: float
):
    """Figures per corpus of tempered logits; nothing for no clips."""
    known = [clip for clip in clips if clip.emotion in labels]
    if not known:
        return {}
    logits = hear(network, known, window, batch, device) / temperature
    return scores.per_corpus(np.array([clip.corpus for clip in known]), truth_of(known, labels), logits)


def truth_of(clips: list[Clip], labels: list[str]) -> np.ndarray:
    return np.array([labels.index(clip.emotion) for clip in clips])


def save(path: Path, content: dict) -> None:
    """Whole or not at all, so that an interruption leaves the previous file."""
    part = path.with_suffix(".part")
    torch.save(content, part)
    os.replace(part, path)


def put_back(network: Network, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, values in trained(network).items():
            values.copy_(weights[name])


def train(
    network: Network,
    split: Split,
    labels: list[str],
    recipe: Recipe,
    window: int,
    place: Path,
    about: dict,
    device: torch.device = torch.device("cpu"),
    half: bool = False,
    report: Callable[[str], None] = print,
) -> Course:
    """Trains, resuming from `place` if a run with the same recipe stands there. `about` says what else must be the
    same. `half` computes in bfloat16 where that is safe."""
    began = time.monotonic()
    torch.manual_seed(recipe.seed)
    settings = {**asdict(recipe), **about, "window": window, "labels": labels}
    freeze(network, recipe.freeze)
    network.to(device)
    optimizer = optimizer_of(network, recipe)
    per_epoch = -(-(-(-len(split.train) // recipe.batch)) // recipe.accumulate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_at(step, recipe.epochs * per_epoch, recipe.warm_up)
    )
    history: list[dict] = []
    place.mkdir(parents=True, exist_ok=True)
    last, best = place / "last.pt", place / "best.pt"
    if last.is_file():
        kept = torch.load(last, map_location=device, weights_only=True)
        was = json.loads(kept["settings"])
        differing = sorted(name for name in settings if was.get(name) != settings[name])
        if differing:
            raise Refused(
                f"{place} holds a run with other settings ({', '.join(differing)}); delete it, or give another --run-folder",
                BAD_USAGE,
            )
        put_back(network, kept["weights"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        history = json.loads(kept["history"])
        report(f"goes on behind epoch {len(history)} of {recipe.epochs} ({last})")
    weights = label_weights(split.train, labels).to(device)
    truth = truth_of(split.validation, labels)
    corpus = np.array([clip.corpus for clip in split.validation])
    for epoch in range(len(history), recipe.epochs):
        row = {
            "epoch": epoch + 1,
            **one_epoch(
                network, split.train, labels, recipe, window, epoch, optimizer, schedule, weights, device, half, report
            ),
        }
        logits = hear(network, split.validation, window, recipe.batch, device)
        found = scores.per_corpus(corpus, truth, logits)
        row |= {"val_nll": scores.nll(truth, logits), "val_ua": float(np.mean([one["ua"] for one in found.values()]))}
        row["seconds"] = round(time.monotonic() - began, 1)
        history.append(row)
        content = {"settings": json.dumps(settings), "weights": trained(network), "history": json.dumps(history)}
        if row["val_ua"] >= max(one["val_ua"] for one in history):
            save(best, content)
        save(last, content | {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()})
        report("  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    put_back(network, torch.load(best, map_location=device, weights_only=True)["weights"])
    logits = hear(network, split.validation, window, recipe.batch, device)
    temperature = scores.temperature(truth, logits)
    course = Course(
        temperature,
        len(json.loads(torch.load(best, map_location="cpu", weights_only=True)["history"])),
        history,
        scores.per_corpus(corpus, truth, logits / temperature),
        figures(network, split.test, labels, window, recipe.batch, device, temperature),
        history[-1]["seconds"] if history else 0.0,
    )
    network.cpu().eval()
    return course


def one_epoch(
    network, clips, labels, recipe, window, epoch, optimizer, schedule, weights, device, half, report
) -> dict:
    """Mean loss of one pass over the clips; tells how far it is, a dozen times."""
    rng = np.random.default_rng([recipe.seed, epoch])
    torch.manual_seed(1000 * recipe.seed + epoch)
    # SpecAugment draws from NumPy's global generator.
    np.random.seed(1000 * recipe.seed + epoch)
    network.train()
    if recipe.freeze == "encoder":
        # No dropout in what is not trained.
        network.states.eval()
    batches, losses = -(-len(clips) // recipe.batch), []
    optimizer.zero_grad(set_to_none=True)
    for number, (batch, windows) in enumerate(
        data.training_batches(clips, recipe.batch, window, recipe.partial, rng), 1
    ):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            samples = torch.from_numpy(windows).to(device)
            with torch.set_grad_enabled(recipe.freeze != "encoder"):
                every, mask = network.states(samples)
            logits = network.head(every, mask)
        loss = loss_of(logits, batch, labels, weights, recipe.smoothing)
        if not torch.isfinite(loss):
            raise Refused(f"the loss is {loss.item()} in epoch {epoch + 1}; lower --encoder-rate or --head-rate")
        # The last group of an epoch may be smaller.
        group = min(recipe.accumulate, batches - (number - 1) // recipe.accumulate * recipe.accumulate)
        (loss / group).backward()
        losses.append(loss.item())
        if number % recipe.accumulate == 0 or number == batches:
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
        if number % max(1, batches // 12) == 0 and number < batches:
            report(f"  epoch {epoch + 1}: batch {number} of {batches}, loss {np.mean(losses):.3f}")
    return {"loss": float(np.mean(losses))}
