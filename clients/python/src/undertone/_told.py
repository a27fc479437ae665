"""What a stream has told already. After a break things are told again, from the last checkpoint on."""

from __future__ import annotations

from ._generated.undertone.v1 import emotion_service_pb2 as pb
from ._wire import seconds

# Ids of escalations' events that are remembered. Only those since the last checkpoint can come again, and a policy's
# budget bounds them far below.
_EVENTS = 10_000


class Told:
    """Tells what is new.

    Estimates are known by channel and end, utterances by channel and index, escalations' events by id, marks by their
    number, and warnings by reason, channel and position. Only what was told before the last break can be old.
    """

    def __init__(self) -> None:
        self._estimates: dict[int, float] = {}
        self._utterances: dict[int, int] = {}
        self._warnings: dict[tuple[int, int | None], float] = {}
        self._marks = 0
        self._old = (dict[int, float](), dict[int, int](), dict[tuple[int, int | None], float]())
        self._mark = 0
        self._events: dict[str, None] = {}

    def broke_off(self) -> None:
        """From here on things are told again."""
        self._old = (dict(self._estimates), dict(self._utterances), dict(self._warnings))

    def resumed(self, marks_before: int) -> None:
        """The next mark that comes back is this one, counted from 0."""
        self._mark = marks_before

    def is_news(self, kind: str, response: pb.StreamEmotionResponse) -> bool:
        """Whether it was not told before."""
        estimates, utterances, warnings = self._old
        if kind == "estimate":
            channel, end = response.estimate.channel, seconds(response.estimate.end)
            self._estimates[channel] = max(end, self._estimates.get(channel, end))
            return end > estimates.get(channel, -1.0)
        if kind == "utterance":
            channel, index = response.utterance.channel, response.utterance.index
            self._utterances[channel] = max(index, self._utterances.get(channel, index))
            return index > utterances.get(channel, -1)
        if kind == "mark":
            self._mark += 1
            self._marks, is_news = max(self._mark, self._marks), self._mark > self._marks
            return is_news
        if kind == "warning":
            warning = response.warning
            about = (int(warning.reason), warning.channel if warning.HasField("channel") else None)
            position = seconds(warning.position)
            self._warnings[about] = max(position, self._warnings.get(about, position))
            return position > warnings.get(about, -1.0)
        if kind == "escalation" and response.escalation.id:
            is_news = response.escalation.id not in self._events
            self._events[response.escalation.id] = None
            while len(self._events) > _EVENTS:
                del self._events[next(iter(self._events))]
            return is_news
        return True
