"""Where audio comes from: files, bytes, arrays, iterables, a microphone.

A source is anything with a `format` and iteration over bytes, async or plain. Both clients take both kinds; what is
plain is read in a thread, so that it may block.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ._wav import Wav, blocks
from .audio import AudioFormat, Encoding
from .errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AsyncSource",
    "PlainSource",
    "Source",
    "from_bytes",
    "from_file",
    "from_iterable",
    "from_numpy",
    "microphone",
]


class PlainSource(Protocol):
    """Audio, chunk by chunk; may block."""

    @property
    def format(self) -> AudioFormat:
        """How the chunks are coded."""

    def __iter__(self) -> Iterator[bytes]: ...


class AsyncSource(Protocol):
    """Audio, chunk by chunk."""

    @property
    def format(self) -> AudioFormat:
        """How the chunks are coded."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


Source: TypeAlias = PlainSource | AsyncSource
"""What `stream` takes."""


@dataclass(frozen=True)
class _Plain:
    format: AudioFormat
    chunks: Iterable[bytes]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.chunks)


@dataclass(frozen=True)
class _Async:
    format: AudioFormat
    chunks: AsyncIterable[bytes]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self.chunks)


@dataclass(frozen=True)
class _Clip:
    """Audio that is there already, whole or in blocks. Can be iterated over again where `blocks` can."""

    format: AudioFormat
    blocks: Iterable[bytes]
    chunk: float
    realtime: bool

    def __post_init__(self) -> None:
        if not self.chunk > 0:
            raise InvalidRequest("a chunk lasts no time", fields=(("chunk", "must be more than 0 s"),))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        size = self.format.size(self.chunk)
        began, sent = loop.time(), 0
        async for block in _threaded(self.blocks):
            for first in range(0, len(block), size):
                data = block[first : first + size]
                sent += len(data)
                if self.realtime:
                    # A chunk leaves when its last sample has sounded, as from a microphone.
                    await asyncio.sleep(began + self.format.seconds(sent) - loop.time())
                yield data


@dataclass(frozen=True)
class _File:
    """A WAV file's blocks; opened anew each time."""

    path: Path
    seconds: float

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from blocks(Wav(self.path, file), self.seconds)


# What is read of a file at a time, about: each read costs a change of threads.
_BLOCK_S = 10.0


def from_file(path: str | os.PathLike[str], *, chunk: float = 0.1, realtime: bool = False) -> AsyncSource:
    """A WAV file: PCM of 8 to 32 bits, 32-bit float, mu-law or A-law, with all its channels.

    Other containers (flac, ogg, mp3, m4a, aiff, mkv) are for `analyze`, or convert them:
    `ffmpeg -i FILE -c:a pcm_s16le OUT.wav`.

    Args:
        path: The file.
        chunk: Seconds in one chunk.
        realtime: Whether it is sent at the pace of its sound, or as fast as the server takes it.

    Raises:
        InvalidRequest: It is no WAV file, or coded in another way.
        OSError: It cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        audio = Wav(path, file).format
    # Whole chunks.
    size = audio.size(chunk)
    seconds = audio.seconds(size * max(1, audio.size(_BLOCK_S) // size))
    return _Clip(audio, _File(path, seconds), chunk, realtime)


def from_bytes(
    data: bytes,
    format: AudioFormat | None = None,  # noqa: A002
    *,
    chunk: float = 0.1,
    realtime: bool = False,
) -> AsyncSource:
    """Raw samples that are there already; of 16 kHz, 16 bits and one channel unless `format` says otherwise.

    >>> source = from_bytes(bytes(32_000))
    >>> source.format.sample_rate
    16000
    """
    return _Clip(format or AudioFormat(), [data], chunk, realtime)


def from_numpy(samples: NDArray[Any], sample_rate: int, *, chunk: float = 0.1, realtime: bool = False) -> AsyncSource:
    """An array of shape (samples,) or (samples, channels): integers of 16 bits, or floats in [-1, 1].

    Raises:
        InvalidRequest: It has another shape, or another type.
    """
    encoding, dtype = {
        "i2": (Encoding.LINEAR16, "<i2"),
        "f4": (Encoding.FLOAT32, "<f4"),
        "f8": (Encoding.FLOAT32, "<f4"),
    }.get(samples.dtype.str[1:], (None, ""))
    if encoding is None:
        raise InvalidRequest(
            f"an array of {samples.dtype}", fields=(("samples", "must be of int16, float32 or float64"),)
        )
    if samples.ndim not in (1, 2):
        problem = f"must have the shape (samples,) or (samples, channels), not {samples.shape}"
        raise InvalidRequest(f"an array of {samples.ndim} dimensions", fields=(("samples", problem),))
    audio = AudioFormat(encoding, sample_rate, 1 if samples.ndim == 1 else samples.shape[1])
    ordered: NDArray[np.generic] = samples.astype(dtype, order="C")
    return from_bytes(ordered.tobytes(), audio, chunk=chunk, realtime=realtime)


def from_iterable(chunks: Iterable[bytes] | AsyncIterable[bytes], format: AudioFormat) -> Source:  # noqa: A002
    """Chunks of raw audio from anywhere. A plain iterable may block."""
    if isinstance(chunks, AsyncIterable):
        return _Async(format, chunks)
    return _Plain(format, chunks)


def microphone(
    sample_rate: int = 16_000,
    *,
    device: int | str | None = None,
    channels: int = 1,
    chunk: float = 0.1,
    buffer: float = 120.0,
) -> AsyncSource:
    """A microphone, until its reader stops. Needs the extra `undertone[microphone]`, which is sounddevice.

    Args:
        sample_rate: In Hz.
        device: Number or name as sounddevice has it; the system's default one if not given.
        channels: As many as the device has, at most.
        chunk: Seconds in one chunk.
        buffer: Seconds of audio that wait at most while the server is away.

    Raises:
        ModuleNotFoundError: sounddevice is not installed.
        TimedOut: Nobody took the audio for `buffer` seconds (while it is read).
    """
    try:
        from ._microphone import Microphone  # noqa: PLC0415 (an extra)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a microphone needs sounddevice: pip install 'undertone[microphone]'") from error

    audio = AudioFormat(Encoding.LINEAR16, sample_rate, channels)
    return Microphone(audio, device=device, chunk=chunk, buffer=buffer)


async def chunks(source: Source) -> AsyncGenerator[bytes, None]:
    """What comes from a source of either kind. Close it: what a source holds, such as a device, is let go of then."""
    iterator = aiter(source) if isinstance(source, AsyncIterable) else _threaded(source)
    try:
        async for chunk in iterator:
            yield chunk
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


async def _threaded(blocks: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Reads in a thread. What is there already needs none."""
    if isinstance(blocks, list):
        for block in blocks:
            yield block
        return
    iterator = iter(blocks)
    try:
        while (block := await asyncio.to_thread(next, iterator, None)) is not None:
            yield block
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            # A read that was cancelled may still be under way in its thread: then it ends by itself.
            with suppress(ValueError):
                close()
