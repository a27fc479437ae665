"""The whole: windows of samples in, logits (or dimensions) out."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from . import folder
from .encoder import SpeechStates, WhisperStates
from .folder import BAD_USAGE, Refused
from .frontend import RATE_HZ

# The service's hop; a window need not be a multiple of it.
HOP_SAMPLES = 256
# The service reads windows up to 60 s; a second is the shortest that says anything.
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 60.0


class Network(nn.Module):
    """[batch, samples] -> [batch, outputs]."""

    def __init__(self, states: WhisperStates | SpeechStates, head: nn.Module):
        super().__init__()
        self.states, self.head = states, head

    def forward(self, samples: Tensor) -> Tensor:
        every, mask = self.states(samples)
        return self.head(every, mask)


def states_of(encoder: nn.Module, where: Path, context: str, normalise: str) -> WhisperStates | SpeechStates:
    """`normalise` is "yes", "no" or "folder" (as the folder says)."""
    if encoder.config.model_type == "whisper":
        return WhisperStates(encoder, context)
    return SpeechStates(encoder, folder.normalises(where) if normalise == "folder" else normalise == "yes")


def window_samples(seconds: float, states: WhisperStates | SpeechStates) -> int:
    """A window's samples: a multiple of 320 (20 ms), which is one state of every encoder here."""
    longest = getattr(states, "longest", LONGEST_SECONDS * RATE_HZ) / RATE_HZ
    if not SHORTEST_SECONDS <= seconds <= longest:
        raise Refused(f"--window is {seconds:g} s; it must be {SHORTEST_SECONDS:g} to {longest:g} s", BAD_USAGE)
    return round(seconds * RATE_HZ / 320) * 320


def stride_hops(seconds: float) -> int:
    """Hops of 16 ms between two windows."""
    hops = round(seconds * RATE_HZ / HOP_SAMPLES)
    # The service's own bounds.
    if not 1 <= hops <= 625:
        raise Refused(f"--stride is {seconds:g} s; it must be 0.016 to 10 s", BAD_USAGE)
    return hops
