"""An agent that tells its LLM how the user sounds."""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine
from typing import Any

from livekit.agents import Agent, FlushSentinel, ModelSettings, llm

from .listener import EmotionListener


class EmotionAgent(Agent):
    """An `Agent` whose LLM reads the present emotion before the user's last message.

    The conversation itself is left as it is: the message is of one answer, and stands there once. With an `llm_node` of
    your own, call `emotions.inform(chat_ctx)` in it instead of using this class.

    Args:
        emotions: The listener.
        **kwargs: Those of `Agent`, such as `instructions`.
    """

    def __init__(self, *, emotions: EmotionListener, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.emotions = emotions

    def llm_node(
        self, chat_ctx: llm.ChatContext, tools: list[llm.Tool], model_settings: ModelSettings
    ) -> (
        AsyncIterable[llm.ChatChunk | str | FlushSentinel]
        | Coroutine[Any, Any, AsyncIterable[llm.ChatChunk | str | FlushSentinel]]
        | Coroutine[Any, Any, str]
        | Coroutine[Any, Any, llm.ChatChunk]
        | Coroutine[Any, Any, None]
    ):
        """The agent's own, behind `EmotionListener.inform`."""
        self.emotions.inform(chat_ctx)
        return super().llm_node(chat_ctx, tools, model_settings)
