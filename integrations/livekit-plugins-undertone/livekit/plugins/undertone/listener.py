"""One Undertone session beside an `AgentSession`: audio goes in, events and the speaker's context come out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from livekit import rtc
from livekit.agents import AgentSession, CloseEvent, ConversationItemAddedEvent, llm, stt

import undertone

from . import context
from .context import EmotionContext
from .log import logger
from .stt import EmotionSTT
from .tap import EmotionInput

EventTypes = Literal["emotion", "utterance", "escalation", "connected", "trouble"]

# Nobody waits for the last words longer than that when a session closes, in s.
_FINISH: Final = 2.0


class EmotionListener(rtc.EventEmitter[EventTypes]):
    """Listens to how the user of one `AgentSession` sounds.

    Its audio comes from `wrap` around the session's STT or, for agents without one, from `tap`. Neither waits for the
    server: while that is slow or away, audio waits in a queue of `buffer` seconds, the oldest is dropped, and `trouble`
    says so once.

    Emits, to plain functions (no coroutines), as LiveKit's emitters do:

    - emotion(estimate: undertone.Estimate): an estimate that does not abstain
    - utterance(utterance: undertone.Utterance): the end of an utterance
    - escalation(event: undertone.EscalationEvent): an escalation was raised or has changed
    - connected(session_id: str): the server has begun, or gone on with, a session
    - trouble(error: Exception, permanent: bool): the server is slow, away, or has refused

    Args:
        target: The server, `HOST:PORT`, or `https://HOST:PORT`.
        client: Arguments of `undertone.Undertone` besides the target: `token`, `ca`, ...
        policy: Name of the server's policy that raises escalations; None: the server's default one, if it has one.
        policy_yaml: A policy of one's own instead, where the server allows it.
        session_id: Names the session in logs and listings; None: the server makes one.
        labels: On whose behalf it is listened, for the audit trail.
        model: Name of the model; None: the server's default one.
        estimate_interval: Time between two estimates, 0.1 to 10 s.
        stream: Further keyword arguments of `undertone.Undertone.open`, such as `min_confidence`.
        user_turns: Whether the end of a user's turn ends the utterance.
        min_confidence: Confidence under which an emotion is not told to the LLM, 0 to 1.
        max_age: How long an emotion is told to the LLM after it was heard last, in s.
        instructions: Makes what the LLM is told; None: `EmotionContext.to_instructions`.
        buffer: Audio that may wait for the server, in s.

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
        user_turns: bool = True,
        min_confidence: float = 0.5,
        max_age: float = 30.0,
        instructions: Callable[[EmotionContext], str] | None = None,
        buffer: float = 5.0,
    ) -> None:
        super().__init__()
        if not 0 <= min_confidence <= 1:
            raise ValueError(f"min_confidence: {min_confidence}; a probability from 0 to 1 is wanted")
        if not max_age > 0:
            raise ValueError(f"max_age: {max_age} s; more than 0 is wanted")
        if not buffer > 0:
            raise ValueError(f"buffer: {buffer} s; at least some audio must fit, such as 5.0")
        self._target = target
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
        self._user_turns = user_turns
        self._min_confidence = min_confidence
        self._max_age = max_age
        self._instructions = instructions or EmotionContext.to_instructions
        self._session: AgentSession[Any] | None = None
        self._source: Literal["stt", "tap"] | None = None
        self._latest: EmotionContext | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def session_id(self) -> str:
        """The Undertone session; empty until the server has begun it."""
        return self._feed.session_id

    @property
    def connected(self) -> bool:
        """Whether a server listens now."""
        return self._feed.connected

    @property
    def counts(self) -> undertone.FeedCounts:
        """What went through: seconds of audio heard and dropped, estimates, delays."""
        return self._feed.counts

    @property
    def latest(self) -> EmotionContext | None:
        """The newest estimate that did not abstain, however old it is; None before the first."""
        return self._latest

    @property
    def current(self) -> EmotionContext | None:
        """`latest`, if it is sure enough (`min_confidence`) and fresh enough (`max_age`) to be acted on."""
        latest = self._latest
        if latest is None or latest.emotion is None or latest.confidence < self._min_confidence:
            return None
        return latest if time.time() - latest.heard_at <= self._max_age else None

    def wrap(self, recognition: stt.STT[Any]) -> EmotionSTT:
        """The STT with this listener beside it, for `AgentSession(stt=...)`.

        Its final transcripts carry the emotion in `SpeechData.metadata["undertone"]`.

        Raises:
            ValueError: The STT does not stream, or audio comes from elsewhere already.
        """
        self._take("stt")
        return EmotionSTT(recognition, self)

    def tap(self, session: AgentSession[Any]) -> None:
        """Listens to the session's audio input instead: for realtime models, and agents without an STT. Call it when
        the session has started, which is when a room's input is there.

        Raises:
            ValueError: The session has no audio input, or audio comes from elsewhere already.
        """
        source = session.input.audio
        if source is None:
            raise ValueError("session: it has no audio input to tap; call tap after session.start")
        self._take("tap")
        session.input.audio = EmotionInput(source, self)

    def attach(self, session: AgentSession[Any]) -> None:
        """Follows a session: its turns end utterances, messages of the user get the emotion in `extra["undertone"]`,
        the agent's `audio_recognition.stt_context` is kept up to date, and its end ends this listener too.

        Raises:
            ValueError: It follows one already.
        """
        if self._session is not None:
            raise ValueError("session: this listener follows one already; make one for each")
        self._session = session
        session.on("conversation_item_added", self._on_item)
        session.on("close", self._on_close)

    def inform(self, chat_ctx: llm.ChatContext) -> None:
        """Puts the present emotion before the user's last message, as a system message that stands there once; takes
        the one before away. For `llm_node`, whose context is that of one answer: `EmotionAgent` does it."""
        current = self.current
        context.put_before_llm(chat_ctx, self._instructions(current) if current else None)

    def push(self, frame: rtc.AudioFrame) -> None:
        """Takes a frame of the user's audio. Never waits; to be called in the session's event loop."""
        audio = undertone.AudioFormat(sample_rate=frame.sample_rate, channels=frame.num_channels)
        self._feed.push(frame.data, audio)

    async def aclose(self) -> None:
        """Ends the Undertone session; what was said last is heard out, for 2 s at most. May be called again."""
        if self._session is not None:
            self._session.off("conversation_item_added", self._on_item)
            self._session.off("close", self._on_close)
            self._session = None
        await self._feed.finish(_FINISH)
        await self._client.close()
        if self._closing is not None and self._closing is not asyncio.current_task():
            await asyncio.gather(self._closing, return_exceptions=True)

    def _take(self, source: Literal["stt", "tap"]) -> None:
        if self._source is not None:
            raise ValueError(f"this listener has its audio from {self._source} already; it would hear all twice")
        self._source = source

    def _say(self, event: EventTypes, *arguments: object) -> None:
        try:
            self.emit(event, *arguments)
        except TypeError:
            # The emitter logs what handlers raise, but for this one.
            logger.exception("a handler of %s failed", event)

    async def _on_event(self, event: undertone.Event) -> None:
        if isinstance(event, undertone.Estimate):
            if not event.abstains:
                self._hear(event)
                self._say("emotion", event)
        elif isinstance(event, undertone.Utterance):
            self._say("utterance", event)
        elif isinstance(event, undertone.EscalationEvent):
            self._say("escalation", event)
        elif isinstance(event, undertone.Started):
            self._say("connected", event.session_id)
        elif isinstance(event, undertone.Reconnected):
            logger.info("going on after %.1f s without the server: %s", event.downtime, event.reason)
            self._say("connected", self.session_id)
        elif isinstance(event, undertone.StreamWarning):
            logger.warning("%s", event.message)

    def _hear(self, estimate: undertone.Estimate) -> None:
        self._latest = context.of(estimate, self.session_id) or self._latest
        if self._session is not None:
            # Between two agents, and after the last one, there is none.
            with contextlib.suppress(RuntimeError):
                self._session.current_agent.audio_recognition.stt_context = self._latest

    async def _on_trouble(self, error: Exception, permanent: bool) -> None:
        if isinstance(error, undertone.AudioDropped):
            logger.warning("Undertone at %s: %s", self._target, error)
        elif not isinstance(error, undertone.UndertoneError | OSError):
            logger.error("emotions are off, since something failed here", exc_info=error)
        elif permanent:
            logger.error("Undertone at %s refuses the stream, emotions are off: %s", self._target, error)
        else:
            logger.warning("Undertone at %s is away, audio is dropped until it is back: %s", self._target, error)
        self._say("trouble", error, permanent)

    async def _on_recovered(self) -> None:
        logger.info("listening again, %.1f s of audio were dropped so far", self.counts.dropped)

    def _on_item(self, event: ConversationItemAddedEvent) -> None:
        item = event.item
        if not isinstance(item, llm.ChatMessage) or item.role != "user":
            return
        if self._latest is not None and time.time() - self._latest.heard_at <= self._max_age:
            item.extra[context.METADATA_KEY] = self._latest.model_dump()
        if self._user_turns:
            self._feed.turn_end()

    def _on_close(self, _: CloseEvent) -> None:
        self._closing = asyncio.get_running_loop().create_task(self.aclose(), name="undertone-listener-close")
