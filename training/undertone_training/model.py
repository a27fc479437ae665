"""The network: cepstra -> envelope and pitch -> stacked hops -> causal LSTM layers -> gated mean and maximum over the
utterance so far -> logits.

It is given 64 MFCCs a hop. The first 20 are the envelope of the spectrum; from the others it works out pitch and
voicing (see `pitch`) and sees nothing else of them: more coefficients as they are were learnt by heart and said less
about people never heard. Eight hops (128 ms) make one LSTM time step, so one model step (16 hops, 256 ms) costs two.
Everything that is remembered between model steps fits in one flat vector, zero at the start of an utterance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import cepstra, pitch
from .data import COEFFICIENTS, STEP_HOPS
from .labels import LABELS


@dataclass(frozen=True)
class Shape:
    # Coefficients that the LSTM sees, the lowest ones.
    envelope: int = 20
    # They are of the bands below this frequency: the front end's 8,000 Hz, or less for a network that hears as over a
    # telephone.
    top_hz: float = cepstra.TOP_HZ
    # Whether it sees pitch and voicing.
    pitch: bool = True
    units: int = 160
    layers: int = 2
    stacked_hops: int = 8
    hidden: int = 64
    dropout: float = 0.2

    @property
    def features(self) -> int:
        """Values per hop that the LSTM sees."""
        return self.envelope + (pitch.FEATURES if self.pitch else 0)

    @property
    def hears_all(self) -> bool:
        return self.top_hz >= cepstra.TOP_HZ

    @property
    def ticks(self) -> int:
        """LSTM time steps in one model step."""
        return STEP_HOPS // self.stacked_hops

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """h and c of each layer, then gated sum, maximum, sum of gates."""
        return (self.units,) * (2 * self.layers + 2) + (1,)

    @property
    def state_size(self) -> int:
        return sum(self.state_sizes)


@torch.no_grad()
def open_forget_gate(lstm: nn.LSTM) -> None:
    """A forget gate that starts open lets gradients through the first epochs. All other biases start at zero."""
    lstm.bias_hh_l0.zero_()
    lstm.bias_ih_l0.zero_()
    lstm.bias_ih_l0[lstm.hidden_size : 2 * lstm.hidden_size] = 1.0


class StreamingLstm(nn.Module):
    """`forward` hears whole utterances, `step` one step of each; both give the same logits."""

    # Keeps the first division finite; far below one gate of a step, so it does not move the mean.
    EPSILON = 1e-4

    def __init__(self, shape: Shape = Shape(), labels: int = len(LABELS)):
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.envelope))
        self.register_buffer("scale", torch.ones(shape.envelope))
        # Constants, not weights: they follow from the front end, so they are not kept with the weights.
        view = cepstra.below(shape.top_hz, COEFFICIENTS, shape.envelope)
        self.register_buffer("view", torch.from_numpy(view), persistent=False)
        self.register_buffer("templates", torch.from_numpy(pitch.templates(COEFFICIENTS)), persistent=False)
        self.register_buffer("octaves", torch.from_numpy(pitch.octaves()), persistent=False)
        inputs = [shape.features * shape.stacked_hops] + [shape.units] * (shape.layers - 1)
        self.lstm = nn.ModuleList(nn.LSTM(size, shape.units, batch_first=True) for size in inputs)
        self.gate = nn.Linear(shape.units, 1)
        self.hidden = nn.Linear(2 * shape.units, shape.hidden)
        self.output = nn.Linear(shape.hidden, labels)
        # What listeners would say; for training alone, see `learn`.
        self.listeners = nn.Linear(shape.hidden, labels)
        self.dropout = nn.Dropout(shape.dropout)
        for lstm in self.lstm:
            open_forget_gate(lstm)

    @torch.no_grad()
    def normalise_by(self, mfcc: Tensor) -> None:
        """Takes mean and scale from the training clips' hops, [n, 64]."""
        envelope = self.envelope(mfcc)
        self.mean.copy_(envelope.mean(0))
        self.scale.copy_(1.0 / envelope.std(0).clamp(min=1e-3))

    def rule_out(self, labels: list[int]) -> None:
        """The outputs `labels` are never chosen: no clip that was trained on has them."""
        with torch.no_grad():
            self.output.weight[labels] = 0.0
            self.output.bias[labels] = -1e4

    def cut_to(self, labels: list[int]) -> None:
        """Leaves the outputs `labels` alone, in that order."""
        output = nn.Linear(self.output.in_features, len(labels))
        with torch.no_grad():
            output.weight.copy_(self.output.weight[labels])
            output.bias.copy_(self.output.bias[labels])
        self.output = output

    def envelope(self, mfcc: Tensor) -> Tensor:
        """mfcc [..., 64] -> the lowest cepstra of the bands that it hears [..., envelope]."""
        return mfcc[..., : self.shape.envelope] if self.shape.hears_all else mfcc @ self.view

    def features(self, mfcc: Tensor) -> Tensor:
        """mfcc [..., 64] -> what the LSTM sees of it [..., features]."""
        envelope = (self.envelope(mfcc) - self.mean) * self.scale
        if not self.shape.pitch:
            return envelope
        score = mfcc @ self.templates
        octaves = torch.softmax(score * pitch.SHARPNESS, dim=-1) @ self.octaves[:, None]
        best = score.amax(dim=-1, keepdim=True)
        voiced = torch.sigmoid((best - pitch.HALF_VOICED) * pitch.VOICING_SLOPE)
        return torch.cat([envelope, voiced * octaves * pitch.PITCH_GAIN, voiced, best * pitch.SCORE_GAIN], dim=-1)

    def forward(self, mfcc: Tensor) -> Tensor:
        """mfcc [batch, 16 * steps, 64] -> logits after each step [batch, steps, labels]."""
        state = mfcc.new_zeros(mfcc.shape[0], self.shape.state_size)
        return self.advance(mfcc, state)[0]

    def step(self, mfcc: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """mfcc [batch, 16, 64], state [batch, S] -> logits [batch, labels], next state [batch, S]."""
        logits, state = self.advance(mfcc, state)
        return logits[:, -1], state

    def with_listeners(self, mfcc: Tensor) -> tuple[Tensor, Tensor]:
        """`forward`, and beside it the logits of what listeners would say."""
        hidden, _ = self.hear(mfcc, mfcc.new_zeros(mfcc.shape[0], self.shape.state_size))
        return self.output(hidden), self.listeners(hidden)

    def advance(self, mfcc: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden, state = self.hear(mfcc, state)
        return self.output(hidden), state

    def hear(self, mfcc: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        batch, hops, _ = mfcc.shape
        steps, shape = hops // STEP_HOPS, self.shape
        *carried, total, largest, gates = state.split(shape.state_sizes, dim=1)
        y = self.features(mfcc).reshape(batch, hops // shape.stacked_hops, -1)
        after = []
        for layer, lstm in enumerate(self.lstm):
            if layer:
                y = self.dropout(y)
            h, c = carried[2 * layer], carried[2 * layer + 1]
            y, (h, c) = lstm(y, (h[None].contiguous(), c[None].contiguous()))
            after += [h[0], c[0]]
        gate = torch.sigmoid(self.gate(y))
        by_step = (batch, steps, shape.ticks, -1)
        totals = total[:, None] + (gate * y).reshape(by_step).sum(2).cumsum(1)
        gated = gates[:, None] + gate.reshape(by_step).sum(2).cumsum(1)
        peaks = torch.maximum(largest[:, None], y.reshape(by_step).amax(2).cummax(1).values)
        pooled = torch.cat([totals / (gated + self.EPSILON), peaks], dim=2)
        hidden = self.dropout(torch.relu(self.hidden(self.dropout(pooled))))
        return hidden, torch.cat([*after, totals[:, -1], peaks[:, -1], gated[:, -1]], dim=1)


class Ensemble(nn.Module):
    """Networks that speak as one: the mean of their logits, which is the geometric mean of what they say. Its state is
    theirs, one behind the other."""

    def __init__(self, members: Sequence[StreamingLstm]):
        super().__init__()
        self.members = nn.ModuleList(members)

    @property
    def state_size(self) -> int:
        return sum(member.shape.state_size for member in self.members)

    @property
    def labels(self) -> int:
        return self.members[0].output.out_features

    def cut_to(self, labels: list[int]) -> None:
        """Leaves the outputs `labels` alone, in that order."""
        for member in self.members:
            member.cut_to(labels)

    def forward(self, mfcc: Tensor) -> Tensor:
        """mfcc [batch, 16 * steps, 64] -> logits after each step [batch, steps, labels]."""
        return torch.stack([member(mfcc) for member in self.members]).mean(0)

    def step(self, mfcc: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """mfcc [batch, 16, 64], state [batch, S] -> logits [batch, labels], next state [batch, S]."""
        states = state.split([member.shape.state_size for member in self.members], dim=1)
        logits, following = zip(*(member.step(mfcc, own) for member, own in zip(self.members, states)))
        return torch.stack(logits).mean(0), torch.cat(following, dim=1)
