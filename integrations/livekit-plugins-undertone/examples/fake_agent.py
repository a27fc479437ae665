"""A whole voice agent without a key or a room: recorded audio in, scripted speech recognition and model.

    undertone serve                      # in another terminal
    python examples/fake_agent.py --target localhost:50051

Prints how the caller sounds, what the language model gets to read, and any escalation; ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import sys
import wave
from typing import Any

from livekit import rtc
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, AgentSession, APIConnectOptions, llm, stt
from livekit.agents.voice import io
from livekit.plugins import undertone

HELLO = pathlib.Path(__file__).resolve().parents[3] / "tests" / "data" / "hello.wav"

# When the caller's turns begin and end in hello.wav, in s, and what is said.
SCRIPT = (
    (0.2, 3.1, "Good morning. I would like to ask about my appointment."),
    (3.4, 6.6, "No! That is not what you told me! I have been waiting for hours!"),
)

POLICY = """
schema: undertone.policy/v1
name: example
version: "1"
description: For the example. See docs/policies.md for policies that were measured.
rules:
  - name: distressed
    title: Sounds distressed
    severity: medium
    when:
      level: {of: distress, over: 2s, on: 0.45, off: 0.3, min_speech: 500ms}
    reason: Distress at {{ distress | percent }}.
"""


class Caller(io.AudioInput):
    """In place of a room: plays a WAV file as a microphone would, and then hears nothing more."""

    def __init__(self, path: pathlib.Path, speed: float) -> None:
        super().__init__(label="a WAV file")
        self._wav = wave.open(str(path))
        self._pause = 0.05 / speed
        self.over = asyncio.Event()

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(self._pause)
        rate, channels = self._wav.getframerate(), self._wav.getnchannels()
        data = self._wav.readframes(rate // 20)
        if not data:
            self.over.set()
            await asyncio.Event().wait()
        return rtc.AudioFrame(data, rate, channels, len(data) // (2 * channels))


class ScriptedRecognition(stt.STT[Any]):
    """In place of an STT: says by the clock of the audio what the script says."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=False))
        self.heard = 0.0
        self.coming = [(at, text) for start, end, text in SCRIPT for at, text in ((start, ""), (end, text))]

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        raise NotImplementedError

    def stream(
        self, *, language: Any = None, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> stt.RecognizeStream:
        return ScriptedStream(stt=self, conn_options=conn_options)


class ScriptedStream(stt.RecognizeStream):
    async def _run(self) -> None:
        script = self._stt
        assert isinstance(script, ScriptedRecognition)
        async for frame in self._input_ch:
            if not isinstance(frame, rtc.AudioFrame):
                continue
            script.heard += frame.duration
            while script.coming and script.heard >= script.coming[0][0]:
                _, text = script.coming.pop(0)
                if not text:
                    self._say(stt.SpeechEventType.START_OF_SPEECH)
                else:
                    self._say(stt.SpeechEventType.FINAL_TRANSCRIPT, text)
                    self._say(stt.SpeechEventType.END_OF_SPEECH)

    def _say(self, kind: stt.SpeechEventType, text: str = "") -> None:
        alternatives = [stt.SpeechData(language="en", text=text, confidence=1.0)] if text else []
        self._event_ch.send_nowait(stt.SpeechEvent(kind, alternatives=alternatives))


class ScriptedModel(llm.LLM):
    """In place of an LLM: shows what it was given, and answers the same each time."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[list[tuple[str, str]]] = []

    def chat(
        self, *, chat_ctx: llm.ChatContext, tools: Any = None, conn_options: Any = None, **_: Any
    ) -> llm.LLMStream:
        read = [(item.role, item.text_content or "") for item in chat_ctx.items if isinstance(item, llm.ChatMessage)]
        self.read.append(read)
        print("the model reads:", *(f"{role}: {text}" for role, text in read), sep="\n    ")
        return ScriptedAnswer(
            self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options or DEFAULT_API_CONNECT_OPTIONS
        )


class ScriptedAnswer(llm.LLMStream):
    async def _run(self) -> None:
        delta = llm.ChoiceDelta(role="assistant", content="I am looking into it.")
        self._event_ch.send_nowait(llm.ChatChunk(id="scripted", delta=delta))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="localhost:50051", help="the Undertone server")
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster than it sounds")
    parser.add_argument("wav", nargs="?", type=pathlib.Path, default=HELLO, help="16-bit; the script fits hello.wav")
    arguments = parser.parse_args()

    emotions = undertone.EmotionListener(
        arguments.target,
        policy_yaml=POLICY,
        labels={"line": "example"},
        # The model is not very sure of a synthesised voice.
        min_confidence=0.35,
    )

    @emotions.on("emotion")
    def on_emotion(estimate: undertone.Estimate) -> None:
        if estimate.affect is not None and estimate.affect.top is not None:
            affect = estimate.affect
            print(f"{estimate.end:5.1f} s  {affect.top.value} {affect.confidence:.0%}, distress {affect.distress:.2f}")

    @emotions.on("escalation")
    def on_escalation(event: undertone.EscalationEvent) -> None:
        kind = event.kind.value if event.kind else "changed"
        print(f"ESCALATION {kind}: {event.escalation.title}. {event.escalation.reason}")

    session: AgentSession[None] = AgentSession(
        stt=emotions.wrap(ScriptedRecognition()),
        llm=ScriptedModel(),
        vad=None,
        turn_handling={"turn_detection": "stt", "endpointing": {"min_delay": 0.0, "max_delay": 0.1}},
        # The scripted recognition owes nothing.
        session_close_transcript_timeout=0.1,
    )

    # First, so that what it adds to the conversation is there when others look.
    emotions.attach(session)

    @session.on("conversation_item_added")
    def on_item(event: Any) -> None:
        if not isinstance(event.item, llm.ChatMessage):
            return
        if event.item.role == "assistant":
            print(f"the agent says: {event.item.text_content}")
        else:
            heard = event.item.extra.get(undertone.METADATA_KEY) or {"emotion": "nothing yet"}
            print(f"the caller said, and sounded {heard['emotion']}: {event.item.text_content}")

    caller = Caller(arguments.wav, arguments.speed)
    session.input.audio = caller
    await session.start(undertone.EmotionAgent(emotions=emotions, instructions="You answer callers of a surgery."))
    await caller.over.wait()
    await session.drain()
    await session.aclose()
    await emotions.aclose()
    if not emotions.session_id:
        sys.exit(f"No Undertone server at {arguments.target}: `undertone serve` starts one.")
    print(f"session {emotions.session_id} is over")


if __name__ == "__main__":
    asyncio.run(main())
