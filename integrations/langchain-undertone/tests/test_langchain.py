"""Tools, nodes and middleware in real LangChain agents and LangGraph graphs, against a real Undertone server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import undertone
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import PrivateAttr

import langchain_undertone as lu

HERE = pathlib.Path(__file__).resolve().parents[1]
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


class ScriptedModel(BaseChatModel):
    """Gives the answers that it was given, and keeps what it was told."""

    answers: list[AIMessage]
    _told: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    @property
    def told(self) -> list[list[BaseMessage]]:
        return self._told

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self._told.append(messages)
        answer = self.answers[min(len(self._told), len(self.answers)) - 1]
        return ChatResult(generations=[ChatGeneration(message=answer)])


def call(tool: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": "1"}])


class Call:
    """A live session, whose caller has said all of the speech and is silent."""

    def __init__(self, stream: undertone.SyncStream, events: list[undertone.Event]) -> None:
        self.stream = stream
        self.events = events
        self.config: Any = {"configurable": {lu.SESSION_KEY: stream.session_id}}

    def last(self, kind: type[Any]) -> Any:
        return [event for event in self.events if isinstance(event, kind)][-1]


@contextlib.contextmanager
def live(target: str, speech: Any, **options: Any) -> Iterator[Call]:
    audio = undertone.AudioFormat(sample_rate=speech.rate_hz)
    with undertone.SyncUndertone(target) as client, client.open(audio, **options) as stream:
        stream.send(speech.data)
        stream.mark("all said")
        events = []
        for event in stream:
            events.append(event)
            if isinstance(event, undertone.MarkReached):
                break
        yield Call(stream, events)


@pytest.fixture(scope="module")
def caller(server: Any, speech: Any, policy: str) -> Iterator[Call]:
    """A call with an escalation in force."""
    with live(server.address, speech, session_id="from-langchain", policy_yaml=policy) as call:
        yield call


async def invoke(runnable: Any, mode: str, *arguments: Any) -> Any:
    """In a thread, as a program without a loop would; or awaited."""
    if mode == "sync":
        return await asyncio.to_thread(runnable.invoke, *arguments)
    return await runnable.ainvoke(*arguments)


async def read(source: Any, mode: str, config: Any, **options: Any) -> lu.EmotionReading:
    if mode == "sync":
        return await asyncio.to_thread(source.read, config, **options)
    return await source.aread(config, **options)  # type: ignore[no-any-return]


@MODES
async def test_a_session_is_read_by_its_name(server: Any, caller: Call, mode: str) -> None:
    by_function = lu.SessionEmotions(server.address, session_id=lambda config: config["metadata"]["who"])
    for source, config in (
        (lu.SessionEmotions(server.address), caller.config),
        (lu.SessionEmotions(server.address, session_id="from-langchain"), {}),
        (by_function, {"metadata": {"who": "from-langchain"}}),
    ):
        reading = await read(source, mode, config, history=60)
        last = caller.last(undertone.Estimate)
        assert reading["known"] and reading["why_unknown"] is None
        assert reading["session_id"] == "from-langchain"
        assert reading["emotion"] == last.affect.top.value == "sad"
        assert reading["confidence"] == pytest.approx(last.affect.confidence, abs=1e-3)
        assert sum(reading["scores"].values()) == pytest.approx(1, abs=1e-3)
        assert reading["position"] == pytest.approx(last.end, abs=0.51)
        assert 0 <= reading["heard_ago"] < 1
        assert reading["severity"] == "high"
        assert reading["escalation_ids"] == [caller.last(undertone.EscalationEvent).escalation.id]
        moments = reading["history"]
        assert 4 <= len(moments) <= 8 and moments[0]["emotion"] == "neutral" and moments[-1]["emotion"] == "sad"
        assert [m["position"] for m in moments] == sorted(m["position"] for m in moments)
        assert json.loads(json.dumps(reading)) == reading
    assert (await read(lu.SessionEmotions(server.address), mode, caller.config))["history"] == []


@MODES
async def test_what_cannot_be_read_is_unknown_and_says_why(server: Any, nobody: str, mode: str) -> None:
    gone = await read(lu.SessionEmotions(server.address, session_id="nobody-of-this-name"), mode, {})
    away = await read(lu.SessionEmotions(nobody, session_id="anybody"), mode, {})
    assert not gone["known"] and "no such live session" in str(gone["why_unknown"])
    assert not away["known"] and nobody in str(away["why_unknown"])
    assert gone["emotion"] is away["emotion"] is None
    assert lu.describe(gone) is lu.describe(away) is None


async def test_one_who_has_hung_up_is_not_heard_now(server: Any, speech: Any) -> None:
    source = lu.SessionEmotions(server.address, session_id="over")
    with live(server.address, speech, session_id="over"):
        assert (await source.aread({}))["known"]
    # The server hears of it a moment later.
    for _ in range(200):
        reading = await source.aread({})
        if not reading["known"]:
            break
        await asyncio.sleep(0.05)
    assert not reading["known"] and "ended" in str(reading["why_unknown"])


def test_a_run_that_names_no_session_is_told_how_to(server: Any) -> None:
    with pytest.raises(ValueError, match=r"^session_id: .*undertone_session_id"):
        lu.SessionEmotions(server.address).read({})


@MODES
async def test_a_server_that_hangs_is_waited_for_no_longer_than_the_timeout(own_server: Any, mode: str) -> None:
    own_server.pause()
    started = time.monotonic()
    reading = await read(lu.SessionEmotions(own_server.address, session_id="x", timeout=0.3), mode, {})
    assert not reading["known"] and time.monotonic() - started < 2


async def test_a_server_that_returns_is_read_again(own_server: Any, speech: Any) -> None:
    source = lu.SessionEmotions(own_server.address, session_id="again")
    for _ in range(2):
        with live(own_server.address, speech, session_id="again", reconnect=None):
            assert (await source.aread({}))["known"]
            own_server.kill()
            assert not (await source.aread({}))["known"]
        own_server.start()
    assert not (await source.aread({}))["known"], "no session has begun since"


async def test_a_stream_of_this_process_is_read_from_any_thread(server: Any, speech: Any) -> None:
    emotions = lu.LiveEmotions()
    assert not emotions.read()["known"]
    source = undertone.sources.from_bytes(speech.data, undertone.AudioFormat(sample_rate=speech.rate_hz))
    stop, read_by_thread = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            read_by_thread.append(emotions.read(history=300))

    thread = threading.Thread(target=look)
    thread.start()
    async with undertone.Undertone(server.address) as client:
        await emotions.follow(client.stream(source))
    stop.set()
    thread.join()
    reading = await emotions.aread(history=300)
    assert reading["known"] and reading["emotion"] == "sad" and reading["session_id"]
    assert reading["history"][0]["emotion"] == "neutral"
    assert len({r["position"] for r in read_by_thread}) >= 2


def test_a_new_session_does_not_sound_like_the_one_before(caller: Call) -> None:
    emotions = lu.LiveEmotions()
    for event in caller.events:
        emotions.hear(event)
    assert emotions.read()["known"]
    emotions.hear(caller.events[0])
    assert not emotions.read()["known"]


@MODES
async def test_an_agent_asks_the_tool_and_gets_the_reading(server: Any, caller: Call, mode: str) -> None:
    model = ScriptedModel(answers=[call("how_the_user_sounds", history_seconds=10), AIMessage("I see.")])
    agent = create_agent(model, tools=lu.UndertoneToolkit(source=lu.SessionEmotions(server.address)).get_tools())
    state = await invoke(agent, mode, {"messages": [HumanMessage("hello")]}, caller.config)
    [message] = [m for m in state["messages"] if isinstance(m, ToolMessage)]
    assert message.status == "success"
    assert message.artifact["emotion"] == "sad" and message.artifact["history"]
    assert json.loads(str(message.content)) == message.artifact


@MODES
async def test_a_tool_of_a_server_that_is_away_does_not_break_the_agent(nobody: str, mode: str) -> None:
    for tool, said in (("how_the_user_sounds", "why_unknown"), ("list_escalations", "cannot be listed now")):
        model = ScriptedModel(answers=[call(tool), AIMessage("I see.")])
        tools = lu.UndertoneToolkit(source=lu.SessionEmotions(nobody, session_id="x")).get_tools()
        state = await invoke(create_agent(model, tools=tools), mode, {"messages": [HumanMessage("hello")]})
        [message] = [m for m in state["messages"] if isinstance(m, ToolMessage)]
        assert said in str(message.content) and state["messages"][-1].text == "I see."


def test_the_model_cannot_choose_the_session(server: Any) -> None:
    source = lu.SessionEmotions(server.address)
    tools = lu.UndertoneToolkit(source=source, acknowledge_as="an agent").get_tools()
    assert {tool.name: set(tool.args) for tool in tools} == {
        "how_the_user_sounds": {"history_seconds"},
        "list_escalations": {"open_only", "limit"},
        "acknowledge_escalation": {"escalation_id", "note"},
    }
    assert [tool.name for tool in lu.UndertoneToolkit(source=source).get_tools()] == [
        "how_the_user_sounds",
        "list_escalations",
    ]
    assert [t.name for t in lu.UndertoneToolkit(source=lu.LiveEmotions()).get_tools()] == ["how_the_user_sounds"]


@MODES
async def test_escalations_are_listed_and_acknowledged_of_this_session_only(
    server: Any, speech: Any, policy: str, caller: Call, mode: str
) -> None:
    with live(server.address, speech, session_id=f"to-acknowledge-{mode}", policy_yaml=policy) as other:
        tools = {
            tool.name: tool
            for tool in lu.UndertoneToolkit(
                source=lu.SessionEmotions(server.address), acknowledge_as="the night agent"
            ).get_tools()
        }

        async def use(name: str, **arguments: Any) -> ToolMessage:
            request = {"name": name, "args": arguments, "id": "1", "type": "tool_call"}
            return await invoke(tools[name], mode, request, other.config)  # type: ignore[no-any-return]

        [escalation] = (await use("list_escalations")).artifact
        assert escalation["title"] == "Sounds distressed" and escalation["severity"] == "high"
        assert escalation["id"] == other.last(undertone.EscalationEvent).escalation.id
        foreign = caller.last(undertone.EscalationEvent).escalation.id
        refused = await use("acknowledge_escalation", escalation_id=foreign)
        assert refused.artifact is None and "no such escalation" in str(refused.content)
        done = await use("acknowledge_escalation", escalation_id=escalation["id"], note="called back")
        assert done.artifact["acknowledged_by"] == "the night agent" and done.artifact["state"] == "acknowledged"
        again = await use("acknowledge_escalation", escalation_id=escalation["id"])
        assert "before; that stands" in str(again.content)
        assert (await use("list_escalations")).artifact == []
        assert len((await use("list_escalations", open_only=False)).artifact) == 1
    async with undertone.Undertone(server.address) as client:
        assert (await client.escalation(foreign)).escalation.acknowledged_by == ""


@MODES
async def test_the_model_is_told_once_in_the_system_prompt_and_never_in_the_messages(
    server: Any, caller: Call, mode: str
) -> None:
    middleware = lu.EmotionMiddleware(lu.SessionEmotions(server.address), min_confidence=0.3)
    for prompt in ("You are kind.", None):
        model = ScriptedModel(answers=[AIMessage("I see.")])
        agent = create_agent(model, system_prompt=prompt, middleware=[middleware], checkpointer=InMemorySaver())
        config = {"configurable": {"thread_id": mode, **caller.config["configurable"]}}
        for _ in range(3):
            state = await invoke(agent, mode, {"messages": [HumanMessage("hello")]}, config)
        for told in model.told:
            [system] = [m for m in told if isinstance(m, SystemMessage)]
            assert system.text.count("sounds sad") == 1
            assert system.text.startswith(prompt or "The user's voice")
        assert state["emotion"]["emotion"] == "sad"
        assert not any(isinstance(m, SystemMessage) or "sounds sad" in m.text for m in state["messages"])


@MODES
async def test_nothing_is_told_of_what_is_unsure_or_away(server: Any, nobody: str, caller: Call, mode: str) -> None:
    for middleware in (
        lu.EmotionMiddleware(lu.SessionEmotions(server.address), min_confidence=0.99),
        lu.EmotionMiddleware(lu.SessionEmotions(server.address), min_confidence=0.0, max_age=1e-9),
        lu.EmotionMiddleware(lu.SessionEmotions(nobody)),
        lu.EmotionMiddleware(lu.SessionEmotions(server.address), text=lambda reading: None),
    ):
        model = ScriptedModel(answers=[AIMessage("I see.")])
        agent = create_agent(model, system_prompt="You are kind.", middleware=[middleware])
        await invoke(agent, mode, {"messages": [HumanMessage("hello")]}, caller.config)
        assert [m.text for m in model.told[0]] == ["You are kind.", "hello"]


class State(MessagesState, lu.EmotionState):
    pass


@MODES
async def test_a_node_puts_the_reading_into_a_graphs_state(server: Any, caller: Call, mode: str) -> None:
    graph = StateGraph(State)
    # Two branches that read at the same time are no conflict.
    for name in ("one", "two"):
        graph.add_node(name, lu.listen(lu.SessionEmotions(server.address), history=5))
        graph.add_edge(START, name)
    app = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": mode, **caller.config["configurable"]}}
    state = await invoke(app, mode, {"messages": []}, config)
    assert state["emotion"]["emotion"] == "sad" and state["emotion"]["history"]
    kept = app.get_state(config).values["emotion"]
    assert kept == state["emotion"]


def reading(**fields: Any) -> lu.EmotionReading:
    base: dict[str, Any] = {
        "session_id": "s", "known": True, "why_unknown": None, "emotion": "sad", "confidence": 0.8, "scores": {},
        "valence": 0.0, "arousal": 0.0, "distress": 0.0, "position": 1.0, "heard_ago": 0.0, "read_at": time.time(),
        "severity": None, "escalation_ids": [], "history": [],
    }  # fmt: skip
    return lu.EmotionReading(**{**base, **fields})  # type: ignore[typeddict-item]


def test_the_later_reading_wins_in_whatever_order() -> None:
    early, late = reading(read_at=1.0), reading(read_at=2.0, known=False)
    assert lu.newest(early, late) is lu.newest(late, early) is late
    assert lu.newest(None, early) is lu.newest(early, None) is early


def test_a_reading_that_a_checkpoint_kept_goes_stale() -> None:
    assert lu.describe(reading()) is not None
    assert lu.describe(reading(read_at=time.time() - 3600)) is None
    assert lu.describe(reading(heard_ago=31.0)) is None
    assert lu.describe(reading(confidence=0.49)) is None
    assert lu.describe(reading(known=False)) is None
    assert lu.describe(None) is None


def test_a_long_history_is_thinned_and_keeps_its_newest(caller: Call) -> None:
    emotions = lu.LiveEmotions()
    last = caller.last(undertone.Estimate)
    emotions.hear(caller.events[0])
    for second in range(1000):
        emotions.hear(dataclasses.replace(last, end=float(second), evidence_end=float(second)))
    moments = emotions.read(history=300)["history"]
    assert 25 <= len(moments) <= 30 and moments[-1]["position"] == 999.0 and moments[0]["position"] >= 699.0


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: lu.SessionEmotions(timeout=0), "timeout"),
        (lambda: lu.EmotionMiddleware(lu.LiveEmotions(), min_confidence=2), "min_confidence"),
        (lambda: lu.EmotionMiddleware(lu.LiveEmotions(), max_age=0), "max_age"),
    ],
)
def test_bad_arguments_are_named(make: Any, argument: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: "):
        make()


async def test_reading_leaves_no_task_and_no_thread(server: Any, nobody: str, caller: Call) -> None:
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    for target in (server.address, nobody):
        source = lu.SessionEmotions(target)
        await source.aread(caller.config)
        source.read(caller.config)
    assert asyncio.all_tasks() == tasks and threading.active_count() == threads


def test_the_example_runs_and_ends(server: Any) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "examples" / "fake_agent.py", "--target", server.address, "--fast"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("voice now sounds sad", "the tool says", "the agent says: I am looking into it.", "is over"):
        assert line in done.stdout, done.stdout + done.stderr


def test_the_example_says_when_there_is_no_server(nobody: str) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "examples" / "fake_agent.py", "--target", nobody, "--fast"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "undertone serve" in done.stderr and "Traceback" not in done.stderr


async def test_the_code_of_the_readme_runs(server: Any, caller: Call) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    model = ScriptedModel(answers=[AIMessage("I see.")])
    names: dict[str, Any] = {
        "model": model,
        "messages": [HumanMessage("hello")],
        "session_id": caller.stream.session_id,
    }
    exec(blocks[0].replace("localhost:50051", server.address), names)
    exec(blocks[1], names)
    state = names["app"].invoke({"messages": [HumanMessage("hello")]}, caller.config)
    assert state["emotion"]["emotion"] == "sad" and state["messages"][-1].text == "I see."
    code = (
        blocks[2]
        .replace("localhost:50051", server.address)
        .replace("call.wav", str(HERE / "../../tests/data/hello.wav"))
    )
    imports, body = code.split("\n\n")
    exec(
        f"{imports}\nasync def main():\n" + "".join(f"    {line}\n" for line in body.splitlines()) + "    return live",
        names,
    )
    assert (await names["main"]()).read()["emotion"] == "sad"
    assert len(model.told) == 2
