"""Who is trained on, validated on and tested on.

`fold:K` tests on the speakers of fold K and trains on all others.
`develop:K` is for choosing a recipe: trains as `fold:K` does and validates on fold K after every few epochs. Recipes
are chosen on the folds in `DEVELOPED`; the others are looked at once a recipe stands.
`random` is the original project's split, 80 / 20 by clip, speakers on both sides: for comparison only.
`all` trains on everything and has nothing to test on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .data import Corpora

FOLDS = 5
DEVELOPED = (0, 1)


@dataclass
class Split:
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split(corpora: Corpora, name: str, seed: int) -> Split:
    """Clip indices of the split called `name`; the same seed gives the same split."""
    rng = np.random.default_rng([seed, *name.encode()])
    everything = np.arange(len(corpora))
    nothing = everything[:0]
    if name == "all":
        return Split(everything, nothing, nothing)
    if name == "random":
        return random_split(corpora, rng)
    kind, _, fold = name.partition(":")
    if kind not in {"fold", "develop"} or fold not in {str(index) for index in range(FOLDS)}:
        raise ValueError(f"no such split: {name!r}; there are fold:0 to fold:{FOLDS - 1}, develop:0 and so on, random, all")
    test = corpora.fold == int(fold)
    if kind == "fold":
        return Split(everything[~test], nothing, everything[test])
    return Split(everything[~test], everything[test], nothing)


def random_split(corpora: Corpora, rng: np.random.Generator) -> Split:
    """80 % training, of which a tenth validates (for the temperature), 20 % test; by corpus and emotion, so that shares
    are kept."""
    part = np.empty(len(corpora), int)
    for corpus in np.unique(corpora.corpus):
        for emotion in np.unique(corpora.emotion):
            clips = rng.permutation(np.flatnonzero((corpora.corpus == corpus) & (corpora.emotion == emotion)))
            place = (np.arange(len(clips)) + rng.random()) / max(len(clips), 1)
            part[clips] = np.where(place < 0.72, 0, np.where(place < 0.80, 1, 2))
    return Split(*(np.flatnonzero(part == index) for index in range(3)))
