"""Live emotion from speech for LiveKit Agents, by Undertone.

`EmotionListener` listens beside an `AgentSession`; `EmotionAgent` tells its LLM what it hears.
"""

from livekit.agents import Plugin

from undertone import EscalationEvent, Estimate, Severity, Utterance

from .agent import EmotionAgent
from .context import METADATA_KEY, EmotionContext
from .listener import EmotionListener
from .log import logger
from .stt import EmotionSTT
from .version import __version__

__all__ = [
    "METADATA_KEY",
    "EmotionAgent",
    "EmotionContext",
    "EmotionListener",
    "EmotionSTT",
    "EscalationEvent",
    "Estimate",
    "Severity",
    "Utterance",
    "__version__",
]


class UndertonePlugin(Plugin):
    """Tells the framework that the plug-in is there."""

    def __init__(self) -> None:
        super().__init__(__name__, __version__, __package__ or __name__, logger)


Plugin.register_plugin(UndertonePlugin())
