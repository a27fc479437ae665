"""The frames that `EmotionProcessor` pushes downstream."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipecat.frames.frames import DataFrame, SystemFrame
from undertone import EscalationEvent, Estimate, Utterance


@dataclass
class EmotionFrame(DataFrame):
    """How the user sounds now. An interruption may drop one; the next comes within `estimate_interval`.

    Parameters:
        estimate: The rolling estimate. Its times are seconds of audio from the start of the Undertone session.
        session_id: The Undertone session that it belongs to.
    """

    estimate: Estimate
    session_id: str

    def __str__(self) -> str:
        affect = self.estimate.affect
        top = affect.top.value if affect is not None and affect.top is not None else "none"
        return f"{self.name}(end: {self.estimate.end:.1f}s, top: {top}, abstains: {self.estimate.abstains})"


@dataclass
class UtteranceEmotionFrame(DataFrame):
    """How the user sounded over one whole utterance. An interruption may drop one.

    Parameters:
        utterance: The utterance, with its summary.
        session_id: The Undertone session that it belongs to.
    """

    utterance: Utterance
    session_id: str


@dataclass
class EscalationFrame(SystemFrame):
    """A policy asks for a person, or an escalation has changed. No interruption drops it, and it waits behind
    no audio or text.

    Parameters:
        event: What happened, and the escalation after it.
        session_id: The Undertone session that it belongs to.
    """

    interruptible: bool = field(default=False, init=False)

    event: EscalationEvent
    session_id: str

    def __str__(self) -> str:
        escalation = self.event.escalation
        kind = self.event.kind.value if self.event.kind else "changed"
        severity = escalation.severity.value if escalation.severity else "unknown"
        return f"{self.name}({kind}: {escalation.title}, severity: {severity})"
