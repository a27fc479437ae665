"""A feed: what is pushed never waits, and what goes wrong is told once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from fake import refuse, started, streaming
from server import PATIENCE_S, Server, hello

from undertone import (
    AudioDropped,
    AudioFormat,
    Estimate,
    Feed,
    FeedCounts,
    Finished,
    InvalidRequest,
    NotFound,
    ResumeRefused,
    Started,
    Stream,
    Unavailable,
    Undertone,
    Utterance,
)
from undertone._generated.undertone.v1 import emotion_service_pb2 as pb

CHUNK = 640  # 20 ms


class Log:
    """What a feed says, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.troubles: list[tuple[Exception, bool]] = []
        self.recovered = 0
        self._changed = asyncio.Event()

    @property
    def callbacks(self) -> dict[str, Any]:
        return {"on_event": self.on_event, "on_trouble": self.on_trouble, "on_recovered": self.on_recovered}

    async def on_event(self, event: Any) -> None:
        self.events.append(event)
        self._changed.set()

    async def on_trouble(self, error: Exception, final: bool) -> None:
        self.troubles.append((error, final))
        self._changed.set()

    async def on_recovered(self) -> None:
        self.recovered += 1
        self._changed.set()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, holds: Callable[[], Any]) -> None:
        async def wait() -> None:
            while not holds():
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(wait(), PATIENCE_S)


def say(feed: Feed, first: float, last: float) -> None:
    """Pushes a part of the speech, from and to seconds of it."""
    speech = hello()[int(first * 32_000) : int(last * 32_000)]
    for at in range(0, len(speech), CHUNK):
        feed.push(speech[at : at + CHUNK])


def own_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("undertone-feed")]


async def test_all_that_was_pushed_is_heard_out_at_the_end(target):
    log = Log()
    async with Undertone(target) as u, Feed(u, **log.callbacks, buffer=60.0, labels={"ward": "3b"}) as feed:
        assert (feed.connected, feed.session_id) == (False, "")
        say(feed, 0.0, 8.0)
        await log.until(lambda: log.of(Estimate))
        assert feed.connected
        await feed.finish(PATIENCE_S)
        assert not feed.connected
        feed.push(bytes(32_000))
        counts = feed.counts
    assert isinstance(log.events[0], Started)
    assert log.events[0].labels == {"ward": "3b"}
    assert feed.session_id == log.events[0].session_id
    assert isinstance(log.events[-1], Finished)
    assert log.events[-1].audio == len(hello()) / 32_000
    assert (log.troubles, log.recovered) == ([], 0)
    assert counts.audio == pytest.approx(len(hello()) / 32_000)
    assert counts.dropped == pytest.approx(1.0), "what comes after the end"
    assert counts.estimates == counts.delays == len(log.of(Estimate)) > 10
    assert counts.abstained == len([event for event in log.of(Estimate) if event.abstains])
    assert 0 < counts.delay_sum / counts.delays <= counts.delay_max < PATIENCE_S


def test_counts_are_compared_with_earlier_ones():
    before, now = FeedCounts(1.0, 0.5, 2, 1, 2, 0.2, 0.15), FeedCounts(4.0, 0.5, 8, 2, 8, 1.4, 0.3)
    assert now.since(before) == FeedCounts(3.0, 0.0, 6, 1, 6, pytest.approx(1.2), 0.3)


async def test_what_does_not_fit_goes_oldest_first_and_is_said_once(target):
    log = Log()
    async with Undertone(target) as u, Feed(u, **log.callbacks, buffer=2.0) as feed:
        # The loop does not run meanwhile: nothing can be sent yet.
        feed.push(bytes(32_000 * 5))
        assert feed.counts.dropped == 5.0, "a chunk longer than the buffer fits never"
        say(feed, 0.0, 7.0)
        assert feed.counts.dropped == pytest.approx(10.0)
        await log.until(lambda: log.recovered)
        await feed.finish(PATIENCE_S)
    [(error, final)] = log.troubles
    assert isinstance(error, AudioDropped)
    assert "2 s" in str(error)
    assert not final
    assert log.recovered == 1
    assert log.events[-1].audio == pytest.approx(2.0)


async def test_a_server_that_takes_nothing_is_told_of_and_holds_no_more_than_the_buffer():
    release = asyncio.Event()

    async def slow(requests, context):
        yield started(await anext(requests))
        await release.wait()
        async for _ in requests:
            yield pb.StreamEmotionResponse(warning=pb.Warning(message="it is back"))

    log = Log()
    async with streaming(slow) as address, Undertone(address) as u, Feed(u, **log.callbacks, buffer=3.0) as feed:
        pushed = 0
        while not log.troubles:
            feed.push(bytes(32_000))
            pushed += 1
            assert feed._waits <= 3.0
            assert pushed < 1_000
            # The sender's turn.
            for _ in range(20):
                await asyncio.sleep(0)
        for _ in range(100):
            feed.push(bytes(32_000))
        # No more than three of them fit, however many the sender took before.
        assert feed.counts.dropped >= 97.0
        assert isinstance(log.troubles[0][0], AudioDropped)
        release.set()
        await log.until(lambda: log.recovered)
        assert feed.connected
    assert len(log.troubles) == log.recovered == 1


async def test_audio_of_another_format_is_dropped_and_said_once(target):
    log = Log()
    async with Undertone(target) as u, Feed(u, **log.callbacks, buffer=60.0) as feed:
        say(feed, 0.0, 1.0)
        for _ in range(50):
            feed.push(bytes(960), AudioFormat(sample_rate=24_000))
        say(feed, 1.0, 8.0)
        await feed.finish(PATIENCE_S)
    [(error, final)] = log.troubles
    assert isinstance(error, AudioDropped)
    assert "24000 Hz" in str(error)
    assert "16000 Hz" in str(error)
    assert not final
    assert feed.counts.dropped == pytest.approx(1.0)
    assert log.events[-1].audio == len(hello()) / 32_000


async def test_where_nobody_listens_it_is_said_once_and_the_end_waits_for_nothing():
    with Server("--escalation-store", "") as server:
        address = server.address
    log = Log()
    async with Undertone(address) as u, Feed(u, **log.callbacks, buffer=1.0) as feed:
        say(feed, 0.0, 0.5)
        await log.until(lambda: log.troubles)
        say(feed, 0.0, 7.0)
        assert not feed.connected
        await asyncio.wait_for(feed.finish(1_000.0), 5.0)
    [(error, final)] = log.troubles
    assert isinstance(error, Unavailable)
    assert not final
    assert feed.counts.dropped == pytest.approx(6.5)


async def test_a_session_that_is_lost_for_good_is_followed_by_another_one():
    log, connected = Log(), []

    async def on_trouble(error: Exception, final: bool) -> None:
        connected.append(feed.connected)
        await log.on_trouble(error, final)

    with Server("--escalation-store", "", "--max-realtime-factor", "0") as server:
        address = server.address
        async with (
            Undertone(address) as u,
            Feed(u, **{**log.callbacks, "on_trouble": on_trouble}, buffer=60.0, checkpoint_interval=1.0) as feed,
        ):
            say(feed, 0.0, 8.0)
            await log.until(lambda: any(event.end > 6.4 for event in log.of(Estimate)))
            server.kill()
            # It has other keys.
            with await asyncio.to_thread(Server, "--escalation-store", "", address=address):
                await log.until(lambda: log.recovered)
                say(feed, 0.0, 8.0)
                await feed.finish(PATIENCE_S)
    [(error, final)] = log.troubles
    assert isinstance(error, ResumeRefused)
    assert (final, connected, log.recovered) == (False, [False], 1)
    one, other = [event.session_id for event in log.of(Started)]
    assert one != other == feed.session_id
    assert log.events[-1].audio == len(hello()) / 32_000


async def test_a_connection_that_is_mended_is_no_trouble_but_shows(monkeypatch):
    """Of a stream and of a feed: `connected` says how it is."""
    connections = 0
    seen: list[tuple[bool, bool]] = []
    real = asyncio.sleep

    async def breaking(requests, context):
        nonlocal connections
        connections += 1
        yield started(await anext(requests))
        if connections == 1:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "gone", "ENGINE_FAILED", retry_s=0)
        yield pb.StreamEmotionResponse(warning=pb.Warning(message="it is back"))
        async for _ in requests:
            pass
        yield pb.StreamEmotionResponse(finished=pb.Finished())

    async def sleep(seconds: float) -> None:
        assert feed._stream is not None
        seen.append((feed._stream.connected, feed.connected))
        await real(0)

    log = Log()
    monkeypatch.setattr("undertone._carrier.asyncio.sleep", sleep)
    async with streaming(breaking) as address, Undertone(address) as u, Feed(u, **log.callbacks) as feed:
        feed.push(bytes(CHUNK))
        await log.until(lambda: len(log.events) == 3)
        assert feed.connected
        await feed.finish(PATIENCE_S)
    assert [type(event).__name__ for event in log.events] == ["Started", "Reconnected", "StreamWarning", "Finished"]
    assert seen == [(False, False)]
    assert not log.troubles


async def test_a_refusal_is_final(target):
    log = Log()
    async with Undertone(target) as u, Feed(u, **log.callbacks, policy="no-such-policy") as feed:
        feed.push(bytes(CHUNK))
        await log.until(lambda: log.troubles)
        feed.push(bytes(32_000))
        feed.turn_end()
        assert feed.counts.dropped == 1.0
        await feed.finish(PATIENCE_S)
    [(error, final)] = log.troubles
    assert isinstance(error, NotFound)
    assert "no-such-policy" in str(error)
    assert final
    assert not log.events


@pytest.mark.parametrize("mistake", [KeyError("mood"), NotFound("no such escalation"), OSError("no such file")])
async def test_what_a_callback_raises_is_told_and_ends_the_feed(target, mistake):
    async def on_event(event: Any) -> None:
        raise mistake

    log = Log()
    async with Undertone(target) as u, Feed(u, **{**log.callbacks, "on_event": on_event}) as feed:
        feed.push(bytes(CHUNK))
        await log.until(lambda: log.troubles)
        assert not feed.connected
    assert log.troubles == [(mistake, True)]


async def test_what_fails_while_audio_is_sent_is_told_while_the_stream_is_open(target, monkeypatch):
    def failing(self: Stream) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Stream, "turn_end", failing)
    log = Log()
    async with Undertone(target) as u, Feed(u, **log.callbacks) as feed:
        feed.push(bytes(CHUNK))
        await log.until(lambda: log.of(Started))
        assert not log.troubles
        feed.turn_end()
        await log.until(lambda: log.troubles)
        [(error, final)] = log.troubles
        assert isinstance(error, ZeroDivisionError)
        assert final
        assert not feed.connected


async def test_what_on_trouble_raises_goes_to_the_loops_handler():
    heard: list[dict[str, Any]] = []
    told = asyncio.Event()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # gRPC may complain here of the loops of earlier tests.
        if "Feed" in context["message"]:
            heard.append(context)
            told.set()

    async def on_event(event: Any) -> None: ...

    async def on_trouble(error: Exception, final: bool) -> None:
        raise RuntimeError("nobody is at home")

    asyncio.get_running_loop().set_exception_handler(handle)
    async with Undertone("127.0.0.1:1") as u, Feed(u, on_event=on_event, on_trouble=on_trouble) as feed:
        feed.push(bytes(CHUNK))
        await asyncio.wait_for(told.wait(), PATIENCE_S)
    assert [str(context["exception"]) for context in heard] == ["nobody is at home"]


async def test_the_users_turn_ends_the_utterance_and_idle_turns_do_not_pile_up(target):
    log = Log()
    async with Undertone(target) as u, Feed(u, **log.callbacks, buffer=60.0) as feed:
        feed.turn_start()
        # In the middle of a sentence: without the turn the utterance would go on.
        say(feed, 0.0, 2.5)
        for _ in range(100):
            feed.turn_end()
            feed.turn_start()
        assert len(feed._queue) == 125 + 2
        await log.until(lambda: log.of(Utterance))
    assert log.of(Utterance)[0].end <= 2.6


async def test_closing_leaves_no_task_and_calls_nothing_back(target):
    for address, seen in ((target, "events"), ("127.0.0.1:1", "troubles")):
        log = Log()
        async with Undertone(address) as u:
            feed = Feed(u, **log.callbacks)
            say(feed, 0.0, 2.0)
            await log.until(lambda log=log, seen=seen: getattr(log, seen))
            await feed.close()
            assert not own_tasks()
            assert not feed.connected
            said = len(log.events)
            feed.push(bytes(CHUNK))
            await feed.close()
            await feed.finish()
            assert len(log.events) == said
    assert not own_tasks()


async def test_a_callback_may_close_the_feed(target):
    log, closed = Log(), asyncio.Event()

    async def on_event(event: Any) -> None:
        await log.on_event(event)
        await feed.close()
        closed.set()

    async with Undertone(target) as u:
        feed = Feed(u, **{**log.callbacks, "on_event": on_event}, buffer=60.0)
        say(feed, 0.0, 8.0)
        [running] = own_tasks()
        await asyncio.wait_for(closed.wait(), PATIENCE_S)
        await asyncio.wait_for(running, PATIENCE_S)
    assert [type(event) for event in log.events] == [Started]
    assert not log.troubles


async def test_a_feed_without_audio_ends_at_once(target):
    log = Log()
    async with Undertone(target) as u, Feed(u, **log.callbacks) as feed:
        feed.turn_start()
        feed.push(b"")
        assert not own_tasks()
        await feed.finish(1_000.0)
    assert not log.events


async def test_a_client_that_was_closed_is_told_of(target):
    log = Log()
    u = Undertone(target)
    async with Feed(u, **log.callbacks) as feed:
        feed.push(bytes(CHUNK))
        await log.until(lambda: log.of(Started))
        await u.close()
        await log.until(lambda: any(final for _, final in log.troubles))
    assert "the client is closed" in str(log.troubles[-1][0])


def test_bad_arguments_are_refused_when_it_is_made():
    log = Log()
    u = Undertone("localhost:1")
    for buffer in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidRequest, match="buffer: must be above 0"):
            Feed(u, **log.callbacks, buffer=buffer)
    with pytest.raises(InvalidRequest, match="policy_yaml"):
        Feed(u, **log.callbacks, policy="a", policy_yaml="b")
    with pytest.raises(TypeError, match="estimate_intervall"):
        Feed(u, **log.callbacks, estimate_intervall=1.0)
