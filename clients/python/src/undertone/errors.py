"""What can go wrong, as exceptions.

All are `UndertoneError`. Its text names the fields, the stable reason and the remedy; the attributes hold them for
programs.
"""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_CODE = grpc.StatusCode


class UndertoneError(Exception):
    """Something did not work: the base of all errors of this package.

    Attributes:
        message: What happened, in words.
        code: The gRPC code, such as `"INVALID_ARGUMENT"`; `""` for what this package itself refuses.
        reason: The server's stable reason, such as `"SERVER_FULL"`; `None` if it gave none.
        fields: Fields that cannot be used, each with what is wrong about it.
        remedy: What to do about it, if that is known.
        retry_after: Seconds to wait before another attempt; `None` if the server named no time.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str | None = None,
        fields: tuple[tuple[str, str], ...] = (),
        remedy: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.fields = fields
        self.remedy = remedy
        self.retry_after = retry_after

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.message}" if self.code else self.message]
        lines += [f"field   {field}: {problem}" for field, problem in self.fields]
        if self.reason:
            lines.append(f"reason  {self.reason}")
        if self.remedy:
            lines.append(f"remedy  {self.remedy}")
        return "\n  ".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # What has keyword-only arguments is not unpickled from `args` alone.
        return type(self).__new__, (type(self), self.message), self.__dict__


class InvalidRequest(UndertoneError):
    """What was asked for cannot be done: a bad argument, or a wrong order. `fields` says which."""


class Unauthenticated(UndertoneError):
    """The server does not know who calls."""


class PermissionDenied(UndertoneError):
    """It knows, and that does not suffice."""


class NotFound(UndertoneError):
    """There is no such model, policy, escalation or session."""


class AlreadyExists(UndertoneError):
    """A live session has that name already."""


class Overloaded(UndertoneError):
    """The server, or a quota of the caller's, has no room now. `retry_after` says when to come again."""


class Unavailable(UndertoneError):
    """The server cannot answer now, or the connection broke."""


class ConnectionFailed(Unavailable):
    """No server answers at the target, or not one that this client can talk to."""


class ResumeRefused(UndertoneError):
    """A stream that broke off cannot be gone on with, now or ever. Open another one."""


class TakenOver(UndertoneError):
    """The session goes on in another stream, opened with a resume token of this one."""


class TimedOut(UndertoneError):
    """Something did not come within its time."""


class DataLoss(UndertoneError):
    """The audio cannot be decoded."""


class ServerError(UndertoneError):
    """A defect of the server, or of what stands between."""


class StreamClosed(UndertoneError):
    """The stream has ended, or was ended; nothing more can be sent."""


class AudioDropped(UndertoneError):
    """Audio was dropped, since it must not wait. Never raised: a `Feed` tells its `on_trouble`."""


_KINDS: dict[grpc.StatusCode, type[UndertoneError]] = {
    _CODE.INVALID_ARGUMENT: InvalidRequest,
    _CODE.FAILED_PRECONDITION: InvalidRequest,
    _CODE.OUT_OF_RANGE: InvalidRequest,
    _CODE.UNAUTHENTICATED: Unauthenticated,
    _CODE.PERMISSION_DENIED: PermissionDenied,
    _CODE.NOT_FOUND: NotFound,
    _CODE.ALREADY_EXISTS: AlreadyExists,
    _CODE.RESOURCE_EXHAUSTED: Overloaded,
    _CODE.UNAVAILABLE: Unavailable,
    _CODE.CANCELLED: Unavailable,
    _CODE.ABORTED: TakenOver,
    _CODE.DEADLINE_EXCEEDED: TimedOut,
    _CODE.DATA_LOSS: DataLoss,
}

# What the TLS library says, and what to do about it.
_TLS_REMEDIES = (
    ("unable to get local issuer", "name the authority of the server's certificate: ca="),
    ("self-signed", "name the authority of the server's certificate: ca="),
    ("self signed", "name the authority of the server's certificate: ca="),
    ("Hostname Verification Check failed", "say with server_name= what the certificate bears, or call it by that"),
    ("not in peer certificate", "say with server_name= what the certificate bears, or call it by that"),
    ("certificate verify failed", "is ca= the authority of the server's certificate?"),
    ("CERTIFICATE_VERIFY_FAILED", "is ca= the authority of the server's certificate?"),
    ("WRONG_VERSION_NUMBER", "the server speaks no TLS: write http://"),
    ("CERTIFICATE_REQUIRED", "the server wants to know who calls: client_certificate= and client_key="),
)
_NO_SERVER = "is a server running there? `undertone serve` starts one; one with TLS is https://"
_WHO = "say who calls: token=, UNDERTONE_TOKEN, or client_certificate= and client_key="


# What gRPC says where the connection broke while a call was opened.
_BROKEN_WRITE = "Internal error from Core"


def from_rpc(error: grpc.RpcError, target: str) -> UndertoneError:
    """The exception for what gRPC reports."""
    assert isinstance(error, grpc.aio.AioRpcError)
    return from_status(error.code(), error.details() or "", _status(error.trailing_metadata()), target)


def _status(metadata: Any) -> status_pb2.Status:
    for key, value in metadata or ():
        if key == "grpc-status-details-bin":
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def from_status(code: grpc.StatusCode, message: str, status: status_pb2.Status, target: str) -> UndertoneError:
    """The exception for a status with its details."""
    fields: tuple[tuple[str, str], ...] = ()
    reason: str | None = None
    retry_after: float | None = None
    for packed in status.details:
        bad, info, retry = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if packed.Unpack(bad):
            fields = tuple((violation.field, violation.description) for violation in bad.field_violations)
        elif packed.Unpack(info):
            reason = info.reason
        elif packed.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    kind = _KINDS.get(code, ServerError)
    if reason and (reason.startswith("RESUME_") or reason == "NO_CHECKPOINTS"):
        kind = ResumeRefused
    elif (code is _CODE.UNAVAILABLE and reason is None) or message == _BROKEN_WRITE:
        # The server always gives a reason: this comes from this side, or from what stands between.
        kind, message = ConnectionFailed, f"no answer from {target}: {message}"
    remedy = _remedy(kind, code, message, retry_after)
    return kind(message, code=code.name, reason=reason, fields=fields, remedy=remedy, retry_after=retry_after)


def _remedy(kind: type[UndertoneError], code: grpc.StatusCode, message: str, retry_after: float | None) -> str | None:
    if retry_after is not None:
        return f"try again in {retry_after:.3g} s" if retry_after else "try again at once, elsewhere if you can"
    if kind is ConnectionFailed:
        return next((remedy for sign, remedy in _TLS_REMEDIES if sign in message), _NO_SERVER)
    if kind is Unauthenticated:
        return _WHO
    if kind is ResumeRefused:
        return "open another stream"
    if code is _CODE.UNIMPLEMENTED:
        return "the server is of another version, is no Undertone, or has no escalation store where one is needed"
    return None
