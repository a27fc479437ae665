"""A stream as its user sees it."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from fake import refuse, started, streaming
from server import hello

from undertone import (
    AbstainReason,
    AudioFormat,
    ChannelMode,
    ChannelRole,
    ConnectionFailed,
    Emotion,
    Encoding,
    Estimate,
    Finished,
    FinishReason,
    InvalidRequest,
    MarkReached,
    Overloaded,
    Reconnect,
    ServerError,
    Started,
    StreamClosed,
    TakenOver,
    TimedOut,
    Undertone,
    Utterance,
    VoiceActivity,
    sources,
)
from undertone._events import EVENTS
from undertone._generated.undertone.v1 import emotion_service_pb2 as pb


async def test_a_file_is_started_estimated_and_finished(target):
    async with Undertone(target) as u:
        source = sources.from_bytes(hello())
        events = [e async for e in u.stream(source, session_id="call-8", labels={"ward": "3b"}, estimate_interval=1.0)]
    begun, ended = events[0], events[-1]
    assert isinstance(begun, Started)
    assert isinstance(ended, Finished)
    assert (begun.session_id, begun.labels, begun.estimate_interval) == ("call-8", {"ward": "3b"}, 1.0)
    assert begun.model.is_default
    assert begun.checkpoint_interval == 5.0
    estimates = [event for event in events if isinstance(event, Estimate)]
    assert len(estimates) == ended.estimates == 7
    for estimate in estimates:
        assert sum(estimate.affect.scores.values()) == pytest.approx(1.0, abs=1e-5)
        assert estimate.affect.scores[estimate.affect.top] == estimate.affect.confidence
        assert isinstance(estimate.affect.top, Emotion)
        assert 0.0 <= estimate.start <= estimate.evidence_end <= estimate.end
        assert estimate.abstains == (estimate.abstain_reason is not None)
    [utterance] = [event for event in events if isinstance(event, Utterance)]
    assert (utterance.index, ended.channels[0].utterances) == (0, 1)
    assert ended.reason is FinishReason.CLIENT
    assert ended.audio == len(hello()) / 32_000
    assert ended.chunks == 74


async def test_events_are_json(target):
    async with Undertone(target) as u:
        events = [event async for event in u.stream(sources.from_bytes(hello()))]
    shown = [json.loads(json.dumps(event.to_dict(), allow_nan=False)) for event in events]
    assert [event["event"] for event in shown][:2] == ["started", "estimate"]
    assert shown[1]["affect"]["scores"].keys() == {emotion.value for emotion in Emotion}
    assert shown[0]["model"]["kind"] == "streaming_mfcc"
    assert shown[0]["limits"]["max_audio"] == 14_400.0


async def test_a_stream_can_be_talked_to(target):
    async with Undertone(target) as u, u.open(AudioFormat(Encoding.MULAW, 8_000), policy="care-call") as stream:
        assert stream.session_id == stream.started.session_id != ""
        assert isinstance(await anext(stream), Started)
        await stream.send(bytearray(1_600))
        await stream.mark("here")
        assert await anext(stream) == MarkReached("here", 0.2)
        await stream.turn_start()
        await stream.send(memoryview(bytes(800)))
        await stream.turn_end()
        await stream.acknowledge("01a21980-5eca-7004-8f63-db9cc06e9511", actor="a test")
        warning = await anext(stream)
        assert warning.reason.value == "not_acknowledged"
        await stream.end()
        await stream.end()
        assert [type(event) async for event in stream] == [Finished]
        assert [event async for event in stream] == []


async def test_long_audio_is_cut_and_odd_pieces_are_put_together(target):
    samples = hello()
    async with Undertone(target) as u:
        async with u.open() as stream:
            await stream.send(samples)
            await stream.end()
            whole = [event async for event in stream][-1]
        async with u.open() as stream:
            for first in range(0, len(samples), 3_333):
                await stream.send(samples[first : first + 3_333])
            await stream.end()
            pieces = [event async for event in stream][-1]
    assert whole.audio == pieces.audio
    assert whole.channels[0].affect.top is pieces.channels[0].affect.top
    assert (whole.chunks, pieces.chunks) == (8, 71)


async def test_channels_are_told_apart(target):
    samples = memoryview(hello()).cast("h")
    stereo = bytearray(len(samples) * 4)
    memoryview(stereo).cast("h")[1::2] = samples
    audio = AudioFormat(channels=2, roles=(ChannelRole.AGENT, ChannelRole.SUBJECT), mode=ChannelMode.SEPARATE)
    async with Undertone(target) as u:
        events = [event async for event in u.stream(sources.from_bytes(bytes(stereo), audio))]
    assert {event.channel for event in events if isinstance(event, Estimate)} == {1}


async def test_what_is_not_wanted_does_not_come(target):
    async with Undertone(target) as u:
        voice = VoiceActivity(on_threshold=0.7, off_threshold=0.3, min_speech=0.1, hang_over=0.2)
        options = {
            "utterances": False,
            "warnings": False,
            "voice_activity": voice,
            "min_speech": 10.0,
        }
        events = [event async for event in u.stream(sources.from_bytes(hello()), **options)]
    assert {type(event) for event in events} == {Started, Estimate, Finished}
    estimates = [event for event in events if isinstance(event, Estimate)]
    assert {event.abstain_reason for event in estimates} == {AbstainReason.TOO_LITTLE_SPEECH}
    assert all(event.abstains for event in estimates)


async def test_who_sends_after_the_end_is_told(target):
    async with Undertone(target) as u:
        async with u.open() as stream:
            await stream.end()
            with pytest.raises(StreamClosed, match="open another one"):
                await stream.send(b"\0\0")
        with pytest.raises(StreamClosed):
            stream.send_nowait(b"\0\0")


async def test_a_stream_is_opened_once_and_only_then_known(target):
    async with Undertone(target) as u:
        stream = u.open()
        with pytest.raises(RuntimeError, match="async with"):
            _ = stream.session_id
        async with stream:
            pass
        with pytest.raises(RuntimeError, match="once"):
            await stream.__aenter__()


async def test_bad_options_name_their_field(target):
    async with Undertone(target) as u:
        with pytest.raises(InvalidRequest) as caught:
            await u.open(estimate_interval=0.01).__aenter__()
        assert caught.value.fields[0][0] == "config.estimate_interval"
        with pytest.raises(InvalidRequest, match="policy_yaml"):
            u.open(policy="a", policy_yaml="b")
        with pytest.raises(InvalidRequest, match="no_policy"):
            u.open(policy="a", no_policy=True)
        for value in (float("nan"), float("inf"), 1e30, "1s"):
            with pytest.raises(InvalidRequest, match="checkpoint_interval must be a time in seconds"):
                u.open(checkpoint_interval=value)
        with pytest.raises(TypeError, match="estimate_intervall"):
            u.open(estimate_intervall=1.0)


async def test_streams_that_were_left_open_end_with_their_client(target):
    async with Undertone(target) as u:
        stream = await u.open().__aenter__()
        listening = asyncio.create_task(_listen(stream))
        await stream.mark("alive")
    assert type((await listening)[0]) is Started
    assert not any("Carrier" in repr(task) for task in asyncio.all_tasks())


async def _listen(stream):
    return [event async for event in stream]


async def test_a_hundred_streams_share_a_connection_and_more_get_another(target):
    """A server takes 256 calls on a connection and lets more wait for ever."""
    async with Undertone(target) as u:
        streams = await asyncio.gather(*(u.open().__aenter__() for _ in range(130)))
        assert len({stream.session_id for stream in streams}) == 130
        assert len(u._channels._open) == 2


async def test_a_server_that_takes_no_stream_is_not_waited_for_without_end():
    async def silent(requests, context):
        await asyncio.Event().wait()
        yield

    async with streaming(silent) as address, Undertone(address, timeout=0.1) as u:
        with pytest.raises(ConnectionFailed, match=r"within 0.1 s"):
            await u.open().__aenter__()


async def test_cancelled_while_it_opens_it_leaves_nothing_behind():
    arrived = asyncio.Event()

    async def silent(requests, context):
        arrived.set()
        await asyncio.Event().wait()
        yield

    async with streaming(silent) as address, Undertone(address) as u:
        opening = asyncio.create_task(u.open().__aenter__())
        await arrived.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert not u._streams


async def test_the_client_closed_while_a_stream_opens_says_so():
    arrived = asyncio.Event()

    async def silent(requests, context):
        arrived.set()
        await asyncio.Event().wait()
        yield

    async with streaming(silent) as address, Undertone(address) as u:
        opening = asyncio.create_task(u.open().__aenter__())
        await arrived.wait()
        await u.close()
        with pytest.raises(StreamClosed):
            await opening


# What a server does that the real one does only under load.


async def test_a_server_that_takes_nothing_makes_its_client_wait_and_bounds_its_memory():
    release = asyncio.Event()
    received = 0

    async def slow(requests, context):
        nonlocal received
        yield started(await anext(requests))
        await release.wait()
        async for request in requests:
            received += len(request.audio.data)
        yield pb.StreamEmotionResponse(finished=pb.Finished())

    reconnect = Reconnect(kept_bytes=100_000)
    async with (
        streaming(slow) as address,
        Undertone(address) as u,
        u.open(buffer=1.0, reconnect=reconnect) as stream,
    ):
        sent = 0
        with pytest.raises(asyncio.TimeoutError):
            while True:
                # Cancelled, it has sent nothing.
                await asyncio.wait_for(stream.send(bytes(3_200)), 0.2)
                sent += 3_200
                assert stream._requests.bytes_held <= 35_200 + 100_000
        # The windows of HTTP/2 take some megabytes on top.
        assert 32_000 <= sent < 10_000_000
        assert not stream.send_nowait(bytes(3_200))
        release.set()
        await stream.send(bytes(3_200))
        await stream.end()
        assert isinstance([event async for event in stream][-1], Finished)
    assert received == sent + 3_200


async def test_a_slow_listener_holds_up_the_server_and_bounds_the_memory():
    written = 0
    total = 4_000

    async def talkative(requests, context):
        nonlocal written
        yield started(await anext(requests))
        for n in range(total):
            response = pb.StreamEmotionResponse()
            response.estimate.end.FromMilliseconds(n * 100)
            response.estimate.escalation_ids.append("x" * 10_000)
            yield response
            written += 1
        yield pb.StreamEmotionResponse(finished=pb.Finished())

    async with streaming(talkative) as address, Undertone(address) as u, u.open() as stream:
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.2)
        # A window of HTTP/2 and what waits here.
        assert EVENTS <= written < total / 2
        assert len(stream._events._queue) == EVENTS
        ends = [event.end async for event in stream if isinstance(event, Estimate)]
    assert ends == [n / 10 for n in range(total)]


async def test_audio_is_held_to_the_pace_that_the_server_takes():
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def pacing(requests, context):
        limits = pb.StreamLimits(max_realtime_factor=10.0)
        limits.burst.FromMilliseconds(500)
        response = started(await anext(requests))
        response.started.limits.CopyFrom(limits)
        yield response
        async for _ in requests:
            times.append(loop.time())
        yield pb.StreamEmotionResponse(finished=pb.Finished())

    async with streaming(pacing) as address, Undertone(address) as u:
        began = loop.time()
        async for _ in u.stream(sources.from_bytes(bytes(32_000 * 3))):
            pass
    assert len(times) == 30
    # Half a second of audio comes at once, each further tenth takes a hundredth.
    assert times[4] - began < 0.1
    assert all(time - began >= 0.01 * (n - 4) - 0.002 for n, time in enumerate(times) if n > 4)


async def test_why_a_server_ends_a_stream_is_known_also_while_audio_is_sent(target):
    """The write that fails must not hide the reason: whoever was taken over must not come back."""

    async def ending(requests, context):
        yield started(await anext(requests))
        await anext(requests)
        await refuse(context, grpc.StatusCode.ABORTED, "the session goes on in another stream", "TAKEN_OVER")

    async with streaming(ending) as address:
        for _ in range(30):
            async with Undertone(address) as u, u.open() as stream:
                speaking = asyncio.create_task(_speak(stream))
                with pytest.raises(TakenOver, match="TAKEN_OVER"):
                    await _listen(stream)
                with pytest.raises(TakenOver):
                    await speaking


async def _speak(stream):
    while True:
        await stream.send(bytes(64_000))


async def test_an_overloaded_server_is_asked_again_when_it_says_so(monkeypatch):
    """Between the stream's begin and its end; a stream that never began is its caller's to repeat."""
    waits: list[float] = []
    names: list[str] = []
    connections = 0

    async def overloaded(requests, context):
        nonlocal connections
        connections += 1
        request = await anext(requests)
        names.append(request.config.session_id)
        if connections in (2, 3):
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "SERVER_FULL", retry_s=7)
        yield started(request)
        if connections == 1:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "gone", "ENGINE_FAILED", retry_s=0)
        yield pb.StreamEmotionResponse(finished=pb.Finished())

    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await real(0)

    async with streaming(overloaded) as address, Undertone(address) as u, u.open() as stream:
        monkeypatch.setattr("undertone._carrier.asyncio.sleep", sleep)
        events = await _listen(stream)
        monkeypatch.undo()
    assert [type(event).__name__ for event in events] == ["Started", "Reconnected", "Finished"]
    assert (events[1].reason, events[1].attempts) == ("ENGINE_FAILED", 3)
    # Without a checkpoint yet it comes again under its name, so that nothing is raised twice.
    assert names == ["", "fake", "fake", "fake"]
    longer = [wait for wait in waits if wait >= 7]
    assert len(longer) == 2
    assert all(wait <= 7 + 0.2 * 2**n for n, wait in enumerate(longer, 1))


async def test_a_stream_that_is_refused_at_once_is_its_callers_to_repeat():
    async def full(requests, context):
        await anext(requests)
        await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "SERVER_FULL", retry_s=2)
        yield

    async with streaming(full) as address, Undertone(address) as u:
        with pytest.raises(Overloaded, match="try again in 2 s") as caught:
            await u.open().__aenter__()
    assert caught.value.retry_after == 2.0


async def test_a_draining_server_is_left_at_once_for_another():
    connections = 0

    async def draining(requests, context):
        nonlocal connections
        connections += 1
        request = await anext(requests)
        if connections == 1:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "draining", "DRAINING", retry_s=0)
        yield started(request)
        yield pb.StreamEmotionResponse(finished=pb.Finished())

    async with streaming(draining) as address, Undertone(address) as u, u.open() as stream:
        assert [type(event) for event in await _listen(stream)] == [Started, Finished]


async def test_what_only_a_newer_server_says_is_passed_over_or_none():
    async def newer(requests, context):
        yield started(await anext(requests))
        yield pb.StreamEmotionResponse()
        estimate = pb.StreamEmotionResponse()
        estimate.estimate.affect.scores.add(emotion=99, probability=1.0)
        estimate.estimate.affect.top = 99
        yield estimate
        yield pb.StreamEmotionResponse(finished=pb.Finished(reason=99))

    async with streaming(newer) as address, Undertone(address) as u, u.open() as stream:
        events = await _listen(stream)
    assert [type(event) for event in events] == [Started, Estimate, Finished]
    assert (events[1].affect.top, events[1].affect.scores, events[2].reason) == (None, {}, None)


async def test_a_server_that_begins_with_something_else_is_refused():
    async def odd(requests, context):
        await anext(requests)
        yield pb.StreamEmotionResponse(mark=pb.MarkReached(name="?"))

    async with streaming(odd) as address, Undertone(address) as u:
        with pytest.raises(ServerError, match="began with mark"):
            await u.open().__aenter__()


async def test_what_times_out_is_no_break(target):
    async def idle(requests, context):
        yield started(await anext(requests))
        await refuse(context, grpc.StatusCode.DEADLINE_EXCEEDED, "nothing came", "IDLE_TIMEOUT")

    async with streaming(idle) as address, Undertone(address) as u, u.open() as stream:
        with pytest.raises(TimedOut, match="IDLE_TIMEOUT"):
            await _listen(stream)
