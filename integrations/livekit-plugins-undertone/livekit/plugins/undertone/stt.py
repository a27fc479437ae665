"""An STT with a listener beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from livekit import rtc
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, NotGivenOr, stt, utils

from .context import METADATA_KEY

if TYPE_CHECKING:
    from .listener import EmotionListener

# The wrapped STT retries by itself.
_NO_RETRIES = APIConnectOptions(max_retry=0, timeout=DEFAULT_API_CONNECT_OPTIONS.timeout)


class EmotionSTT(stt.STT[Any]):
    """Passes audio to an STT and, on the way, to an `EmotionListener`; made by `EmotionListener.wrap`.

    What the STT says comes through unchanged, but that final transcripts get `metadata["undertone"]`: the newest
    emotion, as `EmotionContext.model_dump` has it. The stream's `context` is the `EmotionContext`.
    """

    def __init__(self, recognition: stt.STT[Any], listener: EmotionListener) -> None:
        if not recognition.capabilities.streaming:
            raise ValueError("stt: it does not stream; wrap it in livekit.agents.stt.StreamAdapter with a VAD first")
        super().__init__(capabilities=recognition.capabilities)
        self._recognition = recognition
        self._listener = listener
        # Its own figures are the accurate ones, and are passed on.
        self._recognize_metrics_needed = False
        recognition.on("metrics_collected", self._on_metrics)

    @property
    def wrapped_stt(self) -> stt.STT[Any]:
        """The STT inside."""
        return self._recognition

    @property
    def model(self) -> str:
        """The model of the STT inside."""
        return self._recognition.model

    @property
    def provider(self) -> str:
        """The provider of the STT inside."""
        return self._recognition.provider

    def _update_session_keyterms(self, keyterms: list[str]) -> None:
        self._recognition._update_session_keyterms(keyterms)

    def _push_conversation_item(self, ev: Any) -> None:
        self._recognition._push_conversation_item(ev)

    def prewarm(self) -> None:
        """Warms the STT inside."""
        self._recognition.prewarm()

    async def _recognize_impl(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        return await self._recognition.recognize(buffer, language=language, conn_options=conn_options)

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.RecognizeStream:
        """A stream of the STT inside, listened to."""
        return _EmotionStream(self, self._recognition, self._listener, language, conn_options)

    async def aclose(self) -> None:
        """Closes the STT inside. The listener ends with its session, or by its own `aclose`."""
        self._recognition.off("metrics_collected", self._on_metrics)
        await self._recognition.aclose()

    def _on_metrics(self, *arguments: Any) -> None:
        self.emit("metrics_collected", *arguments)


class _EmotionStream(stt.RecognizeStream):
    def __init__(
        self,
        outer: EmotionSTT,
        recognition: stt.STT[Any],
        listener: EmotionListener,
        language: NotGivenOr[str],
        conn_options: APIConnectOptions,
    ) -> None:
        super().__init__(stt=outer, conn_options=_NO_RETRIES)
        self._recognition = recognition
        self._listener = listener
        self._language = language
        self._inner_options = conn_options

    async def _metrics_monitor_task(self, event_aiter: AsyncIterable[stt.SpeechEvent]) -> None:
        # The stream inside reports, and its STT's reports are passed on.
        async for _ in event_aiter:
            pass

    async def _run(self) -> None:
        inner = self._recognition.stream(language=self._language, conn_options=self._inner_options)
        inner.start_time_offset = self.start_time_offset
        tasks = [
            asyncio.create_task(self._forward_audio(inner), name="undertone-stt-audio"),
            asyncio.create_task(self._forward_events(inner), name="undertone-stt-events"),
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            await utils.aio.cancel_and_wait(*tasks)
            await inner.aclose()

    async def _forward_audio(self, inner: stt.RecognizeStream) -> None:
        async for item in self._input_ch:
            if isinstance(item, rtc.AudioFrame):
                inner.push_frame(item)
                self._listener.push(item)
            else:
                inner.flush()
        # It may have ended by itself.
        with contextlib.suppress(RuntimeError):
            inner.end_input()

    async def _forward_events(self, inner: stt.RecognizeStream) -> None:
        async for event in inner:
            latest = self._listener.latest
            self.context = latest or inner.context
            if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT and latest is not None:
                for alternative in event.alternatives:
                    alternative.metadata = {**(alternative.metadata or {}), METADATA_KEY: latest.model_dump()}
            self._event_ch.send_nowait(event)
