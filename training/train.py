"""Trains, measures and packages one model: features in, `models/<name>/` out.

    python training/train.py --features training/data/features.npz --out models/undertone-four

Runs that are finished are not repeated, so the command can be interrupted and given again.
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
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import torch

from undertone_training import export, learn, package, protocol

HERE = Path(__file__).resolve().parent
BATCHES = (1, 16, 64)
# Float32 sums in another order differ by about 1e-6 on logits of this size.
LARGEST_DISPARITY = 1e-4


def arguments(typed: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--features", type=Path, default=HERE / "data" / "features.npz", help="what `undertone features` wrote")
    add("--out", type=Path, default=HERE.parent / "models" / "undertone-four", help="the model's folder")
    add("--version", default="0.1.0", help="the model's version, for its manifest")
    add("--runs-folder", type=Path, default=HERE / "runs", help="weights and outcome of each run")
    add("--results", type=Path, help="results file (default: training/results/<name of --out>.json)")
    add("--folds", default="0,1,2,3,4", help="folds of unseen speakers to test on")
    add("--develop", type=int, metavar="FOLD", help="only try the recipe: validate it on speakers of the other folds")
    add("--epochs", type=int, help=f"instead of the recipe's {learn.Recipe().epochs}")
    add("--clips-per-epoch", type=int, help=f"instead of the recipe's {learn.Recipe().clips_per_epoch}")
    add("--seed", type=int, default=1)
    add("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time, a process each")
    add("--threads", type=int, default=1, help="threads of each run")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(typed)


def jobs(given: argparse.Namespace) -> list[protocol.Job]:
    changes = {"epochs": given.epochs, "clips_per_epoch": given.clips_per_epoch}
    recipe = replace(learn.Recipe(), **{name: value for name, value in changes.items() if value is not None})
    names = [f"fold:{fold}" for fold in given.folds.split(",") if fold] + ["random", "all"]
    if given.develop is not None:
        names = [f"develop:{given.develop}"]
    print_of = protocol.fingerprint(given.features)
    return [
        protocol.Job(name, recipe, given.seed, given.threads, given.device, given.features, print_of, given.runs_folder)
        for name in names
    ]


def collect(done: list[protocol.Job], out: Path) -> dict:
    """Exports the weights trained on everything and gathers all figures."""
    last = done[-1]
    model = protocol.weights(last)
    made = export.build(model)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.onnx"
    path.write_bytes(made.SerializeToString())
    disparity = export.disparity(model, made)
    if disparity > LARGEST_DISPARITY:
        raise RuntimeError(f"the exported graph differs from the network by {disparity}, more than {LARGEST_DISPARITY}")
    return {
        **protocol.summary(protocol.outcomes(done)),
        "recipe": last.recipe.as_dict(),
        "seed": last.seed,
        "features_sha256": last.fingerprint,
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "state_size": model.shape.state_size,
        "onnx_bytes": path.stat().st_size,
        "largest_disparity": disparity,
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
        return 0
    results = collect(todo, given.out)
    name = given.out.resolve().name
    where = given.results or HERE / "results" / f"{name}.json"
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(json.dumps(results, indent=1) + "\n")
    package.write(name, given.version, given.out, results)
    print(package.table(results))
    print(f"{given.out}: model.onnx, model.toml, MODEL_CARD.md; figures in {where}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
