"""All runs behind one shipped model, and the results file that its manifest and card are filled from.

Five runs test on unseen speakers (`fold:0` to `fold:4`), one on the original project's random split, and one trains
on everything: its weights ship. A finished run leaves `run.json` in its folder and is not repeated unless the recipe,
the seed or the features have changed, so an interrupted protocol goes on where it stopped.

Temperatures are crossed over: what the fold models said of the speakers that they had not heard calibrates the other
folds, so no speaker has a part in the calibration that is reported on them, and none is lost to training.
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

from . import data, learn, metrics, splits
from .data import Corpora
from .labels import CORPORA, LABELS, present
from .model import StreamingLstm

FIGURES = ("ua", "wa", "macro_f1", "nll", "ece")


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

    @property
    def key(self) -> str:
        """Changes with anything that changes the outcome."""
        told = [self.split, self.recipe.as_dict(), self.seed, self.fingerprint]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def place(self) -> Path:
        return self.folder / self.split.replace(":", "-")


def fingerprint(features: Path) -> str:
    """Identifies the features by content."""
    digest = hashlib.sha256()
    for path in (features, features.with_suffix(".csv")):
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
    corpora = data.load(job.features)
    parts = splits.split(corpora, job.split, job.seed)
    began = time.monotonic()
    tell = lambda line: print(f"{job.split:8} {line}", flush=True)
    tell(f"{len(parts.train)} clips to train on, {len(parts.validation)} to validate, {len(parts.test)} to test")
    device = torch.device(job.device)
    model, history = learn.train(corpora, parts, job.recipe, job.seed, device, tell)
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
            print(f"{job.split:8} already done", flush=True)
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
                        raise RuntimeError(f"the run on {job.split} ended with {worker.exitcode}; its output is above")
    finally:
        for _, worker in running:
            worker.terminate()
            worker.join()


def weights(job: Job) -> StreamingLstm:
    model = StreamingLstm(job.recipe.shape)
    model.load_state_dict(torch.load(job.place / "weights.pt", weights_only=True))
    return model.eval()


def outcomes(jobs: list[Job]) -> dict[str, dict]:
    """What each finished run came to, by its split; with `temperature` and, where there are test clips, `tested`."""
    done = {job.split: json.loads((job.place / "run.json").read_text()) for job in jobs if finished(job)}
    tested = [job for job in jobs if job.split in done and done[job.split]["clips"]["test"]]
    heard = {job.split: kept(job.place / "heard.npz") for job in tested}
    corpora = data.load(jobs[0].features)
    telling = splits.has_many_speakers(corpora)
    folds = [split for split in heard if split.startswith("fold:")]
    for split, run in done.items():
        others = [one for fold in folds if fold != split for one in heard[fold] if telling[one.clip]]
        if run["temperature"] is None:
            run["temperature"] = fitted(corpora, others) if others else fallback(done)
        if split in heard:
            run["tested"] = learn.assess(corpora, heard[split], run["temperature"])
    return done


def fitted(corpora: Corpora, heard: list[learn.Heard]) -> float:
    truth = corpora.emotion[[one.clip for one in heard]]
    return metrics.best_temperature(truth, np.stack([one.logits for one in heard]))


def fallback(done: dict[str, dict]) -> float:
    """Where one fold alone was run, the random split's validation clips are all there is to calibrate on."""
    return done.get("random", {}).get("temperature") or 1.0


def summary(done: dict[str, dict]) -> dict:
    """Per corpus, mean and spread over the folds it occurs in; the random split; the temperature to ship."""
    folds = {name: run for name, run in done.items() if name.startswith("fold:")}
    unseen = {}
    for corpus in CORPORA:
        rows = {name: run["tested"][corpus] for name, run in folds.items() if corpus in run["tested"]}
        if rows:
            unseen[corpus] = over_folds(corpus, rows)
    result = {
        "folds": sorted(folds),
        "unseen_speakers": unseen,
        # The shipped weights heard every speaker, so none is left to calibrate them on; the folds' models, trained
        # by the same recipe, stand in: `outcomes` fits this one on all folds.
        "temperature": done["all"]["temperature"],
        "temperatures": {name: run["temperature"] for name, run in folds.items()},
    }
    if folds:
        result["pooled_unseen_speakers"] = {
            figure: spread([run["tested"]["pooled"]["open"][figure] for run in folds.values()]) for figure in FIGURES
        }
    if "random" in done:
        result["random_split"] = done["random"]["tested"]
    result["minutes"] = {name: run["minutes"] for name, run in done.items()}
    return result


def over_folds(corpus: str, rows: dict[str, dict]) -> dict:
    """One corpus's figures, from those of each fold it occurs in."""
    # Counted over all clips of a label together, not averaged over folds.
    counts = np.sum([row["confusion"] for row in rows.values()], axis=0)
    labels = [index for index in present(corpus) if counts[index].sum()]
    seconds = next(iter(rows.values()))["after"]
    return {
        kind: {figure: spread([row[kind][figure] for row in rows.values()]) for figure in FIGURES}
        for kind in ("open", "closed")
    } | {
        "folds": len(rows),
        "clips": int(counts.sum()),
        "ua_per_fold": {name: row["open"]["ua"] for name, row in rows.items()},
        "ua_after_seconds": {at: float(np.mean([row["after"][at] for row in rows.values()])) for at in seconds},
        "recall": {LABELS[index]: float(counts[index, index] / counts[index].sum()) for index in labels},
        "confusion": counts.tolist(),
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "deviation": float(np.std(values)), "lowest": float(np.min(values))}

