"""Live emotion from speech for LangChain and LangGraph, by Undertone.

Readings come from `SessionEmotions` (any live session, by its name) or `LiveEmotions` (a stream of this process). They
go to an agent by `UndertoneToolkit` and `EmotionMiddleware`, and into a graph's state by `listen` and `EmotionState`.
"""

from langchain_undertone.graph import EmotionState, listen
from langchain_undertone.middleware import EmotionAgentState, EmotionMiddleware
from langchain_undertone.reading import EmotionReading, Moment, describe, newest
from langchain_undertone.sources import SESSION_KEY, EmotionSource, LiveEmotions, SessionEmotions
from langchain_undertone.tools import EscalationSummary, UndertoneToolkit, emotion_tool

__version__ = "0.1.0"

__all__ = [
    "SESSION_KEY",
    "EmotionAgentState",
    "EmotionMiddleware",
    "EmotionReading",
    "EmotionSource",
    "EmotionState",
    "EscalationSummary",
    "LiveEmotions",
    "Moment",
    "SessionEmotions",
    "UndertoneToolkit",
    "__version__",
    "describe",
    "emotion_tool",
    "listen",
    "newest",
]
