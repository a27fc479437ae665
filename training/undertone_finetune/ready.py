"""Classifiers and regressors that others trained, from a folder: the same states and masks as for our own, their head.

Two kinds of head are known, told apart by the names of their weights:

- that of `transformers`' own classes (`WhisperForAudioClassification`, `Wav2Vec2ForSequenceClassification`, likewise of
  WavLM and HuBERT): a projection of each frame, the mean over time, logits; with or without a weighted sum of layers;
- that of published emotion models with a class of their own (`classifier.dense`, then `classifier.out_proj` or
  `classifier.output`): the mean over time, a dense layer, tanh, outputs. Regressors of arousal, dominance and valence
  are made so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from . import folder, vocabulary
from .folder import Refused
from .head import heard_mean
from .network import Network, states_of


class ProjectedMean(nn.Module):
    """The head of `transformers`' classifiers. `everything` pools over unheard frames too, as Whisper's was trained."""

    def __init__(self, weights: dict[str, Tensor], everything: bool):
        super().__init__()
        self.projector, self.classifier = linear(weights, "projector"), linear(weights, "classifier")
        mix = weights.get("layer_weights")
        self.register_buffer("shares", None if mix is None else torch.softmax(mix, 0))
        self.everything = everything

    def forward(self, every: list[Tensor], mask: Tensor) -> Tensor:
        states = every[-1]
        if self.shares is not None:
            states = sum(share * one for share, one in zip(self.shares, every))
        states = self.projector(states)
        return self.classifier(states.mean(1) if self.everything else heard_mean(states, mask))


class DenseTanh(nn.Module):
    """The mean over time, a dense layer, tanh, outputs."""

    def __init__(self, weights: dict[str, Tensor], output: str):
        super().__init__()
        self.dense, self.output = linear(weights, "classifier.dense"), linear(weights, output)

    def forward(self, every: list[Tensor], mask: Tensor) -> Tensor:
        return self.output(torch.tanh(self.dense(heard_mean(every[-1], mask))))


class Relabelled(nn.Module):
    """Logits of our labels out of theirs: those left out are dropped, those that mean the same are joined so that their
    probabilities add up."""

    def __init__(self, head: nn.Module, sources: list[list[int]]):
        super().__init__()
        self.head, self.sources = head, sources

    def forward(self, every: list[Tensor], mask: Tensor) -> Tensor:
        theirs = self.head(every, mask)
        ours = [theirs[:, one].logsumexp(1) if len(one) > 1 else theirs[:, one[0]] for one in self.sources]
        return torch.stack(ours, 1)


def linear(weights: dict[str, Tensor], name: str) -> nn.Linear:
    weight = weights[f"{name}.weight"]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(weights.get(f"{name}.bias", torch.zeros(len(layer.bias))))
    return layer


@dataclass
class Ready:
    """Either `labels` or `dimensions` is set; `theirs` are the outputs' own names."""

    network: Network
    labels: list[str] | None
    dimensions: list[str] | None
    theirs: list[str]


def head_of(where: Path, everything: bool, mixed: bool) -> nn.Module:
    weights = {
        name: values
        for part in ("projector.", "classifier.", "layer_weights")
        for name, values in folder.tensors(where, part)
    }
    if {"projector.weight", "classifier.weight"} <= set(weights):
        if mixed and "layer_weights" not in weights:
            raise Refused(f"{where}: use_weighted_layer_sum is true and layer_weights is missing")
        if not mixed:
            weights.pop("layer_weights", None)
        return ProjectedMean(weights, everything)
    for output in ("classifier.out_proj", "classifier.output"):
        if {"classifier.dense.weight", f"{output}.weight"} <= set(weights):
            return DenseTanh(weights, output)
    raise Refused(
        f"{where}: no head that is known (projector and classifier, or classifier.dense and classifier.out_proj); "
        f"the weights outside the encoder begin with {', '.join(sorted(weights)[:4]) or 'nothing known'}. To train a head "
        "on this encoder: `finetune.py train --encoder`"
    )


def ready(where: Path, labels: str | None = None, context: str = "full", normalise: str = "folder") -> Ready:
    """The classifier in the folder. `labels` says what outputs mean whose names are not known (`vocabulary`)."""
    config = folder.config(where)
    encoder = folder.encoder(where)
    states = states_of(encoder, where, context, normalise)
    everything = config.model_type == "whisper" and context == "full"
    head = head_of(where, everything, bool(getattr(config, "use_weighted_layer_sum", False)))
    outputs = next(module for module in reversed(list(head.modules())) if isinstance(module, nn.Linear)).out_features
    theirs = [str(config.id2label.get(index, f"LABEL_{index}")) for index in range(outputs)]
    dimensions = None if labels else vocabulary.dimensions(theirs)
    if dimensions:
        return Ready(Network(states, head).eval(), None, dimensions, theirs)
    mapped = vocabulary.emotions(theirs, labels)
    kept = [label for label in vocabulary.LABELS if label in mapped]
    sources = [[index for index, one in enumerate(mapped) if one == label] for label in kept]
    return Ready(Network(states, Relabelled(head, sources)).eval(), kept, None, theirs)
