"""Errors say what is wrong, where, and what to do."""

from __future__ import annotations

import copy
import pickle
import socket

import grpc
import pytest
from fake import refuse, serving
from google.rpc import status_pb2
from server import DATA

from undertone import (
    AudioFormat,
    ConnectionFailed,
    DataLoss,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerError,
    TimedOut,
    Unavailable,
    Undertone,
    UndertoneError,
    errors,
)
from undertone._generated.undertone.v1 import emotion_service_pb2 as pb


async def refused(u: Undertone, **options) -> UndertoneError:
    with pytest.raises(UndertoneError) as caught:
        await u.open(**options).__aenter__()
    return caught.value


async def test_a_refusal_has_its_field_and_its_reason(target):
    async with Undertone(target) as u:
        error = await refused(u, audio=AudioFormat(sample_rate=96_000))
        assert type(error) is InvalidRequest
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        assert [field for field, _ in error.fields] == ["config.audio.sample_rate_hz"]
        assert "\n  field   config.audio.sample_rate_hz: " in str(error)
        assert str(error).endswith("\n  reason  INVALID_REQUEST")
        assert (await refused(u, model="none")).reason == "MODEL_NOT_FOUND"
        assert type(await refused(u, policy="none")) is NotFound
        bad = await refused(u, policy_yaml="nonsense")
        assert bad.fields[0][0] == "config.policy_yaml"


async def test_all_bad_fields_are_named_at_once(target):
    async with Undertone(target) as u:
        error = await refused(u, session_id="two words", estimate_interval=60.0, labels={"": "x"})
    assert {field for field, _ in error.fields} == {"config.session_id", "config.estimate_interval", "config.labels"}


async def test_a_clip_that_cannot_be_decoded(target):
    async with Undertone(target) as u:
        with pytest.raises(InvalidRequest, match="supported: WAV"):
            await u.analyze(DATA / "make_hello.sh")
        wave = (DATA / "tone_16k.flac").read_bytes()
        with pytest.raises((DataLoss, InvalidRequest)) as caught:
            await u.analyze(wave[:200])
        assert caught.value.fields[0][0] == "content"
        with pytest.raises(FileNotFoundError):
            await u.analyze("not there.wav")


async def test_nobody_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # Bound, but nobody listens.
        async with Undertone(f"127.0.0.1:{taken.getsockname()[1]}") as u:
            with pytest.raises(ConnectionFailed, match="undertone serve"):
                await u.models()
            error = await refused(u)
            assert isinstance(error, ConnectionFailed)
            assert isinstance(error, Unavailable)
            assert "Connection refused" in str(error)


async def test_no_http_there():
    with socket.create_server(("127.0.0.1", 0)) as other:
        async with Undertone(f"127.0.0.1:{other.getsockname()[1]}", timeout=0.3) as u:
            with pytest.raises(TimedOut):
                await u.models()


async def test_another_kind_of_server():
    async with serving("Other") as address, Undertone(address) as u:
        with pytest.raises(ServerError, match="is no Undertone") as caught:
            await u.models()
    assert caught.value.code == "UNIMPLEMENTED"


async def test_when_to_come_again_is_known():
    async def full(request, context):
        await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "TOO_MANY_CLIPS", retry_s=2)

    method = ("unary_unary", pb.AnalyzeAudioRequest, full)
    async with serving("EmotionService", AnalyzeAudio=method) as address, Undertone(address) as u:
        with pytest.raises(Overloaded, match="remedy  try again in 2 s") as caught:
            await u.analyze(b"clip")
    assert caught.value.retry_after == 2.0


async def test_details_that_cannot_be_read_hide_nothing():
    async def odd(request, context):
        context.set_trailing_metadata((("grpc-status-details-bin", b"\xff\xff"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "there is no model")

    method = ("unary_unary", pb.GetModelRequest, odd)
    async with serving("EmotionService", GetModel=method) as address, Undertone(address) as u:
        with pytest.raises(NotFound, match="there is no model"):
            await u.model("x")


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_code_has_its_error(code):
    error = errors.from_status(code, "no", status_pb2.Status(), "http://localhost:1")
    assert isinstance(error, UndertoneError)
    assert str(error).startswith(f"{code.name}: ")
    assert type(error) is not UndertoneError


def test_an_error_can_be_copied_and_sent_to_another_process():
    error = InvalidRequest(
        "no", code="INVALID_ARGUMENT", reason="R", fields=(("a", "b"),), remedy="do", retry_after=1.0
    )
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is InvalidRequest
        assert (str(other), other.fields, other.retry_after) == (str(error), error.fields, 1.0)
