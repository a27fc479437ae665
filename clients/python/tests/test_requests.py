"""What waits, what is kept, what comes again: whatever is said and wherever it breaks off."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertone import StreamClosed
from undertone._generated.undertone.v1 import emotion_service_pb2 as pb
from undertone._requests import Request, Requests
from undertone._told import Told


def request(number: int) -> Request:
    return Request(str(number).encode(), is_mark=number % 3 == 0)


SIZE = request(0).size

# A server takes some requests, gives a checkpoint, or breaks off and goes on from the last one.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 8)),
        st.tuples(st.just("take"), st.integers(1, 8)),
        st.tuples(st.just("checkpoint"), st.just(0)),
        st.tuples(st.just("break"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_a_server_gets_every_request_once_and_in_order_wherever_it_breaks_off(steps):
    async def run() -> None:
        requests = Requests(room=10**9, kept=10**9)
        said = 0
        taken: list[int] = []  # As the session knows them: what follows a checkpoint is forgotten in a break.
        point = 0
        for step, count in steps:
            if step == "say":
                for _ in range(count):
                    requests.push(request(said))
                    said += 1
            elif step == "take":
                for _ in range(min(count, said - len(taken))):
                    taken.append(int((await requests.take(keep=True)).data))
            elif step == "checkpoint":
                point = len(taken)
                requests.cover(point)
            else:
                del taken[point:]
                requests.rewind()
                assert requests.first == point
                assert requests.marks_before == len([n for n in range(point) if n % 3 == 0])
            assert taken == list(range(len(taken)))
        requests.end()
        while (last := await requests.take(keep=True)) is not None:
            taken.append(int(last.data))
        assert taken == list(range(said))
        assert not requests.has_gap

    asyncio.run(run())


@given(STEPS, st.integers(1, 6), st.integers(0, 6))
def test_no_more_is_held_than_was_allowed(steps, room, kept):
    async def run() -> None:
        requests = Requests(room * SIZE, kept * SIZE)
        waiting = taken = said = 0
        for step, count in steps:
            for _ in range(count):
                if step == "say" and requests.has_room(SIZE):
                    requests.push(request(said))
                    said += 1
                    waiting += 1
                elif step == "take" and waiting:
                    await requests.take(keep=True)
                    waiting -= 1
                    taken += 1
            if step == "checkpoint":
                requests.cover(taken)
                assert not requests.has_gap
            # A break moves what was kept back to what waits; it is not more for that.
            assert requests.bytes_held <= (max(room, 1) + kept) * SIZE

    asyncio.run(run())


async def test_a_gap_is_known_until_a_checkpoint_covers_it():
    requests = Requests(room=10**6, kept=2 * SIZE)
    for number in range(5):
        requests.push(request(number))
    for _ in range(4):
        await requests.take(keep=True)
    assert (requests.first, requests.has_gap) == (2, True)
    requests.cover(1)
    assert requests.has_gap
    requests.cover(3)
    assert (requests.first, requests.has_gap) == (3, False)
    requests.rewind()
    assert (await requests.take(keep=True)).data == b"3"


async def test_what_will_not_come_again_is_not_kept():
    requests = Requests(room=10**6, kept=0)
    for number in range(3):
        requests.push(request(number))
        await requests.take(keep=False)
    assert requests.bytes_held == 0
    assert not requests.has_gap


async def test_one_that_is_larger_than_the_room_goes_when_nothing_else_waits():
    requests = Requests(room=10, kept=0)
    assert requests.has_room(1_000)
    requests.push(Request(bytes(1_000)))
    assert not requests.has_room(1)


async def test_who_waits_for_room_gets_it_or_hears_why_not():
    requests = Requests(room=SIZE, kept=10**6)
    await requests.put(request(0))
    waiting = asyncio.create_task(requests.put(request(1)))
    await asyncio.sleep(0)
    assert not waiting.done()
    await requests.take(keep=True)
    await waiting
    waiting = asyncio.create_task(requests.put(request(2)))
    await asyncio.sleep(0)
    requests.fail(ValueError("the reason"))
    with pytest.raises(ValueError, match="the reason"):
        await waiting


async def test_nothing_is_taken_after_the_end():
    requests = Requests(room=10**6, kept=0)
    requests.end()
    with pytest.raises(StreamClosed):
        await requests.put(request(0))
    assert await requests.take(keep=True) is None


def estimate(channel: int, ms: int) -> pb.StreamEmotionResponse:
    response = pb.StreamEmotionResponse()
    response.estimate.channel = channel
    response.estimate.end.FromMilliseconds(ms)
    return response


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6), st.integers(1, 40))
def test_each_event_is_news_once_whatever_is_told_again(breaks, length):
    """The server tells events 0 to `length`; at each break it goes back to a checkpoint."""
    events: list[tuple[str, pb.StreamEmotionResponse]] = []
    for n in range(length):
        events.append(("estimate", estimate(n % 2, n * 500)))
        events.append(("utterance", pb.StreamEmotionResponse(utterance=pb.Utterance(channel=n % 2, index=n // 2))))
        events.append(("mark", pb.StreamEmotionResponse(mark=pb.MarkReached(name="same"))))
        warning = pb.Warning(reason=pb.Warning.REASON_CLIPPING)
        warning.position.FromMilliseconds(n)
        events.append(("warning", pb.StreamEmotionResponse(warning=warning)))
    told, heard = Told(), []
    at = point = 0
    for listened, back in [*breaks, (len(events), 0)]:
        for n in range(at, min(at + listened, len(events))):
            if told.is_news(*events[n]):
                heard.append(n)
            at = n + 1
        # The checkpoint may be anywhere between the one before and what has been said.
        point = max(point, at - back)
        told.broke_off()
        told.resumed(sum(kind == "mark" for kind, _ in events[:point]))
        at = point
    assert heard == list(range(len(heard)))
    if not breaks:
        assert len(heard) == len(events)


def test_an_escalation_that_is_not_durable_is_told_each_time():
    told = Told()
    durable, not_yet = pb.StreamEmotionResponse(), pb.StreamEmotionResponse()
    durable.escalation.id = "e"
    not_yet.escalation.durable = False
    assert [told.is_news("escalation", response) for response in (not_yet, not_yet, durable, durable)] == [
        True, True, True, False,
    ]  # fmt: skip
