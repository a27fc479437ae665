"""A server of the protocol in the test's own event loop, for what the real one cannot be made to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from undertone._generated.undertone.v1 import emotion_service_pb2 as pb


@asynccontextmanager
async def serving(service: str, **methods: tuple[str, Any, Callable[..., Any]]) -> AsyncIterator[str]:
    """Serves methods of `undertone.v1.SERVICE`, each with its kind, such as `unary_stream`, its request and handler."""
    handlers = {
        name: getattr(grpc, f"{kind}_rpc_method_handler")(
            handler,
            request_deserializer=request.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for name, (kind, request, handler) in methods.items()
    }
    server = aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"undertone.v1.{service}", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def streaming(handler: Callable[..., Any]) -> AsyncIterator[str]:
    async with serving("EmotionService", StreamEmotion=("stream_stream", pb.StreamEmotionRequest, handler)) as address:
        yield address


async def refuse(
    context: Any, code: grpc.StatusCode, message: str, reason: str | None = None, retry_s: int | None = None,
    fields: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Ends a call as the real server does."""
    status = status_pb2.Status(code=code.value[0], message=message)
    details: list[Any] = []
    if reason is not None:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="undertone"))
    if retry_s is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=retry_s)))
    if fields:
        violation = error_details_pb2.BadRequest.FieldViolation
        violations = [violation(field=field, description=problem) for field, problem in fields.items()]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(code, message)


def started(request: pb.StreamEmotionRequest, **limits: Any) -> pb.StreamEmotionResponse:
    """The answer to a configuration."""
    return pb.StreamEmotionResponse(
        started=pb.Started(session_id="fake", config=request.config, limits=pb.StreamLimits(**limits))
    )
