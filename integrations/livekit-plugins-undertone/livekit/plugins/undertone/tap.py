"""A session's audio input with a listener beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livekit import rtc
from livekit.agents.voice import io

if TYPE_CHECKING:
    from .listener import EmotionListener


class EmotionInput(io.AudioInput):
    """Passes frames on as they come; made by `EmotionListener.tap`."""

    def __init__(self, source: io.AudioInput, listener: EmotionListener) -> None:
        super().__init__(label="Undertone", source=source)
        self._listener = listener

    async def __anext__(self) -> rtc.AudioFrame:
        frame = await super().__anext__()
        self._listener.push(frame)
        return frame
