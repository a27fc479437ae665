"""What a stream is asked for, as the protocol has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from ._generated.undertone.v1 import emotion_service_pb2 as pb
from ._wire import set_seconds
from .audio import AudioFormat, ChannelMode
from .errors import InvalidRequest


@dataclass(frozen=True)
class VoiceActivity:
    """When an utterance begins and ends. What is `None` is the server's default."""

    on_threshold: float | None = None
    """Probability of voice from which an utterance begins, between 0 and 1."""
    off_threshold: float | None = None
    """Probability of voice below which silence is counted, up to `on_threshold`."""
    min_speech: float | None = None
    """Voice needed before an utterance begins, 0 to 2 s."""
    hang_over: float | None = None
    """Silence after which an utterance ends, 0.1 to 10 s."""


class StreamOptions(TypedDict, total=False):
    """The keywords of `stream` and `open`. What is not given is the server's default, or the one named here."""

    policy: str | None
    """Name of the server's policy that raises escalations."""
    policy_yaml: str | None
    """The text of a policy of one's own, where the server allows it. Not together with `policy`."""
    no_policy: bool
    """Whether nothing is to be raised, also where the server has a default policy. Not together with the other two."""
    labels: Mapping[str, str]
    """On whose behalf it is listened; kept with the session and its escalations."""
    session_id: str | None
    """Names the session, 1 to 128 characters of A-Z a-z 0-9 . _ : -. The server makes a name if there is none."""
    model: str | None
    """Name of the model."""
    estimate_interval: float | None
    """Seconds between two estimates of a channel, 0.1 to 10."""
    min_speech: float | None
    """Seconds of speech needed in an utterance before an estimate stops abstaining, 0 to 10."""
    min_confidence: float | None
    """Confidence under which an estimate abstains, 0 to 1."""
    voice_activity: VoiceActivity | None
    """When utterances begin and end."""
    utterances: bool
    """Whether `Utterance` events are wanted; true by default, as the next two."""
    warnings: bool
    """Whether `StreamWarning` events are wanted."""
    escalation_updates: bool
    """Whether escalations' events of the kind `UPDATED` are wanted."""
    checkpoint_interval: float | None
    """Seconds of audio between two checkpoints, 1 to 600: what is sent again after a break at most. 5 by default;
    `None`: the stream ends when its connection does."""


def build(
    audio: AudioFormat,
    *,
    policy: str | None = None,
    policy_yaml: str | None = None,
    no_policy: bool = False,
    labels: Mapping[str, str] | None = None,
    session_id: str | None = None,
    model: str | None = None,
    estimate_interval: float | None = None,
    min_speech: float | None = None,
    min_confidence: float | None = None,
    voice_activity: VoiceActivity | None = None,
    utterances: bool = True,
    warnings: bool = True,
    escalation_updates: bool = True,
    checkpoint_interval: float | None = 5.0,
) -> pb.StreamConfig:
    """The first message of a stream.

    Raises:
        InvalidRequest: Two options exclude each other. All else is for the server to judge.
    """
    if policy is not None and policy_yaml is not None:
        raise InvalidRequest("one policy is enough", fields=(("policy_yaml", "is given together with policy"),))
    if no_policy and (policy is not None or policy_yaml is not None):
        raise InvalidRequest("a policy, or none", fields=(("no_policy", "is given together with a policy"),))
    config = pb.StreamConfig(
        session_id=session_id,
        audio=audio_format(audio),
        model=model,
        labels=labels,
        events=pb.EventSelection(
            no_utterances=not utterances, no_warnings=not warnings, no_escalation_updates=not escalation_updates
        ),
        min_confidence=min_confidence,
        policy_name=policy,
        policy_yaml=policy_yaml,
        no_policy=no_policy,
    )
    for field, value in (
        ("estimate_interval", estimate_interval),
        ("min_speech", min_speech),
        ("checkpoint_interval", checkpoint_interval),
    ):
        if value is not None:
            set_seconds(getattr(config, field), value, field)
    if voice_activity is not None:
        config.voice_activity.CopyFrom(voice_activity_config(voice_activity))
    return config


def voice_activity_config(voice: VoiceActivity) -> pb.VoiceActivityConfig:
    """As the protocol has it."""
    config = pb.VoiceActivityConfig(on_threshold=voice.on_threshold, off_threshold=voice.off_threshold)
    if voice.min_speech is not None:
        set_seconds(config.min_speech, voice.min_speech, "voice_activity.min_speech")
    if voice.hang_over is not None:
        set_seconds(config.hang_over, voice.hang_over, "voice_activity.hang_over")
    return config


def audio_format(audio: AudioFormat) -> pb.AudioFormat:
    """As the protocol has it."""
    return pb.AudioFormat(
        encoding=f"AUDIO_ENCODING_{audio.encoding.name}",
        sample_rate_hz=audio.sample_rate,
        channel_count=audio.channels,
        channel_roles=[f"CHANNEL_ROLE_{role.name}" for role in audio.roles],
        channel_mode=channel_mode(audio.mode),
    )


def channel_mode(mode: ChannelMode) -> str:
    """As the protocol has it."""
    return f"CHANNEL_MODE_{mode.name}"
