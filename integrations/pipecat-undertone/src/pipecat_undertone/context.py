"""The emotion in the LLM's context: when a note is due, and how it gets there without ever standing there twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pipecat.frames.frames import LLMMessagesTransformFrame
from undertone import Emotion, Estimate

#: How every note begins. Notes are told from other messages by it, also in a context that was kept and loaded again.
NOTE_PREFIX: Final = "[Undertone] "


def describe(estimate: Estimate) -> str:
    """What a note says unless `context_text` says otherwise."""
    affect = estimate.affect
    assert affect is not None and affect.top is not None
    return (
        f"The user's voice sounds {affect.top.value} from here on (confidence {affect.confidence:.0%}). "
        "This is estimated from sound alone and can be wrong. Let it guide your tone; do not state it as a fact."
    )


class ContextNotes:
    """Decides when the context gets a note. Pure: estimates in, notes out.

    Args:
        min_confidence: Below this confidence an estimate counts as none, 0 to 1.
        hold: Estimates in a row that must have the same top emotion before it is noted, 1 or more.
        text: Makes a note's text, to stand behind `NOTE_PREFIX`.
    """

    def __init__(
        self, *, min_confidence: float = 0.5, hold: int = 2, text: Callable[[Estimate], str] = describe
    ) -> None:
        if not 0 <= min_confidence <= 1:
            raise ValueError(f"context_min_confidence: {min_confidence}; a probability from 0 to 1 is wanted")
        if hold < 1:
            raise ValueError(f"context_hold: {hold}; at least 1 estimate must say it")
        self._min_confidence = min_confidence
        self._hold = hold
        self._text = text
        self._noted: Emotion | None = None
        self._candidate: Emotion | None = None
        self._seen = 0

    def heard(self, estimate: Estimate) -> str | None:
        """The note that is due with this estimate, or None. An emotion that is noted is not noted again until
        another one was."""
        affect = estimate.affect
        if estimate.abstains or affect is None or affect.top is None or affect.confidence < self._min_confidence:
            self._candidate, self._seen = None, 0
            return None
        self._seen = self._seen + 1 if affect.top is self._candidate else 1
        self._candidate = affect.top
        if self._seen < self._hold or affect.top is self._noted:
            return None
        self._noted = affect.top
        return NOTE_PREFIX + self._text(estimate)


def note_frame(note: str, *, role: str, keep: int) -> LLMMessagesTransformFrame:
    """The frame that puts a note at the end of the context and takes away all but the newest `keep` of them.

    No interruption drops it: the note was counted as given.
    """

    def is_note(message: Any) -> bool:
        if not isinstance(message, dict) or message.get("role") != role:
            return False
        content = message.get("content")
        return isinstance(content, str) and content.startswith(NOTE_PREFIX)

    def transform(messages: list[Any]) -> list[Any]:
        notes = [index for index, message in enumerate(messages) if is_note(message)]
        gone = set(notes[: len(notes) - (keep - 1)])
        kept = [message for index, message in enumerate(messages) if index not in gone]
        return [*kept, {"role": role, "content": note}]

    frame = LLMMessagesTransformFrame(transform=transform, run_llm=False)
    frame.interruptible = False
    return frame
