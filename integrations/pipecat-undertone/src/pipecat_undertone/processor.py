"""The frame processor that listens to how the user sounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import undertone
from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    MetricsFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.utils.errors import ErrorCategory

from pipecat_undertone import context
from pipecat_undertone.frames import EmotionFrame, EscalationFrame, UtteranceEmotionFrame
from pipecat_undertone.metrics import EmotionMetricsData

# Roles that Pipecat's adapters understand in the middle of a conversation.
_ROLES: Final = ("developer", "system", "user")


class EmotionProcessor(FrameProcessor):
    """Feeds the user's audio to an Undertone server and pushes what it hears as frames.

    Put it right behind the transport's input: it needs `InputAudioRawFrame`, and turns reach it from the user
    aggregator, which sends them upstream. Every frame goes on at once and unchanged; nothing waits for the server.
    While that is slow or away, audio waits in a queue of `buffer` seconds, the oldest is dropped, an `ErrorFrame` says
    so once, and the processor goes on trying.

    Event handlers available:

    - on_emotion(processor, estimate): an estimate that does not abstain
    - on_utterance(processor, utterance): the end of an utterance
    - on_escalation(processor, event): an escalation was raised or has changed
    - on_connected(processor, session_id): the server has begun, or gone on with, a session
    - on_trouble(processor, error, permanent): the server is slow, away, or has refused

    Args:
        target: The server, `HOST:PORT`.
        client: Arguments of `undertone.Undertone` besides the target: `token`, `ca`, ...
        policy: Name of the server's policy that raises escalations; None: the server's default one, if it has one.
        policy_yaml: A policy of one's own instead, where the server allows it.
        session_id: Names the session in logs and listings; None: the server makes one.
        labels: On whose behalf it is listened, for the audit trail.
        model: Name of the model; None: the server's default one.
        estimate_interval: Time between two estimates, 0.1 to 10 s.
        stream: Further keyword arguments of `undertone.Undertone.open`, such as `min_confidence`.
        accept: Which audio to feed; None: all. For one of several participants, look at `user_id` or
            `transport_source` of the frame.
        user_turns: Whether Pipecat's user turns are given to the server: an utterance then ends where the turn does,
            and not after a pause of the server's own.
        include_abstaining: Whether estimates that should not be acted on are pushed too.
        add_to_context: Whether the LLM's context gets a note when the emotion changes.
        context_min_confidence: Confidence under which an emotion is not noted, 0 to 1.
        context_hold: Estimates in a row that must agree before it is noted.
        context_text: Makes the note's text from the estimate; None: `context.describe`.
        context_role: The note's role: `developer`, `system` or `user`.
        context_notes: Notes that stand in the context at most; older ones are taken out.
        buffer: Audio that may wait for the server, in s.
        finish_timeout: How long the end of the pipeline waits for what was said last, in s; 0: not at all.
        metrics_interval: Time between two `MetricsFrame`s, by the audio, in s.
        **kwargs: Those of `FrameProcessor`, such as `name`.

    Raises:
        ValueError: An argument is out of its bounds; the message names it.
        undertone.InvalidRequest: So is one of `client` or `stream`.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        client: Mapping[str, Any] | None = None,
        policy: str | None = None,
        policy_yaml: str | None = None,
        session_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        model: str | None = None,
        estimate_interval: float = 0.5,
        stream: Mapping[str, Any] | None = None,
        accept: Callable[[InputAudioRawFrame], bool] | None = None,
        user_turns: bool = True,
        include_abstaining: bool = False,
        add_to_context: bool = False,
        context_min_confidence: float = 0.5,
        context_hold: int = 2,
        context_text: Callable[[undertone.Estimate], str] | None = None,
        context_role: str = "developer",
        context_notes: int = 1,
        buffer: float = 5.0,
        finish_timeout: float = 2.0,
        metrics_interval: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not buffer > 0:
            raise ValueError(f"buffer: {buffer} s; at least some audio must fit, such as 5.0")
        if context_role not in _ROLES:
            raise ValueError(f"context_role: {context_role!r}; one of {', '.join(_ROLES)} is wanted")
        if context_notes < 1:
            raise ValueError(f"context_notes: {context_notes}; at least 1 must fit, or leave add_to_context off")
        if finish_timeout < 0:
            raise ValueError(f"finish_timeout: {finish_timeout} s; 0 or more is wanted")
        if not metrics_interval > 0:
            raise ValueError(f"metrics_interval: {metrics_interval} s; more than 0 is wanted")
        self._target = target
        self._model = model
        self._accept = accept
        self._user_turns = user_turns
        self._include_abstaining = include_abstaining
        self._notes = (
            context.ContextNotes(
                min_confidence=context_min_confidence, hold=context_hold, text=context_text or context.describe
            )
            if add_to_context
            else None
        )
        self._context_role = context_role
        self._context_notes = context_notes
        self._finish_timeout = finish_timeout
        self._metrics_interval = metrics_interval
        self._reported = undertone.FeedCounts()
        self._client = undertone.Undertone(target, **(client or {}))
        options: dict[str, Any] = {
            "policy": policy,
            "policy_yaml": policy_yaml,
            "session_id": session_id,
            "labels": dict(labels or {}),
            "model": model,
            "estimate_interval": estimate_interval,
            **(stream or {}),
        }
        self._feed = undertone.Feed(
            self._client,
            on_event=self._on_event,
            on_trouble=self._on_trouble,
            on_recovered=self._on_recovered,
            buffer=buffer,
            **options,
        )
        for event in ("on_emotion", "on_utterance", "on_escalation", "on_connected", "on_trouble"):
            self._register_event_handler(event)

    @property
    def session_id(self) -> str:
        """The Undertone session; empty until the server has begun it."""
        return self._feed.session_id

    @property
    def connected(self) -> bool:
        """Whether a server listens now."""
        return self._feed.connected

    @property
    def dropped(self) -> float:
        """Audio dropped since the beginning, in s."""
        return self._feed.counts.dropped

    def can_generate_metrics(self) -> bool:
        """True: see `EmotionMetricsData`."""
        return True

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Passes every frame on, and then looks at it. Only `EndFrame` waits: for what was said last."""
        await super().process_frame(frame, direction)
        if isinstance(frame, EndFrame):
            await self._feed.finish(self._finish_timeout)
            await self._push_metrics()
        elif isinstance(frame, CancelFrame):
            await self._feed.close()
        await self.push_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            if self._accept is None or self._accept(frame):
                audio = undertone.AudioFormat(sample_rate=frame.sample_rate, channels=frame.num_channels)
                self._feed.push(frame.audio, audio)
        elif self._user_turns and isinstance(frame, UserStartedSpeakingFrame):
            self._feed.turn_start()
        elif self._user_turns and isinstance(frame, UserStoppedSpeakingFrame):
            self._feed.turn_end()

    async def cleanup(self) -> None:
        """Ends the stream, if no frame has ended it."""
        await self._feed.close()
        await self._client.close()
        await super().cleanup()  # type: ignore[no-untyped-call]

    async def _on_event(self, event: undertone.Event) -> None:
        match event:
            case undertone.Estimate():
                await self._on_estimate(event)
            case undertone.Utterance():
                await self._call_event_handler("on_utterance", event)
                await self.push_frame(UtteranceEmotionFrame(event, self.session_id))
            case undertone.EscalationEvent():
                await self._call_event_handler("on_escalation", event)
                await self.push_frame(EscalationFrame(event, self.session_id))
            case undertone.Started():
                logger.debug(f"{self}: session {event.session_id}")
                await self._call_event_handler("on_connected", event.session_id)
            case undertone.Reconnected():
                logger.info(f"{self}: going on after {event.downtime:.1f} s without the server: {event.reason}")
                await self._call_event_handler("on_connected", self.session_id)
            case undertone.StreamWarning():
                logger.warning(f"{self}: {event.message}")

    async def _on_estimate(self, estimate: undertone.Estimate) -> None:
        if not estimate.abstains:
            await self._call_event_handler("on_emotion", estimate)
        if not estimate.abstains or self._include_abstaining:
            await self.push_frame(EmotionFrame(estimate, self.session_id))
        if self._notes is not None and (note := self._notes.heard(estimate)) is not None:
            await self.push_frame(context.note_frame(note, role=self._context_role, keep=self._context_notes))
        if self._feed.counts.audio - self._reported.audio >= self._metrics_interval:
            await self._push_metrics()

    async def _push_metrics(self) -> None:
        if not self.metrics_enabled:
            return
        counts = self._feed.counts
        new, self._reported = counts.since(self._reported), counts
        await self.push_frame(
            MetricsFrame(
                data=[
                    EmotionMetricsData(
                        processor=self.name,
                        model=self._model,
                        audio_seconds=new.audio,
                        dropped_seconds=new.dropped,
                        estimates=new.estimates,
                        abstained=new.abstained,
                        delay_mean=new.delay_sum / new.delays if new.delays else 0.0,
                        delay_max=new.delay_max,
                    )
                ]
            )
        )

    async def _on_trouble(self, error: Exception, permanent: bool) -> None:
        await self._call_event_handler("on_trouble", error, permanent)
        if isinstance(error, undertone.AudioDropped):
            message = f"Undertone at {self._target}: {error}"
        elif not isinstance(error, undertone.UndertoneError | OSError):
            message = f"emotions are off, since something failed here: {error!r}"
        elif permanent:
            message = f"Undertone at {self._target} refuses the stream, emotions are off: {error}"
        else:
            message = f"Undertone at {self._target} is away, audio is dropped until it is back: {error}"
        await self.push_error(message, exception=error, category=_category(error), force_treat_as_permanent=permanent)

    async def _on_recovered(self) -> None:
        logger.info(f"{self}: listening again, {self.dropped:.1f} s of audio were dropped so far")


def _category(error: Exception) -> ErrorCategory:
    match error:
        case undertone.Unauthenticated():
            return ErrorCategory.AUTHENTICATION
        case undertone.PermissionDenied():
            return ErrorCategory.AUTHORIZATION
        case undertone.InvalidRequest() | undertone.NotFound():
            return ErrorCategory.INVALID_REQUEST
        case undertone.Overloaded():
            return ErrorCategory.RATE_LIMIT
        case undertone.AudioDropped():
            return ErrorCategory.APPLICATION
        case undertone.UndertoneError() | OSError():
            return ErrorCategory.CONNECTIVITY
        case _:
            return ErrorCategory.APPLICATION
