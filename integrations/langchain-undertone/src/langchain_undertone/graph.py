"""The person's present emotion in a LangGraph state."""

from __future__ import annotations

from typing import Annotated, Any

from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

# LangGraph's own states are of this one, which does not mix with that of `typing`.
from typing_extensions import TypedDict

from langchain_undertone.reading import EmotionReading, newest
from langchain_undertone.sources import EmotionSource


class EmotionState(TypedDict, total=False):
    """What a graph's state inherits, beside what it has of its own. Plain data: any checkpointer keeps it."""

    emotion: Annotated[EmotionReading | None, newest]


def listen(source: EmotionSource, *, history: float = 0.0) -> Runnable[Any, dict[str, EmotionReading]]:
    """A node that puts the present reading into `state["emotion"]`, sync or async.

    `graph.add_node("listen", listen(source))`.

    Args:
        source: `SessionEmotions` or `LiveEmotions`.
        history: Seconds of the past that the reading holds.
    """

    def read(state: Any, config: RunnableConfig) -> dict[str, EmotionReading]:
        return {"emotion": source.read(config, history=history)}

    async def aread(state: Any, config: RunnableConfig) -> dict[str, EmotionReading]:
        return {"emotion": await source.aread(config, history=history)}

    return RunnableLambda(read, aread, name="listen")
