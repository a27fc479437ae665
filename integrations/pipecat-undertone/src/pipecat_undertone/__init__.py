"""Live emotion from speech for Pipecat, by Undertone.

`EmotionProcessor` goes right behind the transport's input; `EmotionFrame`, `UtteranceEmotionFrame` and
`EscalationFrame` come out of it.
"""

from pipecat_undertone.context import NOTE_PREFIX
from pipecat_undertone.frames import EmotionFrame, EscalationFrame, UtteranceEmotionFrame
from pipecat_undertone.metrics import EmotionMetricsData
from pipecat_undertone.processor import EmotionProcessor

__version__ = "0.1.0"

__all__ = [
    "NOTE_PREFIX",
    "EmotionFrame",
    "EmotionMetricsData",
    "EmotionProcessor",
    "EscalationFrame",
    "UtteranceEmotionFrame",
    "__version__",
]
