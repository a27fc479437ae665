"""`EmotionListener` beside real LiveKit agent sessions (without a room), against a real Undertone server."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, ConversationItemAddedEvent, Plugin, llm, stt
from livekit.agents.voice import io
from livekit.plugins import undertone
from livekit.plugins.undertone.context import MESSAGE_ID, put_before_llm

HERE = pathlib.Path(__file__).resolve().parents[1]
TIMEOUT_S = 20


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("livekit_fake_agent", HERE / "examples" / "fake_agent.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load_example()


class Microphone(io.AudioInput):
    """Gives the frames that it is given."""

    def __init__(self) -> None:
        super().__init__(label="a test")
        self._frames: asyncio.Queue[rtc.AudioFrame] = asyncio.Queue()

    async def __anext__(self) -> rtc.AudioFrame:
        return await self._frames.get()

    def speak(self, *frames: rtc.AudioFrame) -> None:
        for frame in frames:
            self._frames.put_nowait(frame)


def frames(speech: Any, first: float = 0.0, last: float = 60.0) -> list[rtc.AudioFrame]:
    """50 ms frames of the speech from one second to another."""
    chunks = speech.chunks(0.05)[int(first * 20) : int(last * 20)]
    return [rtc.AudioFrame(chunk, speech.rate_hz, 1, len(chunk) // 2) for chunk in chunks]


class Log:
    """What a listener says, and a way to wait for it."""

    def __init__(self, emotions: undertone.EmotionListener) -> None:
        self.said: list[tuple[str, tuple[Any, ...]]] = []
        self._changed = asyncio.Event()
        for event in ("emotion", "utterance", "escalation", "connected", "trouble"):
            emotions.on(event, self._handler(event))  # type: ignore[arg-type]

    def _handler(self, event: str) -> Callable[..., None]:
        def handle(*arguments: Any) -> None:
            self.said.append((event, arguments))
            self._changed.set()

        return handle

    def of(self, event: str) -> list[Any]:
        return [arguments[0] for name, arguments in self.said if name == event]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    # Some of what is waited for says nothing here.
                    await asyncio.wait_for(self._changed.wait(), 0.05)


def listener(target: str, **options: Any) -> undertone.EmotionListener:
    """Takes all of a test's audio at once, and is sure of everything."""
    return undertone.EmotionListener(target, **{"buffer": 120.0, "min_confidence": 0.0, **options})


@contextlib.asynccontextmanager
async def talk(
    emotions: undertone.EmotionListener, agent: Agent | None = None, tap: bool = False
) -> AsyncIterator[Any]:
    """A session with scripted recognition and model: its microphone, model, and itself."""
    model, microphone, recognition = example.ScriptedModel(), Microphone(), example.ScriptedRecognition()
    session: AgentSession[None] = AgentSession(
        stt=recognition if tap else emotions.wrap(recognition),
        llm=model,
        vad=None,
        turn_handling={"turn_detection": "stt", "endpointing": {"min_delay": 0.0, "max_delay": 0.1}},
        # How long the session waits for last words of the STT; it gives it silence meanwhile.
        session_close_transcript_timeout=0.05,
    )
    emotions.attach(session)
    session.input.audio = microphone
    await session.start(agent or undertone.EmotionAgent(emotions=emotions, instructions="You are kind."))
    if tap:
        emotions.tap(session)
    try:
        yield microphone, model, session
    finally:
        await session.aclose()
        await emotions.aclose()


def test_the_plug_in_is_registered() -> None:
    [plugin] = [p for p in Plugin.registered_plugins if p.package == "livekit.plugins.undertone"]
    assert plugin.version == undertone.__version__


@pytest.mark.parametrize("tap", [False, True])
async def test_emotions_and_utterances_arrive(server: Any, speech: Any, tap: bool) -> None:
    emotions = listener(server.address, session_id=f"from-livekit-{tap}", labels={"for": "a test"}, user_turns=False)
    log = Log(emotions)
    async with talk(emotions, tap=tap) as (microphone, _, _):
        microphone.speak(*frames(speech))
        await log.until(lambda: any(estimate.end >= 6.9 for estimate in log.of("emotion")))
    ends = [estimate.end for estimate in log.of("emotion")]
    assert ends == sorted(ends) and not any(estimate.abstains for estimate in log.of("emotion"))
    assert log.of("connected") == [f"from-livekit-{tap}"]
    assert len(log.of("utterance")) == 1, "the last words are heard out at the end"
    # When a session closes, the framework gives its STT 2 s of silence.
    silence = 0.0 if tap else 2.0
    assert emotions.counts.audio == pytest.approx(7.3 + silence, abs=0.06) and emotions.counts.dropped == 0


async def test_the_recognition_hears_every_frame_in_order_and_its_words_come_through(server: Any, speech: Any) -> None:
    heard: list[bytes] = []

    class Recognition(example.ScriptedRecognition):  # type: ignore[misc,name-defined]
        def stream(self, **options: Any) -> Any:
            stream = super().stream(**options)
            push = stream.push_frame

            def push_frame(frame: rtc.AudioFrame) -> None:
                heard.append(bytes(frame.data.cast("B")))
                push(frame)

            stream.push_frame = push_frame
            return stream

    emotions = listener(server.address)
    wrapped = emotions.wrap(Recognition())
    events: list[stt.SpeechEvent] = []
    async with wrapped.stream() as stream:
        for frame in frames(speech):
            stream.push_frame(frame)
        stream.end_input()
        async for event in stream:
            events.append(event)
    await emotions.aclose()
    assert b"".join(heard) == speech.data
    said = [event.alternatives[0].text for event in events if event.alternatives]
    assert said == [text for _, _, text in example.SCRIPT]
    kinds = [event.type for event in events]
    turn = [
        stt.SpeechEventType.START_OF_SPEECH,
        stt.SpeechEventType.FINAL_TRANSCRIPT,
        stt.SpeechEventType.END_OF_SPEECH,
    ]
    assert kinds == turn * 2


async def test_transcripts_messages_and_the_speaker_context_carry_the_emotion(server: Any, speech: Any) -> None:
    emotions = listener(server.address)
    log = Log(emotions)
    transcripts: list[stt.SpeechData] = []
    contexts: list[Any] = []

    class Listening(undertone.EmotionAgent):
        async def stt_node(self, audio: Any, model_settings: Any) -> Any:
            async for event in Agent.default.stt_node(self, audio, model_settings):
                if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
                    transcripts.append(event.alternatives[0])
                    contexts.append(self.audio_recognition.stt_context)
                yield event

    messages: list[llm.ChatMessage] = []
    async with talk(emotions, Listening(emotions=emotions, instructions="You are kind.")) as (microphone, _, session):

        @session.on("conversation_item_added")
        def on_item(event: ConversationItemAddedEvent) -> None:
            if isinstance(event.item, llm.ChatMessage) and event.item.role == "user":
                messages.append(event.item)

        microphone.speak(*frames(speech, 0, 2.8))
        await log.until(lambda: any(estimate.end >= 2.4 for estimate in log.of("emotion")))
        microphone.speak(*frames(speech, 2.8))
        await log.until(lambda: len(messages) == 2)
        [user, _] = [i for i in session.history.items if isinstance(i, llm.ChatMessage) and i.role == "user"]
    assert transcripts[0].text.startswith("Good morning")
    metadata = (transcripts[0].metadata or {})[undertone.METADATA_KEY]
    assert metadata["emotion"] == "neutral" and 0.3 < metadata["confidence"] < 0.7
    assert metadata["session_id"] == emotions.session_id and metadata["position"] <= 3.2
    assert isinstance(contexts[0], stt.SpeakerContext) and contexts[0].model_dump() == metadata
    assert "neutral" in contexts[0].to_instructions()
    assert messages[0].extra[undertone.METADATA_KEY]["emotion"] == "neutral"
    assert user.extra == messages[0].extra


async def test_the_model_reads_one_line_before_the_last_message_and_the_history_none(server: Any, speech: Any) -> None:
    emotions = listener(server.address, instructions=lambda heard: f"sounds {heard.emotion}")
    log = Log(emotions)
    async with talk(emotions) as (microphone, model, session):
        microphone.speak(*frames(speech, 0, 2.8))
        await log.until(lambda: any(estimate.end >= 2.4 for estimate in log.of("emotion")))
        microphone.speak(*frames(speech, 2.8, 6.0))
        await log.until(lambda: any(estimate.end >= 5.9 for estimate in log.of("emotion")))
        microphone.speak(*frames(speech, 6.0))
        await log.until(lambda: len(model.read) == 2)
        histories = [session.history, session.current_agent.chat_ctx]
    for read, text in zip(model.read, [text for _, _, text in example.SCRIPT], strict=True):
        lines = [line for line in read if line[1].startswith("sounds ")]
        assert len(lines) == 1 and lines[0][0] == "system"
        assert read[-2:] == [lines[0], ("user", text)]
    for history in histories:
        assert not any("sounds " in str(item) for item in history.items)


def test_the_line_replaces_the_one_before_and_can_be_taken_away() -> None:
    context = llm.ChatContext.empty()
    context.add_message(role="system", content="You are kind.")
    context.add_message(role="user", content="hello")
    before = list(context.items)
    put_before_llm(context, "one")
    put_before_llm(context, "two")
    assert [item.text_content for item in context.items if isinstance(item, llm.ChatMessage)] == [
        "You are kind.",
        "two",
        "hello",
    ]
    assert context.items[1].id == MESSAGE_ID
    put_before_llm(context, None)
    assert context.items == before


async def test_what_is_unsure_or_old_is_not_told(server: Any, speech: Any) -> None:
    unsure, old = listener(server.address, min_confidence=0.99), listener(server.address, max_age=1e-9)
    for emotions in (unsure, old):
        log = Log(emotions)
        async with talk(emotions) as (microphone, _, _):
            microphone.speak(*frames(speech, 0, 1.8))
            await log.until(lambda log=log: bool(log.of("emotion")))
            context = llm.ChatContext.empty()
            emotions.inform(context)
            assert emotions.latest is not None and emotions.current is None and not context.items


async def test_an_escalation_arrives_also_when_the_agent_is_interrupted_all_the_time(
    server: Any, speech: Any, policy: str
) -> None:
    emotions = listener(server.address, policy_yaml=policy, user_turns=False)
    log = Log(emotions)
    async with talk(emotions) as (microphone, _, session):
        for frame in frames(speech):
            microphone.speak(frame)
            session.interrupt(force=True)
        await log.until(lambda: bool(log.of("escalation")))
    event = log.of("escalation")[0]
    assert event.kind.value == "raised" and event.escalation.title == "Sounds distressed"
    assert event.escalation.severity is undertone.Severity.HIGH
    assert event.escalation.session_id == emotions.session_id


async def test_a_handler_that_fails_stops_nothing(server: Any, speech: Any) -> None:
    emotions = listener(server.address)

    @emotions.on("emotion")
    def bad(estimate: object) -> None:
        raise TypeError("a mistake")

    log = Log(emotions)
    async with talk(emotions) as (microphone, _, _):
        microphone.speak(*frames(speech))
        await log.until(lambda: emotions.counts.estimates >= 10)
    assert not log.of("trouble")


async def test_the_users_turn_ends_the_utterance(server: Any, speech: Any) -> None:
    for user_turns, utterances in ((True, 2), (False, 0)):
        emotions = listener(server.address, user_turns=user_turns)
        log = Log(emotions)
        async with talk(emotions) as (microphone, model, _):
            # The script's turns end in the middle of what the server takes for one utterance.
            microphone.speak(*frames(speech, 0, 3.3))
            await log.until(lambda model=model: len(model.read) == 1)
            microphone.speak(*frames(speech, 3.3, 6.9))
            await log.until(lambda model=model: len(model.read) == 2)
            await log.until(lambda log=log, utterances=utterances: len(log.of("utterance")) >= utterances)
            assert len(log.of("utterance")) == utterances


async def test_where_nobody_listens_the_agent_goes_on_and_it_is_said_once(nobody: str, speech: Any) -> None:
    emotions = undertone.EmotionListener(nobody, buffer=1.0)
    log = Log(emotions)
    async with talk(emotions) as (microphone, model, _):
        microphone.speak(*frames(speech))
        await log.until(lambda: len(model.read) == 2)
        await log.until(lambda: bool(log.of("trouble")))
        started = time.perf_counter()
    assert time.perf_counter() - started < 3
    assert len(log.of("trouble")) == 1 and not emotions.connected and emotions.session_id == ""
    assert emotions.counts.dropped > 6.2


async def test_a_server_that_dies_and_returns_is_listened_to_again(own_server: Any, speech: Any) -> None:
    emotions = undertone.EmotionListener(own_server.address, buffer=8.0)
    log = Log(emotions)
    async with talk(emotions) as (microphone, model, _):
        microphone.speak(*frames(speech))
        await log.until(lambda: any(estimate.end > 6.4 for estimate in log.of("emotion")))
        own_server.kill()
        microphone.speak(*frames(speech), *frames(speech))
        await log.until(lambda: bool(log.of("trouble")))
        own_server.start()
        before = len(log.of("emotion"))
        for frame in frames(speech) * 20:
            if len(log.of("emotion")) >= before + 3:
                break
            microphone.speak(frame)
            await asyncio.sleep(0.01)
        assert len(log.of("emotion")) >= before + 3 and emotions.connected
    assert len(log.of("trouble")) == 1
    assert len(set(log.of("connected"))) == 2
    assert len(model.read) == 2, "the agent went on meanwhile"


async def test_a_refusal_is_final_and_says_why(server: Any, speech: Any) -> None:
    emotions = listener(server.address, policy="no-such-policy")
    log = Log(emotions)
    async with talk(emotions) as (microphone, model, _):
        microphone.speak(*frames(speech))
        await log.until(lambda: len(model.read) == 2)
    [(error, permanent)] = [arguments for name, arguments in log.said if name == "trouble"]
    assert permanent and "no-such-policy" in str(error)


async def test_closing_in_mid_stream_leaves_no_task(server: Any, nobody: str, speech: Any) -> None:
    for target in (server.address, nobody):
        before = asyncio.all_tasks()
        emotions = listener(target)
        log = Log(emotions)
        async with talk(emotions) as (microphone, _, _):
            microphone.speak(*frames(speech, 0, 2))
            await log.until(lambda log=log: bool(log.of("emotion") or log.of("trouble")))
        assert {task for task in asyncio.all_tasks() - before if "undertone" in repr(task)} == set()


async def test_the_end_of_the_session_ends_the_listener(server: Any, speech: Any) -> None:
    emotions = listener(server.address)
    log = Log(emotions)
    async with talk(emotions) as (microphone, _, session):
        microphone.speak(*frames(speech, 0, 2))
        await log.until(lambda: bool(log.of("emotion")))
        await session.aclose()
        await log.until(lambda: not emotions.connected)
        emotions.push(frames(speech)[0])
        assert not emotions.connected


async def test_audio_is_not_heard_twice_and_a_listener_has_one_session(server: Any) -> None:
    emotions = listener(server.address)
    async with talk(emotions) as (_, _, session):
        with pytest.raises(ValueError, match="from stt already"):
            emotions.tap(session)
        with pytest.raises(ValueError, match=r"^session: "):
            emotions.attach(session)
        with pytest.raises(ValueError, match=r"^session: it has no audio input"):
            listener(server.address).tap(AgentSession(vad=None))


async def test_an_stt_that_does_not_stream_is_refused(server: Any) -> None:
    recognition = example.ScriptedRecognition()
    recognition._capabilities = stt.STTCapabilities(streaming=False, interim_results=False)
    with pytest.raises(ValueError, match="StreamAdapter"):
        listener(server.address).wrap(recognition)


@pytest.mark.parametrize(("argument", "value"), [("buffer", 0), ("max_age", 0), ("min_confidence", 1.5)])
def test_bad_arguments_are_named(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: "):
        undertone.EmotionListener("localhost:1", **{argument: value})  # type: ignore[arg-type]


def test_the_example_runs_and_ends(server: Any) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "examples" / "fake_agent.py", "--target", server.address, "--speed", "10"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("neutral", "ESCALATION raised", "the agent says", "system: The user's voice now sounds", "is over"):
        assert line in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


async def test_the_code_of_the_readme_runs(server: Any, speech: Any, policy: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    told: list[str] = []
    microphone, model = Microphone(), example.ScriptedModel()
    start = blocks[0].replace("localhost:50051", server.address).replace('policy="care-call"', "policy_yaml=policy")
    # No room here: the audio is given by hand, where a room would bring it.
    start = start.replace(", room=room", "").replace(
        "await session.start", "session.input.audio = audio; await session.start"
    )
    start = start.replace(
        "tts=tts)", "vad=None, turn_handling={'turn_detection': 'stt'}, session_close_transcript_timeout=0.05)"
    )
    names: dict[str, Any] = {
        "stt": example.ScriptedRecognition(),
        "llm": model,
        "audio": microphone,
        "policy": policy,
        "print": lambda *words: told.append(" ".join(map(str, words))),
    }
    code = "async def start():\n" + "".join(f"    {line}\n" for line in start.splitlines())
    exec(code + "    globals().update(locals())\n", names)
    await names["start"]()
    exec(blocks[1], names)
    log = Log(names["emotions"])
    for frame in frames(speech):
        microphone.speak(frame)
        await asyncio.sleep(0.01)
    await log.until(lambda: bool(log.of("escalation")))
    await names["session"].aclose()
    await names["emotions"].aclose()
    assert any("Sounds distressed" in line for line in told)
    assert any("neutral" in line for line in told)
