"""Servers are killed and drained under a stream; it must say what it says when nobody disturbs it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator

import pytest
from server import POLICY, Server, binary, hello

from undertone import (
    Draining,
    Estimate,
    Event,
    Finished,
    FinishReason,
    MarkReached,
    Reconnect,
    Reconnected,
    ResumeRefused,
    Started,
    Stream,
    StreamClosed,
    Unavailable,
    Undertone,
)
from undertone.stream import CHUNK_BYTES

SPEECH = hello() * 3  # 21.9 s
CHUNK = 3_200
QUICK = Reconnect(first_wait=0.02, longest_wait=0.1)
OPTIONS = {"policy_yaml": POLICY, "session_id": "call-7", "checkpoint_interval": 1.0, "labels": {"patient": "7"}}


class Site:
    """Servers one after the other at one address, with the same keys and the same store."""

    def __init__(self, folder) -> None:
        key = subprocess.run([binary(), "resume-key"], check=True, capture_output=True, text=True).stdout
        (folder / "resume.keys").write_text(key)
        self._args = ("--resume-keys", folder / "resume.keys", "--escalation-store", f"sqlite:{folder}/store.db")
        self.server = Server(*self._args)
        self.address = self.server.address

    def restart(self) -> None:
        self.server = Server(*self._args, address=self.address)

    async def kill(self) -> None:
        self.server.kill()
        await asyncio.to_thread(self.restart)

    async def drain(self) -> None:
        """A new one comes when the old one has gone."""
        self.server.terminate()
        await asyncio.to_thread(self.server.__exit__)
        await asyncio.to_thread(self.restart)


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.server.__exit__()


def plain(event: Event) -> dict:
    """An event without what is another one in each run: moments, and probabilities beyond 1e-4."""

    def rounded(value):
        if isinstance(value, float):
            return round(value, 3)
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items() if key != "at" and not key.endswith("_at")}
        return [rounded(item) for item in value] if isinstance(value, list) else value

    return rounded(event.to_dict())


def by_kind(events: list[Event]) -> dict[str, list[dict]]:
    """The events of each kind in order. Those of escalations come when they are committed, among the others."""
    kinds: dict[str, list[dict]] = {}
    for event in events:
        if not isinstance(event, Reconnected):
            shown = plain(event)
            kinds.setdefault(shown["event"], []).append(shown)
    for estimate in kinds["estimate"]:
        # Known to the stream a moment later or sooner, as they are committed.
        del estimate["escalation_ids"], estimate["escalation_severity"]
    return kinds


def in_order(events: list[Event]) -> list[tuple[str, float]]:
    """What must come in the same order, whatever happens."""
    named = [(type(event).__name__, getattr(event, "end", getattr(event, "position", 0.0))) for event in events]
    return [(name, time) for name, time in named if name in ("Estimate", "Utterance", "MarkReached")]


async def say(stream: Stream, first: float, last: float) -> None:
    """Says a part of the speech, from and to seconds of it, with marks and a turn's end every second."""
    for at in range(int(first * 10), int(last * 10)):
        await stream.send(SPEECH[at * CHUNK : (at + 1) * CHUNK])
        if at % 10 == 5:
            await stream.mark("the same name")
        if at % 70 == 69:
            await stream.turn_end()


async def until(stream: Stream, heard: list[Event], wanted: Callable[[Event], bool]) -> None:
    """Listens until something is heard."""
    async for event in stream:
        heard.append(event)
        if wanted(event):
            return


def estimate_at(time: float) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, Estimate) and event.end >= time


async def talk(address: str, disturb: Callable[[], object], at: list[float]) -> list[Event]:
    """One stream, disturbed when it has come to these times."""
    heard: list[Event] = []
    async with Undertone(address) as u, u.open(reconnect=QUICK, **OPTIONS) as stream:
        said = 0.0
        for time in at:
            await say(stream, said, time)
            said = time
            await until(stream, heard, estimate_at(time - 1.0))
            await disturb()
        await say(stream, said, 22.0)
        await stream.end()
        heard += [event async for event in stream]
    return heard


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[Event]:
    site = Site(tmp_path_factory.mktemp("undisturbed"))
    try:
        return asyncio.run(talk(site.address, lambda: None, []))
    finally:
        site.server.__exit__()


def agree(heard: list[Event], undisturbed: list[Event]) -> None:
    assert in_order(heard) == in_order(undisturbed)
    theirs, ours = by_kind(undisturbed), by_kind(heard)
    assert ours.keys() == theirs.keys()
    for kind, events in theirs.items():
        assert ours[kind] == events, kind


def test_the_undisturbed_run_has_something_of_everything(undisturbed):
    kinds = by_kind(undisturbed)
    assert set(kinds) == {"started", "estimate", "utterance", "mark_reached", "escalation_event", "finished"}
    assert len(kinds["escalation_event"]) > 5
    assert len(kinds["utterance"]) > 2
    assert len(kinds["mark_reached"]) == 22


async def test_a_stream_whose_server_is_killed_three_times_says_what_it_says_undisturbed(site, undisturbed):
    heard = await talk(site.address, site.kill, [4.0, 9.5, 17.0])
    again = [event for event in heard if isinstance(event, Reconnected)]
    assert len(again) == 3
    assert 2.0 < again[0].position < again[1].position < again[2].position <= 17.0
    assert all(event.attempts >= 1 and event.downtime > 0 for event in again)
    agree(heard, undisturbed)


async def test_a_stream_whose_server_drains_twice_says_what_it_says_undisturbed(site, undisturbed):
    heard = await talk(site.address, site.drain, [6.0, 14.0])
    again = [event for event in heard if isinstance(event, Reconnected)]
    assert [event.reason for event in again] == ["DRAINING", "DRAINING"]
    # Drained with a checkpoint of what was heard by then: nothing of that had to be said twice.
    assert 5.0 <= again[0].position <= 6.0
    assert 13.0 <= again[1].position <= 14.0
    agree(heard, undisturbed)


async def test_a_stream_that_breaks_before_its_first_checkpoint_is_said_again_from_the_start(site):
    heard: list[Event] = []
    async with Undertone(site.address) as u, u.open(reconnect=QUICK, checkpoint_interval=60.0) as stream:
        name = stream.session_id
        await say(stream, 0.0, 6.0)
        await until(stream, heard, estimate_at(5.0))
        await site.kill()
        await stream.end()
        heard += [event async for event in stream]
        assert stream.session_id == name
    assert [event.position for event in heard if isinstance(event, Reconnected)] == [0.0]
    ends = [event.end for event in heard if isinstance(event, Estimate)]
    assert ends == sorted(set(ends))
    assert len([event for event in heard if isinstance(event, MarkReached)]) == 6
    assert len([event for event in heard if isinstance(event, Started)]) == 1
    assert heard[-1].audio == 6.0


async def test_audio_that_comes_while_the_server_is_away_is_not_lost(site):
    async with Undertone(site.address) as u, u.open(reconnect=QUICK, checkpoint_interval=1.0) as stream:
        heard: list[Event] = []
        await say(stream, 0.0, 3.0)
        await until(stream, heard, estimate_at(2.0))
        site.server.kill()
        assert stream.send_nowait(SPEECH[30 * CHUNK : 60 * CHUNK])
        await asyncio.to_thread(site.restart)
        await stream.end()
        heard += [event async for event in stream]
    assert heard[-1].audio == 6.0
    assert isinstance(heard[-1], Finished)


async def test_patience_has_an_end(site):
    reconnect = Reconnect(patience=0.3, first_wait=0.02, longest_wait=0.05)
    async with Undertone(site.address) as u, u.open(reconnect=reconnect) as stream:
        await stream.send(bytes(CHUNK))
        site.server.kill()
        with pytest.raises(Unavailable) as caught:
            async for _ in stream:
                pass
        with pytest.raises(Unavailable):
            await stream.send(bytes(CHUNK))
        with pytest.raises(Unavailable):
            stream.send_nowait(bytes(CHUNK))
    assert "is a server running there?" in str(caught.value)
    await asyncio.to_thread(site.restart)


@pytest.mark.parametrize("options", [{"reconnect": None}, {"checkpoint_interval": None}])
async def test_a_stream_that_shall_not_go_on_ends_with_its_server(site, options):
    async with Undertone(site.address) as u, u.open(**options) as stream:
        await stream.send(bytes(CHUNK))
        site.server.kill()
        with pytest.raises(Unavailable):
            async for _ in stream:
                pass
    await asyncio.to_thread(site.restart)


async def test_a_stream_that_cannot_go_on_is_told_that_its_server_drains(site):
    async with Undertone(site.address) as u, u.open(checkpoint_interval=None) as stream:
        heard: list[Event] = []
        await say(stream, 0.0, 3.0)
        await until(stream, heard, estimate_at(2.0))
        site.server.terminate()
        await until(stream, heard, lambda event: isinstance(event, Draining))
        heard += [event async for event in stream]
        with pytest.raises(StreamClosed):
            await stream.send(bytes(CHUNK))
    assert heard[-1].reason is FinishReason.DRAINING
    await asyncio.to_thread(site.server.__exit__)
    await asyncio.to_thread(site.restart)


async def test_a_server_with_other_keys_refuses_for_good():
    heard: list[Event] = []
    with Server("--escalation-store", "") as server:
        address = server.address
        async with Undertone(address) as u, u.open(reconnect=QUICK, checkpoint_interval=1.0) as stream:
            await say(stream, 0.0, 4.0)
            await until(stream, heard, estimate_at(3.0))
            server.kill()
            other = await asyncio.to_thread(Server, "--escalation-store", "", address=address)
            with other, pytest.raises(ResumeRefused) as caught:
                await until(stream, heard, lambda _: False)
    assert caught.value.reason == "RESUME_KEY_UNKNOWN"
    assert "open another stream" in str(caught.value)


async def test_a_server_without_checkpoints_is_streamed_to_all_the_same():
    with Server("--escalation-store", "", "--resume-window", "0s") as server:
        async with Undertone(server.address) as u, u.open() as stream:
            assert stream.started.checkpoint_interval is None
            await say(stream, 0.0, 3.0)
            await stream.end()
            assert isinstance([event async for event in stream][-1], Finished)


class Cutter:
    """A way to the server that can be cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self._copies: set[asyncio.Task[None]] = set()
        self.accepted = 0

    async def __aenter__(self) -> Cutter:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.wait(self._copies)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, back]
        for copy in (self._copy(reader, back), self._copy(there, writer)):
            self._copies.add(asyncio.create_task(copy))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


async def test_ten_streams_over_a_way_that_is_cut_again_and_again_hear_everything_once(server):
    """Cut in the midst of everything; the streams share their new connections."""
    speech = hello()
    told = 0
    cuts = [140, 110, 75, 40]

    async def listen(u: Undertone, way: Cutter | None) -> list[Event]:
        nonlocal told
        heard: list[Event] = []
        async with u.open(reconnect=QUICK, checkpoint_interval=1.0) as stream:
            await stream.send(speech)
            await stream.end()
            async for event in stream:
                heard.append(event)
                told += 1
                if way is not None and cuts and told >= cuts[-1]:
                    cuts.pop()
                    way.cut()
        return heard

    async with Undertone(server.address) as u:
        undisturbed = in_order(await listen(u, None))
    async with Cutter(server.port) as way, Undertone(way.address) as u:
        heard = await asyncio.gather(*(listen(u, way) for _ in range(10)))
    assert not cuts
    for events in heard:
        assert in_order(events) == undisturbed
        assert events[-1].audio == len(speech) / 32_000
    assert sum(isinstance(event, Reconnected) for events in heard for event in events) > 5
    assert way.accepted < 20


def test_chunks_are_small_enough_for_any_server():
    assert CHUNK_BYTES <= 65_536
