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
import json
import platform
import signal
import sys
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
    add("--version", default="0.5.2", help="the model's version, for its manifest")
    add("--corpora", default=",".join(CORPORA), help="the corpora to train on")
    add("--runs-folder", type=Path, help="weights and outcome of each run (default: training/runs/<name of --out>)")
    add("--folds", default="0,1,2,3,4", help="folds of unseen speakers to test on")
    add("--seeds", default="1,2,3", help="each fold is run with each; random split and shipped weights with the first")
    add("--develop", metavar="FOLDS", help="only try the recipe: validate it on the speakers of these folds")
    add("--members", type=int, default=len(learn.MEMBERS), help="how many networks speak as one: the first so many")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="another value in all recipes, such as epochs=2")
    add("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a process each")
    add("--threads", type=int, default=1, help="threads of each run")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(typed)


def runs(given: argparse.Namespace) -> list[protocol.Run]:
    """What is to be made; the first seed's first: it is the one that ships.

    Raises SystemExit for more members than there are recipes for, and for `--set` of what there is not."""
    corpora = tuple(corpus for corpus in CORPORA if corpus in given.corpora.split(","))
    usual = learn.Recipe(corpora=corpora)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    if not 1 <= given.members <= len(learn.MEMBERS):
        raise SystemExit(f"--members {given.members}: from 1 to {len(learn.MEMBERS)}")
    if given.develop is not None:
        of_first, of_each = [], [f"develop:{fold}" for fold in given.develop.split(",")]
    else:
        of_first, of_each = ["random", "all"], [f"fold:{fold}" for fold in given.folds.split(",") if fold]
    print_of = protocol.fingerprint(given.features)
    folder = given.runs_folder or HERE / "runs" / given.out.resolve().name

    try:
        recipes = [learn.changed(usual, [*differences, *given.set]) for differences in learn.MEMBERS[: given.members]]
    except ValueError as problem:
        raise SystemExit(f"--set {problem}") from None

    def run(split: str, seed: int) -> protocol.Run:
        place = (given.threads, given.device, given.features, print_of, folder)
        return protocol.Run(tuple(protocol.Job(split, recipe, seed, *place, number) for number, recipe in enumerate(recipes, 1)))

    return [run(split, seed) for seed in seeds for split in [*of_each, *(of_first if seed == seeds[0] else [])]]


def collect(done: list[protocol.Run], out: Path, version: str) -> dict:
    """Packages all runs: the one on everything into `out`, the others as the protocol. Returns the facts about it."""
    name = out.resolve().name
    first = done[0].members[0]
    corpora = data.load(first.features, done[0].corpora)
    temperatures = protocol.temperatures(done, corpora)
    judged, disparities = [], []
    for run in done:
        folder = out if run.split == "all" else run.place
        disparities.append(package.write(folder, name, version, run.packaged(), run.corpora, temperatures[run]))
        kind, _, fold = run.split.partition(":")
        if kind == "fold":
            judged.append({"model": run.place.name, "kind": kind, "fold": int(fold), "seed": run.seed})
        elif kind == "random":
            names = corpora.clip_names[splits.split(corpora, run.split, run.seed).test]
            (run.place / "clips.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
            clips = f"{run.place.name}/clips.txt"
            judged.append({"model": run.place.name, "kind": kind, "seed": run.seed, "clips": clips})
    text = {
        "schema": 1,
        "name": name,
        "description": "Models trained by the recipe of the shipped one, each without the clips that it is judged on.",
        "speakers": {speaker: int(fold) for speaker, fold in zip(corpora.speaker, corpora.fold)},
        "runs": judged,
    }
    (first.folder / "protocol.json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    shipped = next(run for run in done if run.split == "all")
    model, path = shipped.packaged(), out / "model.onnx"
    of_each = [job for run in done for job in run.members]
    return {
        "name": name,
        "version": version,
        "corpora": list(shipped.corpora),
        "members": [job.recipe.as_dict() for job in shipped.members],
        "seeds": sorted({run.seed for run in done}),
        "features_sha256": first.fingerprint,
        # What training alone needs does not ship.
        "parameters": sum(w.numel() for name, w in model.named_parameters() if ".listeners." not in name),
        "state_size": model.state_size,
        "onnx_bytes": path.stat().st_size,
        "largest_disparity": max(disparities),
        "temperature": temperatures[shipped],
        "minutes": {job.name: json.loads((job.place / "run.json").read_text())["minutes"] for job in of_each},
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
    todo = runs(given)
    folder = todo[0].place.parent
    # Ended by `kill` or by a job runner as by Ctrl-C: no worker may stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        protocol.run_all([job for run in todo for job in run.members], given.workers)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on with the runs that are not finished", file=sys.stderr)
        return 130
    if given.develop is not None:
        print(protocol.developed(todo, data.load(given.features, todo[0].corpora)))
        return 0
    facts = collect(todo, given.out, given.version)
    where = folder / "training.json"
    where.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"{given.out}: model.onnx, model.toml; runs and protocol in {folder}")
    print(f"next: undertone evaluate CORPORA --protocol {folder} --out DIR, then training/card.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
