"""Fills a model's card and manifest with what `undertone evaluate` measured.

    python training/card.py --model models/undertone-four --evaluation training/runs/undertone-four/evaluation.json

Every figure in both files is read from that file or from the `training.json` that `training/train.py` left; none is
typed by hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from undertone_training import card, package

HERE = Path(__file__).resolve().parent


def main(typed: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "undertone-four", help="the model's folder")
    parser.add_argument("--training", type=Path, help="default: training/runs/<name of --model>/training.json")
    parser.add_argument("--evaluation", type=Path, help="default: evaluation.json beside it")
    given = parser.parse_args(typed)
    training = given.training or HERE / "runs" / given.model.resolve().name / "training.json"
    evaluation = given.evaluation or training.parent / "evaluation.json"
    for path in (training, evaluation):
        if not path.exists():
            print(f"{path} is missing: `train.py` and `undertone evaluate --out` write them", file=sys.stderr)
            return 66
    facts, measured = (json.loads(path.read_text(encoding="utf-8")) for path in (training, evaluation))
    package.append_figures(given.model / "model.toml", card.protocol(measured), card.figures(facts, measured))
    (given.model / "MODEL_CARD.md").write_text(card.text(facts, measured), encoding="utf-8")
    (given.model / "LICENSE.md").write_text(card.licence(facts), encoding="utf-8")
    print(f"{given.model}: figures into model.toml and MODEL_CARD.md; LICENSE.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
