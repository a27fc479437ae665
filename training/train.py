"""Trains and packages one model: features in, `models/<name>/` out, and beside the runs the protocol by which
`undertone evaluate` judges it.

    python training/train.py --features training/data/features.npz --out models/undertone-four

Runs that are finished are not repeated, so the command can be interrupted and given again. Its figures are put into
manifest and card by `training/card.py`, once `undertone evaluate` has measured them.
"""

from __future__ import annotations

import os

# Before NumPy is imported: its BLAS otherwise spins a thread per core beside PyTorch's own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import dataclasses
import json
import platform
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime
import torch

from undertone_training import data, export, learn, package, protocol, splits
from undertone_training.labels import CORPORA

HERE = Path(__file__).resolve().parent
BATCHES = (1, 16, 64)


def arguments(typed: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--features", type=Path, default=HERE / "data" / "features.npz", help="what `undertone features` wrote")
    add("--out", type=Path, default=HERE.parent / "models" / "undertone-four", help="the model's folder")
    add("--version", default="0.4.0", help="the model's version, for its manifest")
    add("--corpora", default=",".join(CORPORA), help="the corpora to train on")
    add("--runs-folder", type=Path, help="weights and outcome of each run (default: training/runs/<name of --out>)")
    add("--folds", default="0,1,2,3,4", help="folds of unseen speakers to test on")
    add("--seeds", default="1,2,3", help="each fold is run with each; random split, shipped weights, teachers with the first")
    add("--develop", metavar="FOLDS", help="only try the recipe: validate it on the speakers of these folds")
    add("--teachers", type=int, default=len(learn.TEACHERS), help="networks that each run learns from, 0 for none")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="another value in all recipes, such as epochs=2")
    add("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a process each")
    add("--threads", type=int, default=1, help="threads of each run")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(typed)


def changed(recipe, assignments: list[str]):
    """`recipe` with `name=value` assignments made; a dot leads into its parts.

    Raises SystemExit with the names that there are where one is not known.
    """
    for assignment in assignments:
        path, _, text = assignment.partition("=")
        name, _, rest = path.partition(".")
        known = {field.name for field in dataclasses.fields(recipe)}
        if name not in known or not text:
            raise SystemExit(f"--set {assignment}: there is no {name!r}; there are {', '.join(sorted(known))}")
        old = getattr(recipe, name)
        value = changed(old, [f"{rest}={text}"]) if rest else type(old)(json.loads(text))
        recipe = dataclasses.replace(recipe, **{name: value})
    return recipe


def jobs(given: argparse.Namespace) -> list[protocol.Job]:
    corpora = tuple(corpus for corpus in CORPORA if corpus in given.corpora.split(","))
    usual = learn.Recipe(corpora=corpora)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    if given.develop is not None:
        of_first, of_each = [], [f"develop:{fold}" for fold in given.develop.split(",")]
    else:
        of_first, of_each = ["random", "all"], [f"fold:{fold}" for fold in given.folds.split(",") if fold]
    print_of = protocol.fingerprint(given.features)
    folder = given.runs_folder or HERE / "runs" / given.out.resolve().name

    def job(split: str, differences: Sequence[str], seed: int, **more) -> protocol.Job:
        recipe = changed(usual, [*differences, *given.set])
        return protocol.Job(split, recipe, seed, given.threads, given.device, given.features, print_of, folder, **more)

    todo = []
    for split in [*of_each, *of_first]:
        differences = enumerate(learn.TEACHERS[: given.teachers], 1)
        teachers = tuple(job(split, different, seeds[0], teaches=number) for number, different in differences)
        todo += [*teachers, *(job(split, (), seed, teachers=teachers) for seed in (seeds if split in of_each else seeds[:1]))]
    # The first seed's first: it is the one that ships.
    return sorted(todo, key=lambda job: seeds.index(job.seed))


def collect(done: list[protocol.Job], out: Path, version: str) -> dict:
    """Packages all runs: the one on everything into `out`, the others as the protocol. Returns the facts about it."""
    name = out.resolve().name
    everything, done = done, [job for job in done if not job.teaches]
    corpora = data.load(done[0].features, done[0].recipe.corpora)
    temperatures = protocol.temperatures(done)
    runs, disparities = [], []
    for job in done:
        model = protocol.weights(job)
        folder = out if job.split == "all" else job.place
        disparities.append(package.write(folder, name, version, model, job.recipe.corpora, temperatures[job]))
        kind, _, fold = job.split.partition(":")
        if kind == "fold":
            runs.append({"model": job.place.name, "kind": kind, "fold": int(fold), "seed": job.seed})
        elif kind == "random":
            names = corpora.clip_names[splits.split(corpora, job.split, job.seed).test]
            (job.place / "clips.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
            clips = f"{job.place.name}/clips.txt"
            runs.append({"model": job.place.name, "kind": kind, "seed": job.seed, "clips": clips})
    text = {
        "schema": 1,
        "name": name,
        "description": "Models trained by the recipe of the shipped one, each without the clips that it is judged on.",
        "speakers": {speaker: int(fold) for speaker, fold in zip(corpora.speaker, corpora.fold)},
        "runs": runs,
    }
    (done[0].folder / "protocol.json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    shipped = next(job for job in done if job.split == "all")
    model, path = protocol.weights(shipped), out / "model.onnx"
    return {
        "name": name,
        "version": version,
        "recipe": shipped.recipe.as_dict(),
        "teachers": [teacher.recipe.as_dict() for teacher in shipped.teachers],
        "seeds": sorted({job.seed for job in done}),
        "features_sha256": shipped.fingerprint,
        # What training alone needs does not ship.
        "parameters": sum(w.numel() for name, w in model.named_parameters() if not name.startswith("listeners.")),
        "state_size": model.shape.state_size,
        "onnx_bytes": path.stat().st_size,
        "largest_disparity": max(disparities),
        "temperature": temperatures[shipped],
        "minutes": {job.name: json.loads((job.place / "run.json").read_text())["minutes"] for job in everything},
        "cost_ms_per_audio_second": {str(batch): round(export.cost_ms(path, batch), 4) for batch in BATCHES},
        "software": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


def main(typed: list[str] | None = None) -> int:
    given = arguments(typed)
    if not given.features.exists():
        remedy = f"make it with `undertone features CORPORA --out {given.features.parent}`"
        print(f"{given.features} is missing: {remedy}", file=sys.stderr)
        return 66
    todo = jobs(given)
    # Ended by `kill` or by a job runner as by Ctrl-C: no worker may stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        protocol.run_all(todo, given.workers)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on with the runs that are not finished", file=sys.stderr)
        return 130
    if given.develop is not None:
        print(protocol.developed([job for job in todo if not job.teaches]))
        return 0
    facts = collect(todo, given.out, given.version)
    where = todo[0].folder / "training.json"
    where.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{given.out}: model.onnx, model.toml; runs and protocol in {todo[0].folder}")
    print(f"next: undertone evaluate CORPORA --protocol {todo[0].folder} --out DIR, then training/card.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
