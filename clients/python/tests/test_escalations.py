"""Escalations: raised in streams, listed, taken on, and followed across breaks."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone

import grpc
import pytest
from fake import refuse, serving
from server import POLICY, Server, hello

from undertone import (
    EscalationEvent,
    EscalationKind,
    EscalationState,
    InvalidRequest,
    NotFound,
    Reconnect,
    Severity,
    SyncUndertone,
    Unavailable,
    Undertone,
    sources,
)
from undertone._generated.undertone.v1 import escalation_pb2, escalation_service_pb2


async def raise_some(u: Undertone, **options) -> list[EscalationEvent]:
    source = sources.from_bytes(hello())
    events = [event async for event in u.stream(source, policy_yaml=POLICY, **options)]
    return [event for event in events if isinstance(event, EscalationEvent)]


async def test_an_escalation_has_its_reason_and_its_evidence(target):
    async with Undertone(target) as u:
        raised = (await raise_some(u, session_id="call-9", labels={"patient": "9"}))[0]
        assert raised.kind is EscalationKind.RAISED
        assert raised.durable
        escalation = raised.escalation
        assert (escalation.session_id, escalation.rule, escalation.severity) == (
            "call-9",
            "says-something",
            Severity.LOW,
        )
        assert escalation.labels == {"patient": "9"}
        assert escalation.reason.startswith("Arousal is")
        assert escalation.evidence.conditions[0].on == pytest.approx(-0.98)
        assert escalation.evidence.emotions.keys() >= {"angry", "sad"}
        assert datetime.now(timezone.utc) - escalation.raised_at < timedelta(minutes=1)
        assert escalation.acknowledged_at is None


async def test_it_is_found_and_taken_on_once(target):
    async with Undertone(target) as u:
        raised = (await raise_some(u, session_id="call-10"))[0]
        [found] = [escalation async for escalation in u.escalations(session_id="call-10")]
        assert found.id == raised.escalation.id
        first = await u.acknowledge(found.id, "nurse on ward 7", note="called back")
        again = await u.acknowledge(found.id, "somebody else")
        assert (first.already, again.already) == (False, True)
        assert again.escalation.acknowledged_by == "nurse on ward 7"
        detail = await u.escalation(found.id)
        kinds = [event.kind for event in detail.history]
        assert kinds[0] is EscalationKind.RAISED
        assert detail.history[-1].note == "called back"
        assert detail.escalation == again.escalation


async def test_a_live_stream_takes_its_own_on(target):
    async with Undertone(target) as u, u.open(policy_yaml=POLICY) as stream:
        await stream.send(hello())
        kinds = []
        async for event in stream:
            if isinstance(event, EscalationEvent):
                kinds.append(event.kind)
                if event.kind is EscalationKind.RAISED:
                    await stream.acknowledge(event.escalation.id, "the agent", "offered help")
                if event.kind is EscalationKind.ACKNOWLEDGED:
                    assert (event.actor, event.note) == ("the agent", "offered help")
                    break
    assert EscalationKind.RAISED in kinds


async def test_pages_are_asked_for_as_they_are_needed():
    pages: list[str] = []

    async def listing(request, context):
        pages.append(request.page_token)
        number = int(request.page_token or 0)
        found = [escalation_pb2.Escalation(id=f"{number}-{n}") for n in range(3)]
        more = str(number + 1) if number < 4 else ""
        return escalation_service_pb2.ListEscalationsResponse(escalations=found, next_page_token=more)

    method = ("unary_unary", escalation_service_pb2.ListEscalationsRequest, listing)
    async with serving("EscalationService", ListEscalations=method) as address, Undertone(address) as u:
        assert len([escalation async for escalation in u.escalations()]) == 15
        assert pages == ["", "1", "2", "3", "4"]
        pages.clear()
        async for escalation in u.escalations():
            if escalation.id == "1-0":
                break
        assert pages == ["", "1"]


async def test_every_filter_arrives(target):
    seen: list[escalation_service_pb2.EscalationFilter] = []

    async def listing(request, context):
        seen.append(request.filter)
        return escalation_service_pb2.ListEscalationsResponse()

    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    wanted = {
        "states": [EscalationState.RAISED, EscalationState.ACKNOWLEDGED],
        "min_severity": Severity.MEDIUM,
        "policies": ["care-call"],
        "session_id": "call-7",
        "labels": {"ward": "3b"},
        "raised_since": since,
        "raised_before": since + timedelta(days=1),
        "tenant": "ward-7",
    }
    method = ("unary_unary", escalation_service_pb2.ListEscalationsRequest, listing)
    async with serving("EscalationService", ListEscalations=method) as address, Undertone(address) as u:
        assert [escalation async for escalation in u.escalations(**wanted)] == []
    [got] = seen
    assert {field.name for field, _ in got.ListFields()} == set(wanted)
    assert list(got.states) == [escalation_pb2.ESCALATION_STATE_RAISED, escalation_pb2.ESCALATION_STATE_ACKNOWLEDGED]
    assert got.raised_since.ToDatetime(tzinfo=timezone.utc) == since
    # And the real server knows what to do with them.
    del wanted["tenant"]
    async with Undertone(target) as u:
        assert [escalation async for escalation in u.escalations(**wanted)] == []


async def test_what_is_not_there_is_not_found(target):
    async with Undertone(target) as u:
        with pytest.raises(NotFound, match="ESCALATION_NOT_FOUND"):
            await u.escalation("01a21980-5eca-7004-8f63-db9cc06e9511")
        with pytest.raises(InvalidRequest, match="actor"):
            await u.acknowledge("01a21980-5eca-7004-8f63-db9cc06e9511", "")


async def test_a_watch_tells_what_happens_from_now_on_and_from_a_cursor_on(target):
    async with Undertone(target) as u:
        watch = u.watch_escalations(session_id="call-11")
        following = asyncio.create_task(_until_cleared(watch))
        while not watch.cursor:
            await asyncio.sleep(0)
        in_stream = await raise_some(u, session_id="call-11")
        watched = await following
        assert [event.id for event in watched] == [event.id for event in in_stream][: len(watched)]
        rest = u.watch_escalations(session_id="call-11", from_start=True)
        assert [event.id for event in await _until_cleared(rest)] == [event.id for event in watched]


async def _until_cleared(watch) -> list[EscalationEvent]:
    heard = []
    async for event in watch:
        heard.append(event)
        if event.kind is EscalationKind.CLEARED:
            return heard
    raise AssertionError("a watch has no end")


async def test_a_watch_misses_nothing_and_tells_nothing_twice_while_its_server_is_killed(tmp_path):
    store = ("--escalation-store", f"sqlite:{tmp_path}/store.db")
    heard: list[str] = []
    with Server(*store) as first:
        address = first.address
        async with Undertone(address) as u:
            watch = u.watch_escalations(from_start=True, reconnect=Reconnect(first_wait=0.02, longest_wait=0.1))
            following = asyncio.create_task(_collect(watch, heard))
            raised = [event.id for event in await raise_some(u, session_id="before")]
            while len(heard) < len(raised):
                await asyncio.sleep(0.01)
            first.kill()
            second = await asyncio.to_thread(lambda: Server(*store, address=address))
            with second:
                async with Undertone(address) as other:
                    raised += [event.id for event in await raise_some(other, session_id="after")]
                while len(heard) < len(raised):
                    await asyncio.sleep(0.01)
                following.cancel()
    assert heard == raised
    assert len(raised) > 10


async def _collect(watch, heard: list[str]) -> None:
    async for event in watch:
        heard.append(event.id)


async def test_a_watch_goes_on_behind_the_cursor_that_it_has_seen():
    cursors: list[tuple[str, bool]] = []

    async def watching(request, context):
        cursors.append((request.cursor, request.from_start))
        number = int(request.cursor or 0)
        yield escalation_service_pb2.WatchEscalationsResponse(cursor=str(number))
        for n in range(number, number + 2):
            event = escalation_pb2.EscalationEvent(id=str(n))
            yield escalation_service_pb2.WatchEscalationsResponse(cursor=str(n + 1), event=event)
        if number >= 6:
            await refuse(context, grpc.StatusCode.PERMISSION_DENIED, "the role has gone", "ROLE_MISSING")
        await refuse(context, grpc.StatusCode.UNAVAILABLE, "gone", "DRAINING", retry_s=0)

    method = ("unary_stream", escalation_service_pb2.WatchEscalationsRequest, watching)
    async with serving("EscalationService", WatchEscalations=method) as address, Undertone(address) as u:
        heard: list[str] = []
        with pytest.raises(Exception, match="ROLE_MISSING"):
            await _collect(u.watch_escalations(from_start=True, reconnect=Reconnect(first_wait=0.0)), heard)
        assert heard == [str(n) for n in range(8)]
        assert cursors == [("", True), ("2", False), ("4", False), ("6", False)]
        with pytest.raises(Unavailable):
            await _collect(u.watch_escalations(reconnect=None), heard)


def test_the_same_in_a_plain_thread(target):
    with SyncUndertone(target) as u:
        events = list(u.stream(sources.from_bytes(hello()), policy_yaml=POLICY, session_id="call-12"))
        raised = [event for event in events if isinstance(event, EscalationEvent)]
        [found] = u.escalations(session_id="call-12")
        assert u.acknowledge(found.id, "a test").already is False
        assert u.escalation(found.id).escalation.state is EscalationState.CLEARED
        watch = u.watch_escalations(session_id="call-12", from_start=True)
        assert next(iter(watch)).id == raised[0].id
        assert watch.cursor


def test_severities_compare():
    assert Severity.ADVISORY < Severity.LOW <= Severity.LOW < Severity.MEDIUM < Severity.HIGH
    assert Severity.HIGH > Severity.ADVISORY >= Severity.ADVISORY
    assert max(Severity) is Severity.HIGH
