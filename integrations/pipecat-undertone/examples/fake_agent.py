"""A whole voice agent without any key: recorded audio in, scripted speech recognition, model and voice.

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

from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    StartFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner

from pipecat_undertone import EmotionFrame, EmotionProcessor, EscalationFrame

HELLO = pathlib.Path(__file__).resolve().parents[3] / "tests" / "data" / "hello.wav"

# When the caller's turns begin and end in hello.wav, in s, and what is said.
SCRIPT = (
    (0.2, 3.1, "Good morning. I would like to ask about my appointment."),
    (3.4, 7.1, "No! That is not what you told me! I have been waiting for hours!"),
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


class Caller(FrameProcessor):
    """In place of a transport: plays a WAV file as a microphone would, then ends the call."""

    def __init__(self, path: pathlib.Path, speed: float) -> None:
        super().__init__()
        self._path = path
        self._speed = speed

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._playing = self.create_task(self._play())

    async def _play(self) -> None:
        with wave.open(str(self._path)) as wav:
            rate, channels = wav.getframerate(), wav.getnchannels()
            while chunk := wav.readframes(rate // 50):
                await self.push_frame(InputAudioRawFrame(chunk, rate, channels))
                await asyncio.sleep(0.02 / self._speed)
        await self.pipeline_worker.queue_frame(EndFrame())

    async def cleanup(self) -> None:
        await self.cancel_task(self._playing)
        await super().cleanup()


class ScriptedRecognition(FrameProcessor):
    """In place of an STT service: says by the clock of the audio what the script says."""

    def __init__(self) -> None:
        super().__init__()
        self._heard = 0.0
        self._coming = [(at, text) for start, end, text in SCRIPT for at, text in ((start, ""), (end, text))]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self._heard += frame.num_frames / frame.sample_rate
            while self._coming and self._heard >= self._coming[0][0]:
                _, text = self._coming.pop(0)
                if text:
                    await self.push_frame(TranscriptionFrame(text, "caller", time_now_iso8601()))
                    await self.broadcast_frame(UserStoppedSpeakingFrame)
                else:
                    await self.broadcast_frame(UserStartedSpeakingFrame)
                    await self.broadcast_interruption()


class ScriptedModel(FrameProcessor):
    """In place of an LLM service: shows what it was given, and answers the same each time."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        print("the model reads:")
        for message in frame.context.get_messages():
            print(f"    {message['role']}: {message['content']}")
        await self.push_frame(LLMFullResponseStartFrame())
        await self.push_frame(LLMTextFrame("I am looking into it."))
        await self.push_frame(LLMFullResponseEndFrame())


class Console(FrameProcessor):
    """In place of a voice and a loudspeaker."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, EmotionFrame) and frame.estimate.affect is not None:
            affect = frame.estimate.affect
            top = affect.top.value if affect.top else "-"
            print(f"{frame.estimate.end:5.1f} s  {top} {affect.confidence:.0%}, distress {affect.distress:.2f}")
        elif isinstance(frame, EscalationFrame):
            escalation = frame.event.escalation
            kind = frame.event.kind.value if frame.event.kind else "changed"
            print(f"ESCALATION {kind}: {escalation.title}. {escalation.reason}")
        elif isinstance(frame, LLMTextFrame):
            print(f"the agent says: {frame.text}")
        await self.push_frame(frame, direction)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="localhost:50051", help="the Undertone server")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="how many times faster than its sound the file is played"
    )
    parser.add_argument(
        "wav", nargs="?", type=pathlib.Path, default=HELLO, help="16-bit WAV; the script fits hello.wav only"
    )
    arguments = parser.parse_args()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")

    context = LLMContext([{"role": "system", "content": "You answer callers of a surgery."}])
    turns = LLMUserAggregatorParams(user_turn_strategies=ExternalUserTurnStrategies())
    aggregators = LLMContextAggregatorPair(context, user_params=turns)
    emotions = EmotionProcessor(
        arguments.target,
        policy_yaml=POLICY,
        labels={"line": "example"},
        add_to_context=True,
        # The model is not very sure of a synthesised voice.
        context_min_confidence=0.35,
        buffer=30.0 if arguments.speed > 1 else 5.0,
    )
    pipeline = Pipeline(
        [
            Caller(arguments.wav, arguments.speed),
            emotions,
            ScriptedRecognition(),
            aggregators.user(),
            ScriptedModel(),
            Console(),
            aggregators.assistant(),
        ]
    )
    runner = WorkerRunner()
    await runner.add_workers(PipelineWorker(pipeline, enable_rtvi=False))
    await runner.run()
    if not emotions.session_id:
        sys.exit(f"No Undertone server at {arguments.target}: `undertone serve` starts one.")
    print(f"session {emotions.session_id} is over")


if __name__ == "__main__":
    asyncio.run(main())
