"""Samples -> what an encoder takes, inside the graph: the service hands over 16 kHz samples and nothing else.

In: windows [batch, samples], what has been heard so far and zeros behind it. How much was heard is not told, it is read
off the window: everything up to the last sample that is not zero. A digital silence at the very end counts as not yet
heard, one in between or in front counts as heard; live audio is never exactly zero for long. A window of zeros alone
counts as heard for the shortest stretch that gives one frame, so that its outputs are finite.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.audio_utils import mel_filter_bank

RATE_HZ = 16_000


def heard(samples: Tensor, least: int) -> Tensor:
    """How many samples of each window were heard, at least `least`: int64 [batch]."""
    place = torch.arange(1, samples.shape[1] + 1, device=samples.device)
    return torch.where(samples != 0, place, 0).amax(1).clamp(min=least)


def up_to(lengths: Tensor, size: int) -> Tensor:
    """Bool [batch, size]: true for the first `lengths` places of each row."""
    return torch.arange(size, device=lengths.device)[None] < lengths[:, None]


def normalised(samples: Tensor, lengths: Tensor) -> Tensor:
    """Zero mean and unit variance over what was heard, zeros behind it: what wav2vec 2.0's feature extractor makes of
    the heard samples alone."""
    mask, count = up_to(lengths, samples.shape[1]), lengths[:, None].to(samples.dtype)
    centred = (samples - samples.sum(1, keepdim=True) / count) * mask
    return centred / torch.sqrt(centred.square().sum(1, keepdim=True) / count + 1e-7)


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram: [batch, samples] -> [batch, bands, samples / 160].

    Frames of 25 ms every 10 ms, periodic Hann, power spectrum, mel bands 0 to 8 kHz (Slaney's scale and norm), log10
    of at least 1e-10, no more than 8 below the largest value, (x + 4) / 4: Radford et al. 2022, section 2.2, and their
    published code. The short-time Fourier transform is a convolution with the windowed cosines and sines, since ONNX's
    own STFT operator is not in every runtime and no quicker for frames this short.

    The first frame is centred on the first sample, with the signal mirrored before it. Behind the last sample stand
    zeros, as they do for Whisper, whose 30 s are hardly ever full.
    """

    FRAME, HOP, FLOOR, RANGE = 400, 160, 1e-10, 8.0

    def __init__(self, bands: int):
        super().__init__()
        places = torch.arange(self.FRAME, dtype=torch.float64)
        angles = (
            2 * math.pi / self.FRAME * places[None] * torch.arange(self.FRAME // 2 + 1, dtype=torch.float64)[:, None]
        )
        window = torch.hann_window(self.FRAME, periodic=True, dtype=torch.float64)
        basis = torch.cat([angles.cos(), angles.sin()]) * window
        filters = mel_filter_bank(self.FRAME // 2 + 1, bands, 0.0, RATE_HZ / 2, RATE_HZ, "slaney", "slaney")
        # Computed, not learnt: not in checkpoints.
        self.register_buffer("basis", basis[:, None].float(), persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters).T.contiguous().float(), persistent=False)

    def forward(self, samples: Tensor, frames: Tensor | None = None) -> Tensor:
        """With `frames` [batch], what was heard: the largest value is sought there, and all behind is 0."""
        half = self.FRAME // 2
        padded = functional.pad(functional.pad(samples[:, None], (half, 0), mode="reflect"), (0, half))
        real, imaginary = functional.conv1d(padded, self.basis, stride=self.HOP)[:, :, :-1].chunk(2, dim=1)
        level = torch.log10((self.filters @ (real.square() + imaginary.square())).clamp(min=self.FLOOR))
        if frames is None:
            return (torch.maximum(level, level.amax((1, 2), keepdim=True) - self.RANGE) + 4.0) / 4.0
        mask = up_to(frames, level.shape[2])[:, None]
        loudest = torch.where(mask, level, math.log10(self.FLOOR)).amax((1, 2), keepdim=True)
        return (torch.maximum(level, loudest - self.RANGE) + 4.0) / 4.0 * mask
