"""What raw audio looks like."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .errors import InvalidRequest


class Encoding(enum.Enum):
    """How samples are coded. Samples of several bytes are little-endian."""

    LINEAR16 = "linear16"
    """Signed 16-bit integers."""
    FLOAT32 = "float32"
    """32-bit IEEE floats in [-1, 1]."""
    MULAW = "mulaw"
    """8-bit mu-law, ITU-T G.711."""
    ALAW = "alaw"
    """8-bit A-law, ITU-T G.711."""

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return {Encoding.LINEAR16: 2, Encoding.FLOAT32: 4}.get(self, 1)


class ChannelRole(enum.Enum):
    """Whose voice a channel carries."""

    SUBJECT = "subject"
    """The person listened to: analysed."""
    AGENT = "agent"
    """The agent's own voice: not analysed."""
    IGNORED = "ignored"
    """Anything else: not analysed."""


class ChannelMode(enum.Enum):
    """What to do with several subject channels."""

    MIX = "mix"
    """Their mean is analysed as one voice."""
    SEPARATE = "separate"
    """Each is analysed on its own."""


@dataclass(frozen=True)
class AudioFormat:
    """Raw audio: how its samples are coded and interleaved.

    >>> phone = AudioFormat(Encoding.MULAW, 8000)
    >>> phone.seconds(1600)
    0.2
    """

    encoding: Encoding = Encoding.LINEAR16
    sample_rate: int = 16_000
    """Samples per second and channel, 8,000 to 48,000 Hz."""
    channels: int = 1
    """Interleaved channels, 1 to 8."""
    roles: tuple[ChannelRole, ...] = ()
    """What each channel is, first channel first; empty: all are subjects."""
    mode: ChannelMode = ChannelMode.MIX

    def __post_init__(self) -> None:
        for field in ("sample_rate", "channels"):
            if getattr(self, field) < 1:
                raise InvalidRequest(f"audio has no {field}", fields=((field, "must be 1 at least"),))

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.encoding.sample_bytes * self.channels

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second."""
        return self.frame_bytes * self.sample_rate

    def seconds(self, size: int) -> float:
        """How long `size` bytes sound."""
        return size / self.bytes_per_second

    def size(self, seconds: float) -> int:
        """Bytes of `seconds`, in whole frames, one at least."""
        return max(1, round(seconds * self.sample_rate)) * self.frame_bytes
