"""All runs behind one shipped model.

For every seed, five runs test on unseen speakers (`fold:0` to `fold:4`); with the first seed one more tests on the original
project's random split, and one trains on everything: its weights ship. Each run learns from teachers that were trained on
the same split, so what is left out is left out of them too. A finished run leaves `run.json` in its folder and is not
repeated unless the recipe, the seed, the features or a teacher have changed, so an interrupted protocol goes on where it
stopped. `undertone evaluate` judges the runs.

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
from .model import StreamingLstm


@dataclass(frozen=True)
class Job:
    """One run, complete enough to be done in a process of its own."""

    split: str
    recipe: learn.Recipe
    seed: int
    threads: int
    device: str
    features: Path
    fingerprint: str
    folder: Path
    # The runs whose networks this one learns from, done before it.
    teachers: tuple[Job, ...] = ()
    # Which of its student's teachers a run is, from 1; 0 for none.
    teaches: int = 0

    @property
    def key(self) -> str:
        """Changes with anything that changes the outcome."""
        told = [self.split, self.recipe.as_dict(), self.seed, self.fingerprint, *(job.key for job in self.teachers)]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        return f"{self.split} seed {self.seed}" + (f" teacher {self.teaches}" if self.teaches else "")

    @property
    def place(self) -> Path:
        own = self.folder / f"{self.split.replace(':', '-')}-seed-{self.seed}"
        return own / f"teacher-{self.teaches}" if self.teaches else own


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
    """Trains, listens to the validation and test clips, and writes what was heard."""
    learn.seeded(job.seed, job.threads, job.device)
    corpora = data.load(job.features, job.recipe.corpora)
    parts = splits.split(corpora, job.split, job.seed)
    began = time.monotonic()
    tell = lambda line: print(f"{job.name:22} {line}", flush=True)
    tell(f"{len(parts.train)} clips to train on, {len(parts.validation)} to validate, {len(parts.test)} to test")
    device = torch.device(job.device)
    teachers = [network(teacher).to(device) for teacher in job.teachers]
    model, history = learn.train(corpora, parts, job.recipe, job.seed, device, tell, teachers)
    temperature = None
    if len(parts.validation):
        heard = learn.hear(model, corpora, parts.validation)
        logits = np.stack([one.logits for one in heard])
        temperature = metrics.best_temperature(corpora.emotion[parts.validation], logits)
    job.place.mkdir(parents=True, exist_ok=True)
    if len(parts.test):
        keep(learn.hear(model, corpora, parts.test), job.place / "heard.npz")
    torch.save(model.state_dict(), job.place / "weights.pt")
    outcome = {
        "key": job.key,
        "split": job.split,
        "clips": {name: len(getattr(parts, name)) for name in ("train", "validation", "test")},
        "temperature": temperature,
        "history": history,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    # Written last, under another name first: a run counts as finished only when all of it is on disk.
    draft = job.place / "run.json.part"
    draft.write_text(json.dumps(outcome))
    draft.replace(job.place / "run.json")


def keep(heard: list[learn.Heard], file: Path) -> None:
    """Writes what a model said of its test clips."""
    np.savez(
        file,
        clip=np.array([one.clip for one in heard]),
        logits=np.stack([one.logits for one in heard]),
        steps=np.array([len(one.course) for one in heard]),
        course=np.concatenate([one.course for one in heard]),
    )


def kept(file: Path) -> list[learn.Heard]:
    """Reads what `keep` wrote."""
    with np.load(file) as saved:
        courses = np.split(saved["course"], np.cumsum(saved["steps"])[:-1])
        return [learn.Heard(int(c), l, course) for c, l, course in zip(saved["clip"], saved["logits"], courses)]


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
            print(f"{job.name:22} already done", flush=True)
    if workers == 1:
        for job in waiting:
            perform(job)
        return
    spawn = multiprocessing.get_context("spawn")
    running: list[tuple[Job, multiprocessing.process.BaseProcess]] = []
    try:
        while waiting or running:
            while len(running) < workers:
                job = next((job for job in waiting if all(map(finished, job.teachers))), None)
                if job is None:
                    break
                waiting.remove(job)
                worker = spawn.Process(target=in_worker, args=(job,))
                worker.start()
                running.append((job, worker))
            if not running:
                raise RuntimeError(f"the run on {waiting[0].name} has teachers that are neither done nor to be done")
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
    """The finished run's network."""
    model = StreamingLstm(job.recipe.shape)
    model.load_state_dict(torch.load(job.place / "weights.pt", weights_only=True))
    return model.eval()


def weights(job: Job) -> StreamingLstm:
    """The finished run's network, with the outputs of its labels alone."""
    model = network(job)
    model.cut_to([LABELS.index(label) for label in labels.of(job.recipe.corpora)])
    return model.eval()


def temperatures(jobs: list[Job]) -> dict[Job, float]:
    """One per finished job. A run with validation clips has its own; a fold's is fitted on what the other folds'
    models of its seed said of unseen speakers; the shipped weights', which heard every speaker, on all folds.

    Corpora of two or three speakers count as the others do: they are the rooms that the model knows least, where it
    is surest without cause."""
    corpora = data.load(jobs[0].features, jobs[0].recipe.corpora)
    heard = {job: kept(job.place / "heard.npz") for job in jobs if job.split.startswith("fold:")}
    found = {}
    for job in jobs:
        own = json.loads((job.place / "run.json").read_text())["temperature"]
        others = [one for other, told in heard.items() if other.seed == job.seed and other != job for one in told]
        if own is None and others:
            own = fitted(corpora, others)
        found[job] = own
    # Where one fold alone was run, the random split's validation clips are all there is to calibrate on.
    known = [value for value in found.values() if value is not None]
    return {job: value if value is not None else (known or [1.0])[0] for job, value in found.items()}


def fitted(corpora: Corpora, heard: list[learn.Heard]) -> float:
    truth = corpora.emotion[[one.clip for one in heard]]
    return metrics.best_temperature(truth, np.stack([one.logits for one in heard]))


def developed(jobs: list[Job]) -> str:
    """The last look of each run on validation speakers, averaged over the runs that have the figure, on one line."""
    last = [json.loads((job.place / "run.json").read_text())["history"][-1] for job in jobs]
    figures = sorted({name for row in last for name in row if name.endswith(("_ua", "_nll", "_open"))})
    means = {name: np.mean([row[name] for row in last if name in row]) for name in figures}
    return "  ".join(f"{name} {value:.3f}" for name, value in means.items())
