"""Others' names of emotions and dimensions -> ours."""

from __future__ import annotations

from undertone_training.labels import LABELS

from .folder import BAD_USAGE, Refused

SYNONYMS = {
    "neutral": ("neutral", "neu", "n", "neutrality"),
    "calm": ("calm", "calmness"),
    "happy": ("happy", "hap", "happiness", "joy", "joyful", "h"),
    "sad": ("sad", "sadness", "sa"),
    "angry": ("angry", "ang", "anger", "a"),
    "fear": ("fear", "fearful", "fea", "afraid", "f"),
    "disgust": ("disgust", "disgusted", "dis", "d"),
    "surprise": ("surprise", "surprised", "sur", "su", "ps", "pleasant surprise", "pleasant surprised"),
}
OURS = {name: label for label, names in SYNONYMS.items() for name in names}
DIMENSIONS = ("arousal", "dominance", "valence")
# In `--labels`, an output to leave out, such as "other".
NOTHING = "-"


def plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def dimensions(names: list[str]) -> list[str] | None:
    """The dimensions that a regressor's outputs are named after, in their order; None if they are something else."""
    found = [plain(name) for name in names]
    whole = len(set(found)) == len(found) and set(found) <= set(DIMENSIONS)
    return found if whole and {"arousal", "valence"} <= set(found) else None


def emotions(names: list[str], told: str | None = None) -> list[str | None]:
    """Our label of each output; None for one to leave out. `told` is `--labels`, "0=angry,1=happy,other=-"."""
    wanted = dict(enumerate(names))
    for item in filter(None, (part.strip() for part in (told or "").split(","))):
        output, _, label = (part.strip() for part in item.partition("="))
        indices = [i for i, name in enumerate(names) if output == str(i) or plain(output) == plain(name)]
        if not indices:
            raise Refused(f"--labels: there is no output {output!r}; there are {listed(names)}", BAD_USAGE)
        if label != NOTHING and plain(label) not in OURS:
            raise Refused(f"--labels: {label!r} is no emotion; known are {', '.join(LABELS)}, or {NOTHING}", BAD_USAGE)
        wanted |= dict.fromkeys(indices, label)
    unknown = [f"{i} ({name})" for i, name in wanted.items() if name != NOTHING and plain(name) not in OURS]
    if unknown:
        raise Refused(
            f"outputs that are no known emotion: {', '.join(unknown)}; say what they are by "
            f'--labels "{unknown[0].split()[0]}=angry,...", with one of {", ".join(LABELS)}, or {NOTHING} to leave one out',
            BAD_USAGE,
        )
    mapped = [None if wanted[i] == NOTHING else OURS[plain(wanted[i])] for i in range(len(names))]
    if len({label for label in mapped if label}) < 2:
        raise Refused(f"fewer than two emotions are left of {listed(names)}", BAD_USAGE)
    return mapped


def listed(names: list[str]) -> str:
    return ", ".join(f"{i} ({name})" for i, name in enumerate(names))
