"""The network: stacked hops -> two causal LSTM layers -> gated mean and maximum over the utterance so far -> logits.

Eight hops (128 ms) make one LSTM time step, so one model step (16 hops, 256 ms) costs two. Everything that is
remembered between model steps fits in one flat vector, zero at the start of an utterance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .data import COEFFICIENTS, STEP_HOPS
from .labels import LABELS


@dataclass(frozen=True)
class Shape:
    units: int = 96
    stacked_hops: int = 8
    hidden: int = 64
    dropout: float = 0.35

    @property
    def ticks(self) -> int:
        """LSTM time steps in one model step."""
        return STEP_HOPS // self.stacked_hops

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """h1, c1, h2, c2, gated sum, maximum, sum of gates."""
        return (self.units,) * 6 + (1,)

    @property
    def state_size(self) -> int:
        return sum(self.state_sizes)


class StreamingLstm(nn.Module):
    """`forward` hears whole utterances, `step` one step of each; both give the same logits."""

    # Keeps the first division finite; far below one gate of a step, so it does not move the mean.
    EPSILON = 1e-4

    def __init__(self, shape: Shape = Shape()):
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(COEFFICIENTS))
        self.register_buffer("scale", torch.ones(COEFFICIENTS))
        self.lstm1 = nn.LSTM(COEFFICIENTS * shape.stacked_hops, shape.units, batch_first=True)
        self.lstm2 = nn.LSTM(shape.units, shape.units, batch_first=True)
        self.gate = nn.Linear(shape.units, 1)
        self.hidden = nn.Linear(2 * shape.units, shape.hidden)
        self.output = nn.Linear(shape.hidden, len(LABELS))
        self.dropout = nn.Dropout(shape.dropout)
        for lstm in (self.lstm1, self.lstm2):
            # A forget gate that starts open lets gradients through the first epochs.
            nn.init.zeros_(lstm.bias_hh_l0)
            with torch.no_grad():
                lstm.bias_ih_l0.zero_()
                lstm.bias_ih_l0[shape.units : 2 * shape.units] = 1.0

    def normalise_by(self, mean: Tensor, deviation: Tensor) -> None:
        self.mean.copy_(mean)
        self.scale.copy_(1.0 / deviation)

    def forward(self, mfcc: Tensor) -> Tensor:
        """mfcc [batch, 16 * steps, 40] -> logits after each step [batch, steps, 8]."""
        state = mfcc.new_zeros(mfcc.shape[0], self.shape.state_size)
        return self.advance(mfcc, state)[0]

    def step(self, mfcc: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """mfcc [batch, 16, 40], state [batch, S] -> logits [batch, 8], next state [batch, S]."""
        logits, state = self.advance(mfcc, state)
        return logits[:, -1], state

    def advance(self, mfcc: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        batch, hops, _ = mfcc.shape
        steps, shape = hops // STEP_HOPS, self.shape
        h1, c1, h2, c2, total, largest, gates = state.split(shape.state_sizes, dim=1)
        x = ((mfcc - self.mean) * self.scale).reshape(batch, hops // shape.stacked_hops, -1)
        y, (h1, c1) = self.lstm1(x, (h1[None].contiguous(), c1[None].contiguous()))
        y, (h2, c2) = self.lstm2(self.dropout(y), (h2[None].contiguous(), c2[None].contiguous()))
        gate = torch.sigmoid(self.gate(y))
        by_step = (batch, steps, shape.ticks, -1)
        totals = total[:, None] + (gate * y).reshape(by_step).sum(2).cumsum(1)
        gated = gates[:, None] + gate.reshape(by_step).sum(2).cumsum(1)
        peaks = torch.maximum(largest[:, None], y.reshape(by_step).amax(2).cummax(1).values)
        pooled = torch.cat([totals / (gated + self.EPSILON), peaks], dim=2)
        hidden = torch.relu(self.hidden(self.dropout(pooled)))
        logits = self.output(self.dropout(hidden))
        return logits, torch.cat([h1[0], c1[0], h2[0], c2[0], totals[:, -1], peaks[:, -1], gated[:, -1]], dim=1)
