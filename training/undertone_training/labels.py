"""The emotions, in the order of the model's output, and what each corpus has of them."""

from collections.abc import Iterable

LABELS = ("neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise")

CORPORA = ("crema-d", "ravdess", "savee", "tess")

# Only RAVDESS distinguishes calm from neutral, and CREMA-D has no surprise.
ABSENT = {
    "crema-d": ("calm", "surprise"),
    "ravdess": (),
    "savee": ("calm",),
    "tess": ("calm",),
}


def present(corpus: str) -> list[int]:
    """Indices of the labels that `corpus` has."""
    return [i for i, label in enumerate(LABELS) if label not in ABSENT[corpus]]


def of(corpora: Iterable[str]) -> list[str]:
    """The labels that any of `corpora` has, in order."""
    known = {index for corpus in corpora for index in present(corpus)}
    return [label for index, label in enumerate(LABELS) if index in known]
