"""The client for plain threads, and Ctrl-C in both."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from fake import streaming
from server import DATA, HELLO, PATIENCE_S, hello

import undertone
from undertone import (
    Estimate,
    Finished,
    InvalidRequest,
    MarkReached,
    Started,
    StreamClosed,
    SyncStream,
    SyncUndertone,
    Undertone,
    sources,
)


def test_it_hears_what_the_other_client_hears(target):
    async def listen():
        async with Undertone(target) as u:
            return [event async for event in u.stream(sources.from_file(HELLO), session_id="same")]

    with SyncUndertone(target) as u:
        heard = list(u.stream(sources.from_file(HELLO), session_id="same"))
    assert [type(event) for event in heard] == [type(event) for event in asyncio.run(listen())]


def test_audio_is_pushed_from_one_thread_and_events_are_read_in_another(target):
    with SyncUndertone(target) as u, u.open() as stream:

        def speak():
            for first in range(0, len(hello()), 3_200):
                stream.send(hello()[first : first + 3_200])
            stream.mark("all said")
            stream.turn_start()
            stream.turn_end()
            stream.end()

        speaking = threading.Thread(target=speak)
        assert stream.connected
        speaking.start()
        events = list(stream)
        speaking.join()
        assert not stream.connected
        with pytest.raises(StopIteration):
            next(stream)
    assert isinstance(events[0], Started)
    assert stream.session_id == stream.started.session_id == events[0].session_id
    assert [event.name for event in events if isinstance(event, MarkReached)] == ["all said"]
    assert isinstance(events[-1], Finished)
    with pytest.raises(StreamClosed):
        stream.send(b"\0\0")


def test_many_threads_share_one_client(target):
    with SyncUndertone(target) as u:
        ended: list[float] = []

        def listen():
            ended.append(list(u.stream(sources.from_bytes(hello())))[-1].audio)

        threads = [threading.Thread(target=listen) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ended == [len(hello()) / 32_000] * 8


def test_a_plain_iterable_is_read_in_a_thread_of_its_own(target):
    names = set()

    def chunks():
        for first in range(0, len(hello()), 32_000):
            names.add(threading.current_thread().name)
            yield hello()[first : first + 32_000]

    with SyncUndertone(target) as u:
        events = list(u.stream(sources.from_iterable(chunks(), undertone.AudioFormat())))
    assert isinstance(events[-1], Finished)
    assert "MainThread" not in names
    assert "undertone" not in names


def test_its_other_calls_answer(target):
    with SyncUndertone(target) as u:
        assert [model.is_default for model in u.models()] == [True]
        assert u.model().name == u.models()[0].name
        assert "care-call" in [policy.name for policy in u.policies()]
        assert u.analyze(DATA / "tone_24k.mp3").audio == pytest.approx(1.0, abs=0.1)
        with pytest.raises(InvalidRequest):
            u.open(session_id="two words").__enter__()


def test_who_leaves_the_loop_early_and_closes_can_ask_no_more(target):
    with SyncUndertone(target) as u:
        for event in u.stream(sources.from_bytes(hello() * 100)):
            if isinstance(event, Estimate):
                break
    with pytest.raises(RuntimeError, match="closed"):
        u.models()
    with pytest.raises(RuntimeError, match="closed"):
        list(u.stream(sources.from_bytes(b"")))
    u.close()


def test_clients_share_a_thread(target):
    with SyncUndertone(target) as one, SyncUndertone(target) as other:
        one.models()
        other.models()
    assert len([thread for thread in threading.enumerate() if thread.name == "undertone"]) == 1


async def test_both_clients_get_along_in_one_process(target, caplog):
    def listen():
        with SyncUndertone(target) as u:
            return [list(u.stream(sources.from_bytes(hello())))[-1].audio for _ in range(3)]

    async with Undertone(target) as u:
        plain = asyncio.create_task(asyncio.to_thread(listen))
        for _ in range(3):
            assert isinstance([event async for event in u.stream(sources.from_bytes(hello()))][-1], Finished)
        assert await plain == [len(hello()) / 32_000] * 3
    assert not caplog.records


def test_send_nowait_says_when_there_is_no_room():
    async def serve(stop: asyncio.Event, found: list[str], ready: threading.Event):
        async def silent(requests, context):
            from fake import started

            yield started(await anext(requests))
            await stop.wait()

        async with streaming(silent) as address:
            found.append(address)
            ready.set()
            await stop.wait()

    loop, found, ready = asyncio.new_event_loop(), [], threading.Event()
    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(stop, found, ready),))
    thread.start()
    assert ready.wait(PATIENCE_S)
    with SyncUndertone(found[0]) as u, u.open(buffer=0.1) as stream:
        sent = 0
        while stream.send_nowait(bytes(320_000)):
            sent += 1
        assert sent > 0
        stream.close()
        with pytest.raises(StreamClosed):
            stream.send_nowait(b"\0\0")
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def public(cls: type) -> dict[str, list[str]]:
    methods = inspect.getmembers(cls, lambda member: inspect.isfunction(member) or isinstance(member, property))
    return {
        name: [] if isinstance(method, property) else list(inspect.signature(method).parameters)
        for name, method in methods
        if not name.startswith("_")
    }


def test_both_clients_have_the_same_calls_with_the_same_arguments():
    assert public(SyncUndertone) == public(Undertone)
    ours = public(undertone.Stream)
    del ours["abort"]
    assert public(SyncStream).keys() | {"format"} == ours.keys() | {"format"}
    for name, arguments in ours.items():
        assert public(SyncStream).get(name, arguments) == arguments


ASYNC = """
import asyncio, sys
from undertone import Undertone, sources
async def main():
    async with Undertone(sys.argv[1]) as u:
        async for event in u.stream(sources.from_bytes(bytes(32_000 * 600), realtime=True)):
            print(type(event).__name__, flush=True)
asyncio.run(main())
"""
PLAIN = """
import sys
from undertone import SyncUndertone, sources
with SyncUndertone(sys.argv[1]) as u:
    for event in u.stream(sources.from_bytes(bytes(32_000 * 600), realtime=True)):
        print(type(event).__name__, flush=True)
"""
PUSHED = """
import sys
from undertone import SyncUndertone
with SyncUndertone(sys.argv[1]) as u, u.open() as stream:
    print("Started", flush=True)
    for event in stream:
        pass
"""
FORGOTTEN = """
import sys
from undertone import SyncUndertone
u = SyncUndertone(sys.argv[1])
stream = u.open().__enter__()
print("Started", flush=True)
next(stream), next(stream)
"""


@pytest.mark.parametrize("script", [ASYNC, PLAIN, PUSHED, FORGOTTEN], ids=["async", "plain", "pushed", "forgotten"])
def test_ctrl_c_ends_it_at_once_and_cleanly(target, script):
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", script, target],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONASYNCIODEBUG": ""},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "Started\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGINT
    assert time.monotonic() - began < 5
    assert error.rstrip().endswith("KeyboardInterrupt")
    for noise in ("never retrieved", "was destroyed", "Exception ignored", "Fatal", "never awaited", "ResourceWarning"):
        assert noise not in error, error
