"""One training run: a split and a recipe in, weights and predictions out.

The learning rate follows one cycle down to nothing and the weights are averaged as they move, so the last epoch is
the one that counts: no epoch is picked by its score. Validation speakers only give the temperature, and the curve
from which a recipe's number of epochs was chosen.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import augment, data, labels, metrics
from .data import Corpora, Item
from .labels import ABSENT, CORPORA, LABELS
from .model import Shape, StreamingLstm
from .splits import Split


@dataclass(frozen=True)
class Recipe:
    """All that a run depends on besides its data, its split and its seed."""

    corpora: tuple[str, ...] = CORPORA
    epochs: int = 30
    clips_per_epoch: int = 8192
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    average: float = 0.999
    label_smoothing: float = 0.1
    # Clips are mixed in pairs, shares drawn from Beta(mixup, mixup), and so are their losses; 0 for none.
    mixup: float = 0.0
    # How often clips of CREMA-D, RAVDESS, SAVEE and TESS are drawn: by voices rather than by clips, of which TESS has
    # 2,800 by two people. Of some corpora alone, in the same proportions.
    shares: tuple[float, ...] = (0.50, 0.33, 0.09, 0.08)
    # Subtracted from the logits of labels that a clip's corpus does not have, before the loss. 0 pushes them down
    # as any wrong label; a large value leaves them out of the competition altogether.
    absent_penalty: float = 2.0
    # Weight of a second task: to say what CREMA-D's raters said of a clip, where they were asked.
    votes: float = 0.7
    # Share of the loss that lies on the end of an utterance; the rest is spread over all steps from `first_step`.
    end_share: float = 0.6
    first_step: int = 3
    longest_hops: int = 208
    # Over this share of the epochs, noise, rooms and telephones become as frequent as they are meant to be.
    ramp: float = 0.6
    # Epochs between two looks at the validation clips.
    look_every: int = 4
    shape: Shape = Shape()
    strength: augment.Strength = field(default_factory=augment.Strength)

    def as_dict(self) -> dict:
        return asdict(self)


def changed(recipe, assignments: Iterable[str]):
    """`recipe` with `name=value` assignments made; a dot leads into its parts.

    Raises ValueError with the names that there are where one is not known.
    """
    for assignment in assignments:
        path, _, text = assignment.partition("=")
        name, _, rest = path.partition(".")
        known = {one.name for one in fields(recipe)}
        if name not in known or not text:
            raise ValueError(f"{assignment}: there is no {name!r}; there are {', '.join(sorted(known))}")
        old = getattr(recipe, name)
        value = changed(old, [f"{rest}={text}"]) if rest else type(old)(json.loads(text))
        recipe = replace(recipe, **{name: value})
    return recipe


# What the networks of one model have instead of the recipe's values, as `train.py --set` takes them. Networks that are
# held back in different degrees are right about different people, so together they are better than either. The second
# hears what a telephone leaves: it loses nothing by that where it knows the room, and is the better one where it does not.
MEMBERS: tuple[tuple[str, ...], ...] = (
    ("shape.dropout=0.2", "strength.channel_db=1.0"),
    ("shape.top_hz=4000", "shape.envelope=16", "shape.dropout=0.25", "strength.channel_db=1.5", "mixup=0.2", "epochs=20"),
)


@dataclass
class Heard:
    """What the model said of one clip."""

    clip: int
    logits: np.ndarray  # [8], of the whole clip
    course: np.ndarray  # [steps, 8], after each step of its first utterance


def seeded(seed: int, threads: int, device: str = "cpu") -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    # CUDA has no deterministic cumulative sum, so there only the CPU's promise can be kept.
    torch.use_deterministic_algorithms(device == "cpu")
    # Memory that is about to be written is otherwise filled with NaN first, at a twelfth of the whole time.
    torch.utils.deterministic.fill_uninitialized_memory = False


def train(
    corpora: Corpora,
    split: Split,
    recipe: Recipe,
    seed: int,
    device: torch.device = torch.device("cpu"),
    report: Callable[[str], None] = lambda line: None,
) -> tuple[StreamingLstm, list[dict]]:
    """The averaged model after the last epoch, and one row of figures per epoch."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    hops = data.hops_of(corpora, split.train)
    model = StreamingLstm(recipe.shape)
    model.normalise_by(torch.from_numpy(hops))
    model.to(device)
    averaged = copy.deepcopy(model).eval()
    vary = augment.Augmenter(recipe.strength, hops.mean(0, dtype=np.float64).astype(np.float32))
    choices = Draw(corpora, split.train, recipe)
    batches = -(-recipe.clips_per_epoch // recipe.batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.epochs * batches, pct_start=0.2
    )
    penalties = penalty_table(recipe.absent_penalty).to(device)
    history = []
    for epoch in range(recipe.epochs):
        began, losses = time.monotonic(), []
        model.train()
        vary.hardness = min(1.0, (epoch + 1) / (recipe.ramp * recipe.epochs)) if recipe.ramp else 1.0
        for number, (clips, mfcc, steps) in enumerate(choices.batches(vary, rng)):
            share = float(rng.beta(recipe.mixup, recipe.mixup)) if recipe.mixup else 1.0
            other = rng.permutation(len(clips)) if recipe.mixup else slice(None)
            shown = torch.from_numpy(mixed(mfcc, other, share)).to(device)
            logits, heard = model.with_listeners(shown)
            loss = 0.0
            for weight, chosen in ((share, slice(None)), (1.0 - share, other)):
                if not weight:
                    continue
                target = torch.from_numpy(corpora.emotion[clips][chosen]).to(device)
                absent = penalties[torch.from_numpy(corpora.corpus[clips][chosen]).to(device)]
                length = torch.from_numpy(steps[chosen]).to(device)
                loss = loss + weight * utterance_loss(logits, target, absent, length, recipe)
                if recipe.votes and corpora.votes is not None:
                    said = torch.from_numpy(corpora.votes[clips][chosen]).to(device)
                    loss = loss + weight * recipe.votes * listeners_loss(heard, said[:, None], length, recipe)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            # The average starts short, or the random first weights would stay in it for epochs.
            follow(averaged, model, min(recipe.average, 1.0 - 1.0 / (10 + epoch * batches + number)))
            losses.append(loss.item())
        row = {"epoch": epoch + 1, "loss": float(np.mean(losses))}
        if len(split.validation) and ((epoch + 1) % recipe.look_every == 0 or epoch + 1 == recipe.epochs):
            row |= assess(corpora, hear(averaged, corpora, split.validation, device))
        row["seconds"] = round(time.monotonic() - began, 1)
        history.append(row)
        report("  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    averaged.rule_out([i for i, label in enumerate(LABELS) if label not in labels.of(recipe.corpora)])
    return averaged.cpu(), history


def mixed(mfcc: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """Each clip with `1 - share` of another one of its batch, which has about its length."""
    return mfcc if share == 1.0 else (share * mfcc + (1.0 - share) * mfcc[other]).astype(np.float32)


class Draw:
    """Draws an epoch's clips, corpora and labels balanced, and batches them by length."""

    SORTED_BATCHES = 16

    def __init__(self, corpora: Corpora, clips: np.ndarray, recipe: Recipe):
        self.corpora, self.recipe = corpora, recipe
        self.clips = clips
        self.items: dict[int, list[Item]] = {}
        for item in data.training_items(corpora, clips):
            self.items.setdefault(item.clip, []).append(item)
        corpus, emotion = corpora.corpus[clips], corpora.emotion[clips]
        weight = np.zeros(len(clips))
        for index in np.unique(corpus):
            inside = corpus == index
            per_label = np.bincount(emotion[inside], minlength=len(LABELS))
            # Labels of a corpus are balanced half-way (square root).
            weight[inside] = per_label[emotion[inside]] ** -0.5
            weight[inside] *= recipe.shares[index] / weight[inside].sum()
        self.weight = weight / weight.sum()

    def batches(
        self, vary: augment.Augmenter, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Clip indices, padded features and step counts of each batch of one epoch."""
        size, recipe = self.recipe.batch, self.recipe
        drawn = rng.choice(self.clips, recipe.clips_per_epoch, p=self.weight)
        for start in range(0, len(drawn), size * self.SORTED_BATCHES):
            part = drawn[start : start + size * self.SORTED_BATCHES]
            chosen = [self.items[clip][rng.integers(len(self.items[clip]))] for clip in part]
            pieces = [vary(self.corpora.piece(item), rng, recipe.longest_hops) for item in chosen]
            # Alike in length, so that little of a batch is padding; in random order, so that length teaches nothing.
            order = np.argsort([len(piece) for piece in pieces], kind="stable")
            groups = [order[at : at + size] for at in range(0, len(order), size)]
            for group in rng.permutation(len(groups)):
                rows = groups[group]
                yield part[rows], *data.pad([pieces[row] for row in rows])


def penalty_table(penalty: float) -> Tensor:
    """What to subtract from each logit, [corpora, 8]."""
    table = torch.zeros(len(CORPORA), len(LABELS))
    for row, corpus in enumerate(CORPORA):
        for label in ABSENT[corpus]:
            table[row, LABELS.index(label)] = penalty
    return table


def utterance_loss(logits: Tensor, target: Tensor, absent: Tensor, steps: Tensor, recipe: Recipe) -> Tensor:
    """Cross-entropy with smoothed labels over all steps of each utterance, [batch, steps, 8] -> scalar.

    Smoothing spreads over the labels that the clip's corpus has: a label that it lacks is no near miss.
    """
    log_probability = functional.log_softmax(logits - absent[:, None], dim=2)
    allowed = (absent == 0).float()
    smooth = recipe.label_smoothing * allowed / allowed.sum(1, keepdim=True)
    wanted = smooth + (1.0 - recipe.label_smoothing) * functional.one_hot(target, logits.shape[2])
    per_step = -(log_probability * wanted[:, None]).sum(2)
    return (per_step * step_weights(steps, logits.shape[1], recipe)).sum(1).mean()


def listeners_loss(logits: Tensor, said: Tensor, steps: Tensor, recipe: Recipe) -> Tensor:
    """Cross-entropy with what others said, [batch, steps or 1, 8], over all steps of each utterance; rows of zeros, where
    nobody was asked, cost nothing."""
    per_step = -(functional.log_softmax(logits, dim=2) * said).sum(2)
    return (per_step * step_weights(steps, logits.shape[1], recipe)).sum(1).mean()


def step_weights(steps: Tensor, longest: int, recipe: Recipe) -> Tensor:
    """How much each step counts in its utterance's loss, [batch, longest], rows sum to 1, none in the padding."""
    at = torch.arange(longest, device=steps.device)[None]
    last = (at == steps[:, None] - 1).float()
    # An utterance shorter than `first_step` has its last step only.
    first = (steps[:, None] - 1).clamp(max=recipe.first_step)
    along = ((at >= first) & (at < steps[:, None])).float()
    return recipe.end_share * last + (1.0 - recipe.end_share) * along / along.sum(1, keepdim=True)


def follow(averaged: StreamingLstm, model: StreamingLstm, keep: float) -> None:
    with torch.no_grad():
        for mine, other in zip(averaged.parameters(), model.parameters()):
            mine.lerp_(other, 1.0 - keep)


@torch.no_grad()
def hear(
    model: StreamingLstm, corpora: Corpora, clips: np.ndarray, device: torch.device = torch.device("cpu")
) -> list[Heard]:
    """The model's word on each of `clips`, utterance by utterance as the service hears them.

    A clip of several utterances gets the mean of their log-probabilities, weighted by length.
    """
    model.eval()
    of_clip = data.utterances(corpora, clips)
    items = sorted((item for found in of_clip for item in found), key=lambda item: item.end - item.start)
    course: dict[Item, np.ndarray] = {}
    for start in range(0, len(items), 128):
        together = items[start : start + 128]
        mfcc, steps = data.pad([corpora.piece(item) for item in together])
        logits = model(torch.from_numpy(mfcc).to(device)).cpu().numpy()
        course |= {item: logits[row, : steps[row]] for row, item in enumerate(together)}
    heard = []
    for clip, found in zip(clips, of_clip):
        ends = np.stack([course[item][-1] for item in found]).astype(np.float64)
        length = np.array([len(course[item]) for item in found])
        whole = np.average(np.log(np.maximum(metrics.softmax(ends), 1e-30)), axis=0, weights=length)
        heard.append(Heard(int(clip), whole, course[found[0]].astype(np.float64)))
    return heard


def assess(corpora: Corpora, heard: list[Heard]) -> dict[str, float]:
    """Per corpus, among the labels that it has: UA and NLL; `open` is the UA among all labels, as in service."""
    clips = np.array([one.clip for one in heard])
    logits = np.stack([one.logits for one in heard])
    row = {}
    for index in np.unique(corpora.corpus[clips]):
        inside = corpora.corpus[clips] == index
        truth, name = corpora.emotion[clips][inside], CORPORA[index]
        own = metrics.figures(truth, metrics.restricted(logits[inside], labels.present(name)))
        row[f"{name}_ua"], row[f"{name}_nll"] = own["ua"], own["nll"]
        row[f"{name}_open"] = metrics.figures(truth, logits[inside])["ua"]
    return row
