"""Live sessions: every field and page from a server of the protocol in this process, and the real one's."""

from __future__ import annotations

from datetime import datetime, timezone

import grpc
import pytest
from fake import refuse, serving
from server import hello

from undertone import (
    Estimate,
    Ingress,
    NotFound,
    Session,
    SyncUndertone,
    Unavailable,
    Undertone,
    Utterance,
)
from undertone._generated.undertone.v1 import emotion_pb2, emotion_service_pb2
from undertone._generated.undertone.v1 import session_service_pb2 as pb


def a_session(name: str) -> pb.Session:
    session = pb.Session(
        id=name, tenant="ward-7", identity="agent", labels={"patient": "7"}, model="m", policy="care-call",
        ingress=pb.INGRESS_TWILIO, estimates=3, latest=[emotion_pb2.Estimate(channel=1)],
    )  # fmt: skip
    session.opened_at.FromSeconds(1_800_000_000)
    session.audio.FromMilliseconds(1_500)
    return session


class Fake:
    """Three sessions in pages of two; the last of them can be watched."""

    def __init__(self) -> None:
        self.requests: list[pb.ListSessionsRequest | pb.GetSessionRequest | pb.WatchSessionRequest] = []
        self.ends = True

    async def list_sessions(self, request, context):
        self.requests.append(request)
        if not request.page_token:
            return pb.ListSessionsResponse(sessions=[a_session("c"), a_session("b")], next_page_token="2")
        return pb.ListSessionsResponse(sessions=[a_session("a")])

    async def get_session(self, request, context):
        self.requests.append(request)
        if request.id != "a":
            message = "there is no such session here"
            await refuse(context, grpc.StatusCode.NOT_FOUND, message, "SESSION_NOT_FOUND", fields={"id": message})
        history = pb.SessionHistory(
            estimates=[emotion_pb2.Estimate(channel=0)], utterances=[emotion_service_pb2.Utterance(index=4)]
        )
        return pb.GetSessionResponse(session=a_session("a"), history=history)

    async def watch_session(self, request, context):
        self.requests.append(request)
        yield pb.WatchSessionResponse(session=a_session(request.id))
        yield pb.WatchSessionResponse()
        yield pb.WatchSessionResponse(estimate=emotion_pb2.Estimate(channel=1))
        yield pb.WatchSessionResponse(utterance=emotion_service_pb2.Utterance(index=5))
        if not self.ends:
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "draining", "DRAINING", retry_s=0)
        yield pb.WatchSessionResponse(ended=pb.SessionEnded())

    def serving(self):
        return serving(
            "SessionService",
            ListSessions=("unary_unary", pb.ListSessionsRequest, self.list_sessions),
            GetSession=("unary_unary", pb.GetSessionRequest, self.get_session),
            WatchSession=("unary_stream", pb.WatchSessionRequest, self.watch_session),
        )


async def test_live_sessions_are_listed_over_all_pages():
    fake = Fake()
    async with fake.serving() as address, Undertone(address) as u:
        sessions = [session async for session in u.sessions(tenant="ward-7", labels={"patient": "7"})]
    assert [session.id for session in sessions] == ["c", "b", "a"]
    assert [(request.tenant, request.labels["patient"]) for request in fake.requests] == [("ward-7", "7")] * 2
    session = sessions[0]
    assert (session.ingress, session.audio, session.estimates) == (Ingress.TWILIO, 1.5, 3)
    assert session.opened_at == datetime.fromtimestamp(1_800_000_000, timezone.utc)
    assert session.labels == {"patient": "7"}
    assert session.latest[0].channel == 1
    assert session.to_dict()["ingress"] == "twilio"


async def test_one_session_comes_with_what_was_heard():
    fake = Fake()
    async with fake.serving() as address, Undertone(address) as u:
        detail = await u.session("a", history=300.0)
        assert detail.session.id == "a"
        assert isinstance(detail.estimates[0], Estimate)
        assert detail.utterances[0].index == 4
        assert fake.requests[0].history.seconds == 300
        await u.session("a")
        assert not fake.requests[1].HasField("history")
        with pytest.raises(NotFound, match="SESSION_NOT_FOUND"):
            await u.session("b")


async def test_a_watched_session_is_heard_to_its_end():
    fake = Fake()
    async with fake.serving() as address, Undertone(address) as u:
        heard = [item async for item in u.watch_session("a", history=60.0)]
    assert [type(item) for item in heard] == [Session, Estimate, Utterance]
    assert fake.requests[0].history.seconds == 60


async def test_a_watch_that_breaks_off_is_no_end():
    fake = Fake()
    fake.ends = False
    async with fake.serving() as address, Undertone(address) as u:
        heard = []
        with pytest.raises(Unavailable):
            async for item in u.watch_session("a"):
                heard.append(item)
    assert len(heard) == 3


async def test_the_real_server_shows_a_stream_that_is_live(target):
    async with Undertone(target) as u:
        assert "live" not in [session.id async for session in u.sessions()]
        async with u.open(session_id="live", labels={"patient": "7"}) as stream:
            await stream.send(hello())
            await stream.send(bytes(64_000))
            async for event in stream:
                if isinstance(event, Utterance):
                    break
            [session] = [session async for session in u.sessions(labels={"patient": "7"})]
            assert (session.id, session.ingress) == ("live", Ingress.GRPC)
            detail = await u.session("live", history=60.0)
            assert detail.estimates
            assert detail.utterances[0].index == 0
            watch = u.watch_session("live", history=60.0)
            assert (await anext(watch)).id == "live"
            await stream.end()
            heard = [item async for item in watch]
            assert {type(item) for item in heard} >= {Estimate}
        detail = await u.session("live", history=60.0)
        assert detail.session.ended_at is not None
        assert detail.estimates
        assert session.ended_at is None
        assert "live" not in [session.id async for session in u.sessions()]
        over = {session.id: session async for session in u.sessions(labels={"patient": "7"}, ended=True)}
        assert over["live"].ended_at == detail.session.ended_at
        with pytest.raises(NotFound):
            await u.session("nobody")


def test_the_same_in_a_plain_thread(target):
    import asyncio
    import threading

    loop, ready, found = asyncio.new_event_loop(), threading.Event(), []
    stop = asyncio.Event()

    async def serve():
        async with Fake().serving() as address:
            found.append(address)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    with SyncUndertone(found[0]) as u:
        assert [session.id for session in u.sessions()] == ["c", "b", "a"]
        assert u.session("a").utterances[0].index == 4
        assert [type(item) for item in u.watch_session("a")] == [Session, Estimate, Utterance]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
