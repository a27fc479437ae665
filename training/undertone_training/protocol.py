"""All runs behind one shipped model.

For every seed, five runs test on unseen speakers (`fold:0` to `fold:4`); with the first seed one more tests on the original
project's random split, and one trains on everything: it ships. A run is made of a few networks (`learn.MEMBERS`) that learn
from the same clips, each by itself. A network that is finished leaves `run.json` in its folder and is not made again unless
the recipe, the seed or the features have changed, so an interrupted protocol goes on where it stopped. `undertone evaluate`
judges the runs.

Temperatures are crossed over: what the fold models of a seed said of the speakers that they had not heard calibrates
the other folds' models, so no speaker has a part in the calibration that is reported on them, and none is lost to
training.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from . import data, labels, learn, metrics, splits
from .data import Corpora
from .labels import LABELS
from .model import Ensemble, StreamingLstm


@dataclass(frozen=True)
class Job:
    """One network to train, complete enough to be done in a process of its own."""

    split: str
    recipe: learn.Recipe
    seed: int
    threads: int
    device: str
    features: Path
    fingerprint: str
    folder: Path
    # Which of its run's networks it is, from 1.
    member: int = 1

    @property
    def key(self) -> str:
        """Changes with anything that changes the outcome."""
        told = [self.split, self.recipe.as_dict(), self.seed, self.fingerprint]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        return f"{self.split} seed {self.seed} member {self.member}"

    @property
    def run_place(self) -> Path:
        return self.folder / f"{self.split.replace(':', '-')}-seed-{self.seed}"

    @property
    def place(self) -> Path:
        return self.run_place / f"member-{self.member}"


@dataclass(frozen=True)
class Run:
    """Networks that were trained on the same clips and speak as one."""

    members: tuple[Job, ...]

    @property
    def split(self) -> str:
        return self.members[0].split

    @property
    def seed(self) -> int:
        return self.members[0].seed

    @property
    def place(self) -> Path:
        return self.members[0].run_place

    @property
    def corpora(self) -> tuple[str, ...]:
        return self.members[0].recipe.corpora

    def model(self) -> Ensemble:
        """The finished networks, with the outputs of all labels."""
        return Ensemble([network(job) for job in self.members]).eval()

    def packaged(self) -> Ensemble:
        """The finished networks, with the outputs of their labels alone."""
        model = self.model()
        model.cut_to([LABELS.index(label) for label in labels.of(self.corpora)])
        return model


def fingerprint(features: Path) -> str:
    """Identifies the features by content."""
    digest = hashlib.sha256()
    votes = data.votes_of(features)
    for path in (features, features.with_suffix(".csv"), *([votes] if votes.exists() else [])):
        with path.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def finished(job: Job) -> bool:
    try:
        return json.loads((job.place / "run.json").read_text())["key"] == job.key
    except (FileNotFoundError, KeyError, json.JSONDecodeError):
        return False


def perform(job: Job) -> None:
    """Trains one network and writes it down."""
    learn.seeded(job.seed, job.threads, job.device)
    corpora = data.load(job.features, job.recipe.corpora)
    parts = splits.split(corpora, job.split, job.seed)
    began = time.monotonic()
    tell = lambda line: print(f"{job.name:24} {line}", flush=True)
    tell(f"{len(parts.train)} clips to train on, {len(parts.validation)} to validate, {len(parts.test)} to test")
    model, history = learn.train(corpora, parts, job.recipe, job.seed, torch.device(job.device), tell)
    job.place.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), job.place / "weights.pt")
    outcome = {
        "key": job.key,
        "split": job.split,
        "clips": {name: len(getattr(parts, name)) for name in ("train", "validation", "test")},
        "history": history,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    # Written last, under another name first: a network counts as finished only when all of it is on disk.
    draft = job.place / "run.json.part"
    draft.write_text(json.dumps(outcome))
    draft.replace(job.place / "run.json")


def in_worker(job: Job) -> None:
    # Ctrl-C reaches the whole process group; the parent ends the workers, so they need no traceback of their own.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    perform(job)


def run_all(jobs: list[Job], workers: int) -> None:
    """Runs what is not finished, `workers` at a time.

    Raises RuntimeError where a run failed. On Ctrl-C the workers are ended and KeyboardInterrupt goes on up.
    """
    waiting = [job for job in jobs if not finished(job)]
    for job in jobs:
        if job not in waiting:
            print(f"{job.name:24} already done", flush=True)
    if workers == 1:
        for job in waiting:
            perform(job)
        return
    spawn = multiprocessing.get_context("spawn")
    running: list[tuple[Job, multiprocessing.process.BaseProcess]] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                worker = spawn.Process(target=in_worker, args=(job,))
                worker.start()
                running.append((job, worker))
            for job, worker in list(running):
                worker.join(timeout=0.2)
                if worker.exitcode is not None:
                    running.remove((job, worker))
                    if worker.exitcode:
                        raise RuntimeError(f"the run on {job.name} ended with {worker.exitcode}; its output is above")
    finally:
        for _, worker in running:
            worker.terminate()
            worker.join()


def network(job: Job) -> StreamingLstm:
    """The finished network."""
    model = StreamingLstm(job.recipe.shape)
    model.load_state_dict(torch.load(job.place / "weights.pt", weights_only=True))
    return model.eval()


def temperatures(runs: list[Run], corpora: Corpora) -> dict[Run, float]:
    """One per finished run. A run with validation clips is calibrated on them; a fold's on what the other folds'
    models of its seed said of unseen speakers; the shipped weights, which heard every speaker, on all folds.

    Corpora of two or three speakers count as the others do: they are the rooms that the model knows least, where it
    is surest without cause."""
    heard, found = {}, {}
    for run in runs:
        parts = splits.split(corpora, run.split, run.seed)
        if run.split.startswith("fold:"):
            heard[run] = learn.hear(run.model(), corpora, parts.test)
        elif len(parts.validation):
            found[run] = fitted(corpora, learn.hear(run.model(), corpora, parts.validation))
    for run in runs:
        others = [one for other, told in heard.items() if other.seed == run.seed and other != run for one in told]
        if run not in found and others:
            found[run] = fitted(corpora, others)
    # Where one fold alone was run, the random split's validation clips are all there is to calibrate on.
    known = list(found.values()) or [1.0]
    return {run: found.get(run, known[0]) for run in runs}


def fitted(corpora: Corpora, heard: list[learn.Heard]) -> float:
    truth = corpora.emotion[[one.clip for one in heard]]
    return metrics.best_temperature(truth, np.stack([one.logits for one in heard]))


def developed(runs: list[Run], corpora: Corpora) -> str:
    """What the runs say of their validation speakers, averaged over the runs that have the figure, on one line."""
    rows = []
    for run in runs:
        clips = splits.split(corpora, run.split, run.seed).validation
        rows.append(learn.assess(corpora, learn.hear(run.model(), corpora, clips)))
    means = {name: np.mean([row[name] for row in rows if name in row]) for name in sorted(set().union(*rows))}
    return "  ".join(f"{name} {value:.3f}" for name, value in means.items())
