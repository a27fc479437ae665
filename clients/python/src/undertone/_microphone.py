"""A microphone by way of sounddevice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import sounddevice

from .audio import AudioFormat
from .errors import TimedOut


class Microphone:
    """A source. Recording begins with the iteration and ends with it."""

    def __init__(self, audio: AudioFormat, *, device: int | str | None, chunk: float, buffer: float) -> None:
        self.format = audio
        self._device = device
        self._frames = max(1, round(chunk * audio.sample_rate))
        self._most = max(1, round(buffer / chunk))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[bytes] = asyncio.Queue(self._most)
        overflowed = False

        def put(data: bytes) -> None:
            nonlocal overflowed
            overflowed = overflowed or queue.full()
            if not overflowed:
                queue.put_nowait(data)

        def heard(data: Any, frames: int, time: Any, status: Any) -> None:
            # In a thread of sounddevice's.
            loop.call_soon_threadsafe(put, bytes(data))

        recording = sounddevice.RawInputStream(
            samplerate=self.format.sample_rate,
            blocksize=self._frames,
            device=self._device,
            channels=self.format.channels,
            dtype="int16",
            callback=heard,
        )
        with recording:
            # Once audio was lost, what came before it still counts.
            while not overflowed or not queue.empty():
                yield await queue.get()
        raise TimedOut(
            "nobody took the microphone's audio for too long",
            remedy="is the server reachable? or give the microphone a larger buffer=",
        )
