"""How the speaker sounds, as LiveKit's speaker context, and how it gets before the LLM."""

from __future__ import annotations

import time
from typing import Final

from livekit.agents import llm
from pydantic import BaseModel

from undertone import Estimate, Utterance

#: The id of the message that `put_before_llm` keeps: one per chat context.
MESSAGE_ID: Final = "undertone.emotion"

#: Where the emotion stands in `SpeechData.metadata` and `ChatMessage.extra`.
METADATA_KEY: Final = "undertone"


class EmotionContext(BaseModel):
    """How the speaker sounds: of `Agent.audio_recognition.stt_context`, `SpeechData.metadata` and `ChatMessage.extra`.

    It is a `livekit.agents.stt.SpeakerContext`.
    """

    session_id: str
    """The Undertone session."""
    emotion: str | None
    """The most probable one, such as "angry"; None for a model of valence and arousal only."""
    confidence: float
    """Its calibrated probability, 0 to 1."""
    scores: dict[str, float]
    """A probability per emotion; they sum to 1."""
    valence: float
    """Pleasantness, -1 to 1. Weakly known from voice alone."""
    arousal: float
    """Activation, -1 to 1."""
    distress: float
    """0 to 1."""
    position: float
    """Audio heard before, in s from the start of the session."""
    heard_at: float
    """When it was heard, in s since the epoch."""
    severity: str | None = None
    """The highest severity of the escalations in force; None if there are none."""

    def to_instructions(self) -> str:
        """What the LLM is told."""
        return (
            f"The user's voice now sounds {self.emotion} (confidence {self.confidence:.0%}). This is estimated from "
            "sound alone and can be wrong. Let it guide your tone; do not state it as a fact."
        )


def of(heard: Estimate | Utterance, session_id: str) -> EmotionContext | None:
    """The context of an estimate or utterance; None for one without numbers."""
    affect = heard.affect
    if affect is None:
        return None
    severity = heard.escalation_severity if isinstance(heard, Estimate) else None
    return EmotionContext(
        session_id=session_id,
        emotion=affect.top.value if affect.top else None,
        confidence=affect.confidence,
        scores={emotion.value: probability for emotion, probability in affect.scores.items()},
        valence=affect.valence,
        arousal=affect.arousal,
        distress=affect.distress,
        position=heard.end,
        heard_at=time.time(),
        severity=severity.value if severity else None,
    )


def put_before_llm(chat_ctx: llm.ChatContext, text: str | None) -> None:
    """Puts the text before the last thing that the user said, in place of what stood there of the kind; None takes it
    away. Give it the context of one answer, as `llm_node` has it, and the conversation itself stays as it is."""
    chat_ctx.items[:] = [item for item in chat_ctx.items if item.id != MESSAGE_ID]
    if text is None:
        return
    users = [n for n, item in enumerate(chat_ctx.items) if isinstance(item, llm.ChatMessage) and item.role == "user"]
    message = llm.ChatMessage(id=MESSAGE_ID, role="system", content=[text])
    chat_ctx.items.insert(users[-1] if users else len(chat_ctx.items), message)
