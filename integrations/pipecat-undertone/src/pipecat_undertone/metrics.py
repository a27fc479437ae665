"""What an `EmotionProcessor` measures about itself."""

from __future__ import annotations

from pipecat.metrics.metrics import MetricsData


class EmotionMetricsData(MetricsData):
    """Comes in a `MetricsFrame` every `metrics_interval`, and once at the end. Counts are since the one before.

    Not a `TTFBMetricsData`: nobody waits for an emotion, and observers add those up to the bot's latency.

    Parameters:
        audio_seconds: Audio handed to the server, in s.
        dropped_seconds: Audio dropped since the server was slow or away, in s.
        estimates: Estimates that came.
        abstained: How many of them abstain.
        delay_mean: From the arrival here of the last chunk that an estimate covers to that estimate, in s: the mean.
            0 without estimates.
        delay_max: The longest since the beginning, in s.
    """

    audio_seconds: float
    dropped_seconds: float
    estimates: int
    abstained: int
    delay_mean: float
    delay_max: float
