"""`EmotionProcessor` in real Pipecat pipelines, against a real Undertone server."""

from __future__ import annotations

import asyncio
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import undertone
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMMessagesTransformFrame,
    MetricsFrame,
    SystemFrame,
    TextFrame,
    UserAudioRawFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from pipecat.utils.errors import ErrorCategory
from pipecat.workers.runner import WorkerRunner

from pipecat_undertone import (
    NOTE_PREFIX,
    EmotionFrame,
    EmotionMetricsData,
    EmotionProcessor,
    EscalationFrame,
    UtteranceEmotionFrame,
)
from pipecat_undertone.context import ContextNotes, note_frame

HERE = pathlib.Path(__file__).resolve().parents[1]
TIMEOUT_S = 20


class Tap(FrameProcessor):
    """Keeps what passes in one direction, with when it did."""

    def __init__(self, direction: FrameDirection) -> None:
        super().__init__(enable_direct_mode=True)
        self._direction = direction
        self.frames: list[Frame] = []
        self.times: list[float] = []
        self._changed = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is self._direction:
            self.frames.append(frame)
            self.times.append(time.perf_counter())
            self._changed.set()
        await self.push_frame(frame, direction)

    def look(self) -> None:
        """Something that is waited for may hold now."""
        self._changed.set()

    def of(self, kind: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


class Run:
    """A pipeline that runs: a tap, the processors, a tap."""

    def __init__(self, *processors: FrameProcessor, metrics: bool = False) -> None:
        self.up = Tap(FrameDirection.UPSTREAM)
        self.down = Tap(FrameDirection.DOWNSTREAM)
        self.worker = PipelineWorker(
            Pipeline([self.up, *processors, self.down]),
            cancel_on_idle_timeout=False,
            enable_rtvi=False,
            params=PipelineParams(enable_metrics=metrics),
        )
        self._started = asyncio.Event()

        @self.worker.event_handler("on_pipeline_started")
        async def _(*_: object) -> None:
            self._started.set()

    async def __aenter__(self) -> Run:
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        self.task = asyncio.create_task(runner.run())
        await asyncio.wait_for(self._started.wait(), TIMEOUT_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.task.done():
            await self.worker.cancel()
            await asyncio.wait_for(self.task, TIMEOUT_S)

    async def send(self, *frames: Frame) -> None:
        for frame in frames:
            await self.worker.queue_frame(frame)

    async def end(self) -> None:
        await self.worker.queue_frame(EndFrame())
        await asyncio.wait_for(asyncio.shield(self.task), TIMEOUT_S)


def audio(speech: Any, first: float = 0.0, last: float = 60.0) -> list[InputAudioRawFrame]:
    """20 ms frames of the speech from one second to another."""
    return [InputAudioRawFrame(chunk, speech.rate_hz, 1) for chunk in speech.chunks()[int(first * 50) : int(last * 50)]]


async def speak(run: Run, frames: list[InputAudioRawFrame], until: Callable[[], bool] = lambda: False) -> None:
    """As a microphone would, some times faster."""
    for frame in frames:
        if until():
            return
        await run.send(frame)
        await asyncio.sleep(0.004)


def listener(target: str, **options: Any) -> EmotionProcessor:
    """Takes all of a test's audio at once."""
    return EmotionProcessor(target, **{"buffer": 120.0, **options})


async def test_frames_pass_unchanged_and_in_order(server: Any, speech: Any) -> None:
    frames = audio(speech)
    contents = [(frame.id, frame.audio) for frame in frames]
    texts: list[Frame] = [TextFrame(str(number)) for number in range(20)]
    async with Run(listener(server.address)) as run:
        await run.send(*frames[:100], *texts, *frames[100:])
        await run.end()
        heard = run.down.of(InputAudioRawFrame)
        assert [(frame.id, frame.audio) for frame in heard] == contents
        assert all(one is other for one, other in zip(heard, frames, strict=True))
        assert run.down.of(TextFrame) == texts
        assert isinstance(run.down.frames[-1], EndFrame)


async def test_emotions_and_utterances_arrive_and_the_last_words_before_the_end(server: Any, speech: Any) -> None:
    emotions = listener(server.address, session_id="from-pipecat", labels={"for": "a test"})
    heard = []

    @emotions.event_handler("on_emotion")
    async def on_emotion(_: object, estimate: undertone.Estimate) -> None:
        heard.append(estimate)

    async with Run(emotions) as run:
        await run.send(*audio(speech))
        await run.end()
        frames = run.down.of(EmotionFrame)
        assert [frame.estimate for frame in frames] == heard
        ends = [frame.estimate.end for frame in frames]
        assert ends == sorted(ends) and ends[-1] >= 6.9
        assert not any(frame.estimate.abstains for frame in frames)
        assert {frame.session_id for frame in frames} == {"from-pipecat"}
        assert abs(sum(frames[0].estimate.affect.scores.values()) - 1) < 1e-5
        [utterance] = run.down.of(UtteranceEmotionFrame)
        assert utterance.utterance.affect.top is undertone.Emotion.SAD
        assert emotions.dropped == 0 and not run.up.of(ErrorFrame)


async def test_abstaining_estimates_come_only_if_asked_for(server: Any, speech: Any) -> None:
    async with Run(listener(server.address, include_abstaining=True)) as run:
        await run.send(*audio(speech))
        await run.end()
        assert any(frame.estimate.abstains for frame in run.down.of(EmotionFrame))


class Busy(FrameProcessor):
    """As an LLM or a voice in the middle of an answer: the first emotion holds up all data behind it."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, EmotionFrame):
            await asyncio.Event().wait()
        await self.push_frame(frame, direction)


async def test_an_escalation_overtakes_a_busy_pipeline_and_outlives_interruption(
    server: Any, speech: Any, policy: str
) -> None:
    emotions = listener(
        server.address, policy_yaml=policy, add_to_context=True, context_min_confidence=0.0, context_hold=1
    )
    raised, heard = [], []

    @emotions.event_handler("on_escalation")
    async def on_escalation(_: object, event: undertone.EscalationEvent) -> None:
        raised.append(event)

    @emotions.event_handler("on_emotion")
    async def on_emotion(_: object, estimate: undertone.Estimate) -> None:
        heard.append(estimate)
        run.down.look()

    async with Run(emotions, Busy()) as run:
        await run.send(*audio(speech))
        await run.down.until(lambda: bool(run.down.of(EscalationFrame)))
        [frame] = run.down.of(EscalationFrame)
        assert isinstance(frame, SystemFrame) and not frame.interruptible
        assert frame.event.kind is undertone.EscalationKind.RAISED
        assert frame.event.escalation.title == "Sounds distressed"
        assert frame.event.escalation.severity is undertone.Severity.HIGH
        assert frame.session_id == emotions.session_id == frame.event.escalation.session_id
        assert raised == [frame.event]
        await run.down.until(lambda: any(estimate.end >= 6.9 for estimate in heard))
        assert not run.down.of(LLMMessagesTransformFrame), "notes wait in the order of data"
        await run.send(InterruptionFrame())
        await run.down.until(lambda: bool(run.down.of(InterruptionFrame)))
        await run.down.until(lambda: len(run.down.of(LLMMessagesTransformFrame)) == 2)
        assert not run.down.of(EmotionFrame), "an interruption drops emotions"


async def test_many_interruptions_lose_no_escalation(server: Any, speech: Any, policy: str) -> None:
    async with Run(listener(server.address, policy_yaml=policy)) as run:
        for frame in audio(speech):
            await run.send(frame, InterruptionFrame())
        await run.down.until(lambda: bool(run.down.of(EscalationFrame)))


async def test_the_context_has_one_note_of_the_newest_emotion(server: Any, speech: Any) -> None:
    context = LLMContext([{"role": "system", "content": "You are kind."}])
    pair = LLMContextAggregatorPair(
        context, user_params=LLMUserAggregatorParams(user_turn_strategies=ExternalUserTurnStrategies())
    )
    emotions = listener(server.address, add_to_context=True, context_min_confidence=0.35)
    changes = []

    class Watch(FrameProcessor):
        async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, LLMMessagesTransformFrame):
                changes.append(frame)
            await self.push_frame(frame, direction)

    async with Run(emotions, Watch(), pair.user()) as run:
        await run.send(*audio(speech))
        await run.end()
    notes = [str(m["content"]) for m in context.messages if str(m["content"]).startswith(NOTE_PREFIX)]
    assert len(changes) == 2, "neutral, then sad"
    assert len(notes) == 1 and "sad" in notes[0]
    assert context.messages[0] == {"role": "system", "content": "You are kind."}
    assert context.messages[-1]["role"] == "developer"


def estimate(top: undertone.Emotion, confidence: float = 0.9, abstains: bool = False) -> undertone.Estimate:
    affect = undertone.Affect({top: confidence}, top, confidence, 0.0, 0.0, None, 0.0)
    return undertone.Estimate(0, 0.0, 1.0, 1.0, affect, abstains, None, 1.0, -20.0, 1.0, 0, None, ())


SAD, ANGRY = undertone.Emotion.SAD, undertone.Emotion.ANGRY


def test_an_emotion_is_noted_once_it_holds_and_not_again_until_another_was() -> None:
    notes = ContextNotes(hold=2, text=lambda e: e.affect.top.value)  # type: ignore[union-attr]
    heard = [SAD, SAD, SAD, ANGRY, SAD, ANGRY, ANGRY, ANGRY, SAD, SAD]
    said = [notes.heard(estimate(emotion)) for emotion in heard]
    sad, angry = NOTE_PREFIX + "sad", NOTE_PREFIX + "angry"
    assert said == [None, sad, None, None, None, None, angry, None, None, sad]


def test_what_abstains_or_is_unsure_is_not_noted_and_breaks_a_row() -> None:
    notes = ContextNotes(hold=2, min_confidence=0.5)
    for between in (estimate(SAD, 0.49), estimate(SAD, abstains=True)):
        assert [notes.heard(e) for e in (estimate(SAD), between, estimate(SAD))] == [None, None, None]
        notes.heard(between)


def test_old_notes_go_from_the_context_and_nothing_else_does() -> None:
    messages: list[Any] = [
        {"role": "system", "content": NOTE_PREFIX + "by somebody else"},
        {"role": "user", "content": "hello"},
        {"role": "developer", "content": [{"type": "text", "text": NOTE_PREFIX}]},
    ]
    for count, keep in ((5, 1), (5, 3)):
        context = LLMContext(list(messages))
        for number in range(count):
            context.transform_messages(note_frame(f"{NOTE_PREFIX}{number}", role="developer", keep=keep).transform)
        kept = [f"{NOTE_PREFIX}{number}" for number in range(count - keep, count)]
        assert context.messages == [*messages, *({"role": "developer", "content": note} for note in kept)]


async def test_the_users_turn_ends_the_utterance(server: Any, speech: Any) -> None:
    async with Run(listener(server.address)) as run:
        # In the middle of a sentence: without the turn the utterance would go on.
        await run.send(*audio(speech, 0, 2.5))
        await run.down.until(lambda: len(run.down.of(EmotionFrame)) >= 1)
        await run.worker.queue_frame(UserStoppedSpeakingFrame(), FrameDirection.UPSTREAM)
        await run.down.until(lambda: bool(run.down.of(UtteranceEmotionFrame)))
        assert run.down.of(UtteranceEmotionFrame)[0].utterance.end <= 2.6
        assert not run.task.done()


async def test_turns_are_left_out_if_they_are_not_wanted(server: Any, speech: Any) -> None:
    async with Run(listener(server.address, user_turns=False)) as run:
        for at in (1.0, 2.0, 2.5):
            await run.send(*audio(speech, at - 1.0, at))
            await run.worker.queue_frame(UserStoppedSpeakingFrame(), FrameDirection.UPSTREAM)
        await run.up.until(lambda: len(run.up.of(UserStoppedSpeakingFrame)) == 3)
        await run.end()
        assert len(run.down.of(UtteranceEmotionFrame)) == 1


async def test_only_audio_that_is_accepted_is_heard(server: Any, speech: Any) -> None:
    frames = [UserAudioRawFrame(chunk, speech.rate_hz, 1, user_id="anna") for chunk in speech.chunks()]
    others = [UserAudioRawFrame(bytes(640), speech.rate_hz, 1, user_id="ben") for _ in frames]
    async with Run(listener(server.address, accept=lambda f: getattr(f, "user_id", "") == "anna")) as run:
        for one, other in zip(frames, others, strict=True):
            await run.send(one, other)
        await run.end()
        assert len(run.down.of(UserAudioRawFrame)) == 2 * len(frames)
        assert 6.9 <= run.down.of(EmotionFrame)[-1].estimate.end <= 7.4


async def test_metrics_come_in_pipecats_frames(server: Any, speech: Any) -> None:
    emotions = listener(server.address, metrics_interval=2.0)
    async with Run(emotions, metrics=True) as run:
        await run.send(*audio(speech))
        await run.end()
        data = [d for frame in run.down.of(MetricsFrame) for d in frame.data if isinstance(d, EmotionMetricsData)]
        assert len(data) >= 2
        assert sum(d.audio_seconds for d in data) == pytest.approx(7.306, abs=0.01)
        assert sum(d.estimates for d in data) == 14
        assert sum(d.dropped_seconds for d in data) == 0
        assert all(0 < d.delay_mean <= d.delay_max < TIMEOUT_S for d in data if d.estimates)
        assert {d.processor for d in data} == {emotions.name}


async def test_where_nobody_listens_frames_pass_and_it_is_said_once(nobody: str, speech: Any) -> None:
    emotions = EmotionProcessor(nobody, buffer=1.0)
    async with Run(emotions) as run:
        await run.send(*audio(speech))
        await run.up.until(lambda: bool(run.up.of(ErrorFrame)))
        await run.send(*audio(speech))
        started = time.perf_counter()
        await run.end()
        assert time.perf_counter() - started < 1.5, "there is nothing to wait for at the end"
        [error] = run.up.of(ErrorFrame)
        assert nobody in error.error and emotions.is_usable
        assert error.category in (ErrorCategory.CONNECTIVITY, ErrorCategory.APPLICATION)
        assert len(run.down.of(InputAudioRawFrame)) == 2 * len(audio(speech))
        assert emotions.dropped > 2 * 7.3 - 1.1
        assert not emotions.connected and emotions.session_id == ""


# Before the first checkpoint a session goes on under its name. Behind it, a server with another key knows the session
# no more, and a new one begins.
@pytest.mark.parametrize(("until", "new_session"), [(1.8, False), (7.3, True)])
async def test_a_server_that_dies_and_returns_is_listened_to_again(
    own_server: Any, speech: Any, until: float, new_session: bool
) -> None:
    emotions = EmotionProcessor(own_server.address, buffer=8.0)
    sessions: list[str] = []

    @emotions.event_handler("on_connected")
    async def on_connected(_: object, session_id: str) -> None:
        sessions.append(session_id)

    async with Run(emotions) as run:
        await run.send(*audio(speech, 0, until))
        await run.down.until(lambda: any(f.estimate.end > until - 0.9 for f in run.down.of(EmotionFrame)))
        own_server.kill()
        await run.send(*audio(speech), *audio(speech))
        await run.up.until(lambda: bool(run.up.of(ErrorFrame)))
        own_server.start()
        before = len(run.down.of(EmotionFrame))
        await speak(run, audio(speech) * 20, until=lambda: len(run.down.of(EmotionFrame)) >= before + 3)
        assert len(run.up.of(ErrorFrame)) == 1
        assert emotions.connected
    assert len(sessions) == 2 and (sessions[0] != sessions[1]) is new_session


async def test_a_server_that_hangs_delays_no_frame_and_is_said_once(own_server: Any, speech: Any) -> None:
    emotions = EmotionProcessor(own_server.address, buffer=2.0)
    async with Run(emotions) as run:
        await run.send(*audio(speech, 0, 1.8))
        await run.down.until(lambda: bool(run.down.of(EmotionFrame)))
        own_server.pause()
        frames = audio(speech) * 10
        delays = []
        for frame in frames:
            sent = time.perf_counter()
            await run.send(frame)
            await run.down.until(lambda frame=frame: any(passed is frame for passed in run.down.frames[-5:]))
            delays.append(time.perf_counter() - sent)
        # The machine may be busy; a frame that waited for the server would wait for good.
        assert sorted(delays)[len(delays) // 2] < 0.02 and sorted(delays)[len(delays) * 99 // 100] < 0.2
        assert emotions.dropped > 1, "flow control has held the rest up, what lies in sockets aside"
        assert len(run.up.of(ErrorFrame)) == 1
        own_server.resume()
        before = len(run.down.of(EmotionFrame))
        await speak(run, audio(speech) * 20, until=lambda: len(run.down.of(EmotionFrame)) >= before + 2)
        assert len(run.up.of(ErrorFrame)) == 1


async def test_a_refusal_is_final_and_says_why(server: Any, speech: Any) -> None:
    emotions = listener(server.address, policy="no-such-policy")
    async with Run(emotions) as run:
        await run.send(*audio(speech))
        await run.up.until(lambda: bool(run.up.of(ErrorFrame)))
        await run.send(*audio(speech))
        await run.end()
        [error] = run.up.of(ErrorFrame)
        assert "no-such-policy" in error.error
        assert error.category is ErrorCategory.INVALID_REQUEST
        assert not emotions.is_usable
        assert len(run.down.of(InputAudioRawFrame)) == 2 * len(audio(speech))


async def test_a_mistake_in_a_note_is_said_and_stops_no_frame(server: Any, speech: Any) -> None:
    def mistaken(estimate: undertone.Estimate) -> str:
        raise KeyError("mood")

    emotions = listener(server.address, add_to_context=True, context_min_confidence=0.0, context_text=mistaken)
    async with Run(emotions) as run:
        await run.send(*audio(speech))
        await run.up.until(lambda: bool(run.up.of(ErrorFrame)))
        await run.send(*audio(speech))
        await run.end()
        [error] = run.up.of(ErrorFrame)
        assert "KeyError('mood')" in error.error and error.category is ErrorCategory.APPLICATION
        assert len(run.down.of(InputAudioRawFrame)) == 2 * len(audio(speech))


async def test_audio_of_another_rate_is_dropped_and_said(server: Any, speech: Any) -> None:
    emotions = listener(server.address)
    async with Run(emotions) as run:
        await run.send(*audio(speech, 0, 1))
        await run.send(*(InputAudioRawFrame(bytes(480), 24_000, 1) for _ in range(100)))
        await run.send(*audio(speech, 1))
        await run.end()
        [error] = run.up.of(ErrorFrame)
        assert "24000 Hz" in error.error and "16000 Hz" in error.error
        assert emotions.dropped == pytest.approx(1.0)
        assert run.down.of(EmotionFrame)[-1].estimate.end >= 6.9


async def test_a_cancel_in_mid_stream_leaves_no_task(server: Any, nobody: str, speech: Any) -> None:
    for target in (server.address, nobody):
        before = asyncio.all_tasks()
        async with Run(listener(target)) as run:
            await run.send(*audio(speech, 0, 2))
            if target == server.address:
                await run.down.until(lambda run=run: bool(run.down.of(EmotionFrame)))
            else:
                await run.up.until(lambda run=run: bool(run.up.of(ErrorFrame)))
            await run.send(CancelFrame())
            await asyncio.wait_for(asyncio.shield(run.task), TIMEOUT_S)
        assert {task for task in asyncio.all_tasks() - before if "undertone" in repr(task)} == set()


async def test_one_that_never_hears_audio_ends_cleanly(server: Any) -> None:
    before = asyncio.all_tasks()
    async with Run(listener(server.address)) as run:
        await run.send(TextFrame("hello"), UserStoppedSpeakingFrame())
        await run.end()
    assert {task for task in asyncio.all_tasks() - before if "undertone" in repr(task)} == set()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("buffer", 0),
        ("finish_timeout", -1),
        ("metrics_interval", 0),
        ("context_notes", 0),
        ("context_role", "assistant"),
        ("context_min_confidence", 1.5),
        ("context_hold", 0),
    ],
)
def test_bad_arguments_are_named(argument: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: "):
        EmotionProcessor("localhost:1", add_to_context=True, **{argument: value})


def test_the_example_runs_and_ends(server: Any) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "examples" / "fake_agent.py", "--target", server.address, "--speed", "10"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("neutral", "ESCALATION raised", "the agent says", "developer: [Undertone]", "is over"):
        assert line in done.stdout, done.stdout + done.stderr


async def test_the_code_of_the_readme_runs(server: Any, speech: Any, policy: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    told: list[str] = []
    names: dict[str, Any] = {
        name: Tap(FrameDirection.DOWNSTREAM)
        for name in ("stt", "user_aggregator", "llm", "tts", "assistant_aggregator")
    }

    class Transport:
        def input(self) -> FrameProcessor:
            return Tap(FrameDirection.DOWNSTREAM)

        output = input

    names |= {"transport": Transport(), "print": lambda *words: told.append(" ".join(map(str, words)))}
    exec(blocks[0].replace("localhost:50051", server.address).replace('policy="care-call"', "policy_yaml=POLICY"),
         names | {"POLICY": policy}, names)  # fmt: skip
    exec(blocks[1], names)
    async with Run(names["pipeline"]) as run:
        await speak(run, audio(speech))
        await run.down.until(lambda: bool(run.down.of(EscalationFrame)))
        await run.end()
    assert any("Sounds distressed" in line for line in told)
    assert any("sad" in line for line in told)
