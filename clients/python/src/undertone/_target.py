"""Where the server is, what it is shown, and what is trusted."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from .errors import InvalidRequest

DEFAULT_PORT = 50051
_EXAMPLES = "examples: localhost:50051, https://emotion.example:50051"

Pem = str | os.PathLike[str] | bytes
"""A PEM file's path, or what is in it."""
Token = str | Callable[[], str]
"""A token, or what returns the one to use now."""


def _refuse(field: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {problem}", fields=((field, problem),))


class Target:
    """An address as people type it, taken apart."""

    def __init__(self, text: str) -> None:
        try:
            url = urlsplit(text if "://" in text else f"http://{text}")
            host, port = url.hostname or "", url.port
        except ValueError as error:
            raise _refuse("target", f"cannot be read: {error}; {_EXAMPLES}") from None
        if url.scheme not in ("http", "https"):
            raise _refuse("target", f"must begin with http:// or https://, or with no scheme; {_EXAMPLES}")
        if not host or any(character.isspace() for character in host):
            raise _refuse("target", f"names no host; {_EXAMPLES}")
        if url.path.strip("/") or url.query or url.username is not None:
            raise _refuse("target", f"must be a host and a port, nothing else; {_EXAMPLES}")
        self.secure = url.scheme == "https"
        self.host = host
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{DEFAULT_PORT if port is None else port}"

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.address}"

    @property
    def is_local(self) -> bool:
        """Whether nobody else can listen on the way."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class Credentials:
    """What a server is told and shown, read once but for the token.

    Raises:
        InvalidRequest: Something cannot be read or does not go together, or the token could be read on the way.
    """

    def __init__(
        self,
        target: Target,
        *,
        token: Token | None,
        ca: Pem | None,
        client_certificate: Pem | None,
        client_key: Pem | None,
        server_name: str | None,
    ) -> None:
        ca = ca if ca is not None else os.environ.get("UNDERTONE_CA") or None
        server_name = server_name or os.environ.get("UNDERTONE_SERVER_NAME") or None
        self._token = token if token is not None else os.environ.get("UNDERTONE_TOKEN") or None
        if (client_certificate is None) != (client_key is None):
            given, missing = ("client_certificate", "client_key")[:: 1 if client_key is None else -1]
            raise _refuse(missing, f"is missing; it belongs to {given}")
        given_tls = (("ca", ca), ("server_name", server_name), ("client_certificate", client_certificate))
        for field, value in given_tls:
            if value is not None and not target.secure:
                raise _refuse(field, f"is for https:// targets; the target is {target}")
        if self._token is not None and not target.secure and not target.is_local:
            raise _refuse("token", f"could be read by others on the way to {target}; use https://")
        if isinstance(self._token, str):
            _one_word(self._token)
        self.server_name = server_name
        self.channel: grpc.ChannelCredentials | None = None
        if target.secure:
            self.channel = grpc.ssl_channel_credentials(
                root_certificates=_pem("ca", ca),
                private_key=_pem("client_key", client_key),
                certificate_chain=_pem("client_certificate", client_certificate),
            )

    @property
    def renews(self) -> bool:
        """Whether another attempt may bring another token."""
        return callable(self._token)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers of a call."""
        if self._token is None:
            return ()
        token = self._token if isinstance(self._token, str) else self._token()
        return (("authorization", f"Bearer {_one_word(token)}"),)


def _one_word(token: str) -> str:
    token = token.rstrip("\r\n")
    if not token or not all("!" <= character <= "~" for character in token):
        raise _refuse("token", "must be one word of printable ASCII characters")
    return token


def _pem(field: str, value: Pem | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    try:
        return Path(value).read_bytes()
    except OSError as error:
        raise _refuse(field, f"cannot be read: {error}") from None
