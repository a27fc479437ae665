"""The present emotion in an agent's system prompt, and in its state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NotRequired

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, SystemMessage
from langgraph.config import get_config
from langgraph.runtime import Runtime

from langchain_undertone.reading import EmotionReading, describe, newest
from langchain_undertone.sources import EmotionSource


class EmotionAgentState(AgentState[Any]):
    """An agent's state with the present reading in it."""

    emotion: NotRequired[Annotated[EmotionReading | None, newest]]


class EmotionMiddleware(AgentMiddleware[EmotionAgentState, Any, Any]):
    """Reads how the person sounds before each call of the model, keeps it in `state["emotion"]`, and tells the model.

    What is told is put at the end of the system prompt of that call only: it is there once, never in the messages, and
    nothing is told that is not known, sure and fresh. A server that is away changes nothing but that.

    Args:
        source: `SessionEmotions` or `LiveEmotions`.
        min_confidence: Confidence under which nothing is told, 0 to 1.
        max_age: How long ago the evidence may have been heard, in s.
        text: Makes what is told from a reading; None for nothing. By default `reading.describe` with the two above.
    """

    state_schema = EmotionAgentState

    def __init__(
        self,
        source: EmotionSource,
        *,
        min_confidence: float = 0.5,
        max_age: float = 30.0,
        text: Callable[[EmotionReading], str | None] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= min_confidence <= 1:
            raise ValueError(f"min_confidence: {min_confidence}; a probability from 0 to 1 is wanted")
        if not max_age > 0:
            raise ValueError(f"max_age: {max_age} s; more than 0 is wanted")
        self._source = source
        self._text = text or (lambda reading: describe(reading, min_confidence=min_confidence, max_age=max_age))
        self.tools = []

    def before_model(self, state: EmotionAgentState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Reads."""
        return {"emotion": self._source.read(get_config())}

    async def abefore_model(self, state: EmotionAgentState, runtime: Runtime[Any]) -> dict[str, Any]:
        """Reads."""
        return {"emotion": await self._source.aread(get_config())}

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | AIMessage:
        """Tells the model."""
        return handler(self._told(request))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any] | AIMessage:
        """Tells the model."""
        return await handler(self._told(request))

    def _told(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        reading: EmotionReading | None = request.state.get("emotion")  # type: ignore[assignment]
        text = self._text(reading) if reading is not None else None
        if text is None:
            return request
        before = request.system_message
        if before is None:
            return request.override(system_message=SystemMessage(content=text))
        # A block of its own at the end: what a provider has cached of the prompt before it stays good.
        blocks: list[Any] = [*before.content_blocks, {"type": "text", "text": text}]
        return request.override(system_message=SystemMessage(content_blocks=blocks))
