"""Hidden states -> logits: what is trained from nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

POOLINGS = ("attention", "mean")


def heard_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the heard frames: [batch, frames, width] -> [batch, width]."""
    weights = mask.to(states.dtype)[..., None]
    return (states * weights).sum(1) / weights.sum(1)


class LayerMix(nn.Module):
    """A learnt weighted mean of all layers, as SUPERB (Yang et al. 2021) does with frozen encoders: what tells emotions
    apart stands in the middle layers rather than in the last one. Starts as the plain mean."""

    def __init__(self, layers: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))

    def forward(self, every: list[Tensor]) -> Tensor:
        share = torch.softmax(self.weights, 0)
        mixed = every[0] * share[0]
        for index, states in enumerate(every[1:], 1):
            mixed = mixed + states * share[index]
        return mixed


class Head(nn.Module):
    """Projection of each frame, pooling over the heard ones, logits."""

    def __init__(
        self, width: int, layers: int, labels: int, hidden: int, pooling: str, mix: bool, dropout: float = 0.1
    ):
        super().__init__()
        self.mix = LayerMix(layers) if mix else None
        self.project = nn.Linear(width, hidden)
        self.attend = nn.Linear(hidden, 1) if pooling == "attention" else None
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, labels)

    def forward(self, every: list[Tensor], mask: Tensor) -> Tensor:
        states = every[-1] if self.mix is None else self.mix(every)
        states = self.dropout(torch.relu(self.project(states)))
        if self.attend is None:
            pooled = heard_mean(states, mask)
        else:
            score = self.attend(states)[..., 0].masked_fill(~mask, -1e9)
            pooled = (states * torch.softmax(score, 1)[..., None]).sum(1)
        return self.output(self.dropout(pooled))
