"""Calls with one request, with one answer or many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, TypeVar

from grpc import aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from ._channels import Channels
from .errors import from_rpc

if TYPE_CHECKING:
    from google.protobuf.message import Message

    A = TypeVar("A", bound=Message)


# What sending raises when the call has ended. Reading says why.
ENDED = (aio.AioRpcError, asyncio.InvalidStateError, cygrpc.InternalError)


async def send(call: Any, data: bytes) -> None:
    """Sends one more request of a call that has begun (`wait_for_connection`).

    `call.write` would not do: where it fails, it ends the call with an INTERNAL of its own, and what the server said,
    such as why it ended the call, is never read. So this asks the layer below.

    Raises:
        Exception: One of `ENDED`.
    """
    if call.done():
        raise asyncio.InvalidStateError
    await call._cython_call.send_serialized_message(data)


async def ask(channels: Channels, method: str, request: Message, answer: type[A], timeout: float) -> A:
    """The answer to `request`, such as to `EmotionService/ListModels`, within `timeout` seconds.

    Raises:
        UndertoneError: There was none.
    """
    async with channels.lease() as lease:
        call: aio.UnaryUnaryMultiCallable[bytes, A] = lease.channel.unary_unary(
            f"/undertone.v1.{method}", response_deserializer=answer.FromString
        )
        try:
            return await call(request.SerializeToString(), timeout=timeout, metadata=channels.credentials.metadata())
        except aio.AioRpcError as error:
            failure = from_rpc(error, str(channels.target))
            lease.failed(failure)
            raise failure from None


async def follow(channels: Channels, method: str, request: Message, answer: type[A]) -> AsyncGenerator[A, None]:
    """The answers to `request`, until the server ends them.

    Raises:
        UndertoneError: It broke off.
    """
    async with channels.lease() as lease:
        open_call: aio.UnaryStreamMultiCallable[bytes, A] = lease.channel.unary_stream(
            f"/undertone.v1.{method}", response_deserializer=answer.FromString
        )
        call = open_call(request.SerializeToString(), metadata=channels.credentials.metadata())
        try:
            while isinstance(got := await call.read(), answer):
                yield got
        except aio.AioRpcError as error:
            failure = from_rpc(error, str(channels.target))
            lease.failed(failure)
            raise failure from None
        finally:
            call.cancel()
